// The families of asynchronous instructions, and what their decoders share.
#pragma once

#include "emulator/machine/state.h"
#include "emulator/ptx/decoder.h"

namespace cnnkernels::emulator {

bool decode_mbarrier(Decoder&, const Statement&, Instruction&);
bool decode_cp_async(Decoder&, const Statement&, Instruction&);
bool decode_bulk_copy(Decoder&, const Statement&, Instruction&);
bool decode_tensor_copy(Decoder&, const Statement&, Instruction&);
bool decode_store_async(Decoder&, const Statement&, Instruction&);
bool decode_tensor_map(Decoder&, const Statement&, Instruction&);
bool decode_fence(Decoder&, const Statement&, Instruction&);

// [base + offset], when an instruction runs.
inline std::uint64_t address_at(Warp& warp, const Decoder::Base& base, int lane) {
  const std::uint64_t start = base.bytes == 4 ? warp.lanes<std::uint32_t>(base.slot)[lane]
                                              : warp.lanes<std::uint64_t>(base.slot)[lane];
  return start + static_cast<std::uint64_t>(base.offset);
}

inline std::uint64_t address_at(Warp& warp, const Instruction& instruction, int lane) {
  return warp.address(instruction, lane) + static_cast<std::uint64_t>(instruction.offset);
}

}  // namespace cnnkernels::emulator
