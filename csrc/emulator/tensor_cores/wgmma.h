// wgmma.mma_async, decoded, and the product of one warp.
#pragma once

#include <span>
#include <vector>

#include "emulator/machine/state.h"
#include "emulator/ptx/decoder.h"
#include "emulator/tensor_cores/families.h"
#include "emulator/tensor_cores/fragments.h"
#include "emulator/tensor_cores/state.h"

namespace cnnkernels::emulator {

struct WgmmaDetails : Details {
  std::vector<Slot> d, a;  // no `a`: from shared memory
  Slot descriptor_a = kNone, descriptor_b = kNone;
  Shape shape;
  Type type_d = Type::none, type_a = Type::none, type_b = Type::none;
  bool negates_a = false, negates_b = false;
  bool mn_major_a = false, mn_major_b = false;
  bool saturates = false;
};

// Which B was read last, so that the next warp of a warpgroup need not read it again.
struct OperandB {
  const WgmmaDetails* details = nullptr;
  std::uint64_t descriptor = 0;
};

// The product's operands from shared memory, and its registers of A; then D from the sums and what is read.
// `last` is of this OS thread's last call, and nothing has been written since.
void compute(Warp& warp, const Product& product, std::span<const Register> read,
             std::span<const Register> write, OperandB& last);

// Tells the races what a product that a warp issues will read.
void note_reads(Warp& warp, const Product& product);

// In Mode::late: a product begins, and the warpgroup's up to a group are complete. `publish` puts the warp's
// own results where registers still wait for them, and says whether there were any.
void begin(Warp& warp, Product product);
void complete(Warp& warp, std::uint32_t groups);
bool publish(Warp& warp, std::uint32_t groups);

}  // namespace cnnkernels::emulator
