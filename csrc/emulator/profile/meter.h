// Counts what a cluster executes. The scheduler tells it of every instruction, and an instruction that moves
// or multiplies tells it how much (Instruction::measure), before it is executed.
#pragma once

#include <cstdint>
#include <vector>

#include "emulator/profile/footprint.h"
#include "emulator/profile/rules.h"

namespace cnnkernels::emulator {

struct Warp;
struct Instruction;

// Of one instruction of a kernel.
struct Counted {
  std::uint64_t warps = 0, threads = 0;  // times a warp executed it, and lanes with a true guard
  // Of shared memory, by lanes. `least` is without bank conflicts.
  std::uint64_t shared_requests = 0, least_wavefronts = 0, wavefronts = 0;
  // Of shared memory, by copies in bulk and by tensor cores: 128 bytes each.
  std::uint64_t streamed_wavefronts = 0;
  // Of global memory, by lanes: what they want, each byte once a request, and the sectors it lies in.
  std::uint64_t global_requests = 0, sectors = 0, wanted_bytes = 0;
  std::uint64_t l2_sectors = 0;  // all that L1 does not have; of bulk copies too
  // Copies in bulk and TMA: bytes of global memory, and bytes filled in as they lie outside of the tensor.
  std::uint64_t bulk_read = 0, bulk_written = 0, bulk_filled = 0;
  std::uint64_t multiply_adds = 0;  // of tensor cores

  void add(const Counted& other);
};

enum class Way : std::uint8_t { l1, l2 };  // does L1 keep what is read

class Meter {
 public:
  Meter(std::size_t instructions, std::size_t warps, std::size_t blocks);

  // The instruction was executed, by a group of lanes of which those whose guard is true are `lanes`.
  void executed(const Warp& warp, std::uint32_t at, Mask group, Mask lanes);
  // It found that what it waits for is not there. A GPU's warp sleeps: neither this nor the way back to here
  // is counted.
  void spun(const Warp& warp, std::uint32_t at, Mask group);

  void shared_access(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                     std::uint32_t bytes, bool atomic = false);
  void shared_stream(const Warp& warp, std::uint64_t bytes);
  void global_read(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                   std::uint32_t bytes, Way way);
  void global_write(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                    std::uint32_t bytes, bool atomic = false);
  void bulk_read(const Warp& warp, std::uint64_t address, std::uint64_t bytes);
  void bulk_written(const Warp& warp, std::uint64_t address, std::uint64_t bytes);
  void bulk_filled(const Warp& warp, std::uint64_t bytes);
  void multiplied(const Warp& warp, std::uint64_t multiply_adds);

  void finish();  // the cluster has ended

  const std::vector<Counted>& counted() const { return counted_; }
  const Footprint& read() const { return read_; }
  const Footprint& written() const { return written_; }

 private:
  // Lanes that wait at `at`, and what they have executed since.
  struct Spin {
    std::uint32_t at = kNowhere;
    Mask lanes = 0;
    struct Step {
      std::uint32_t at, threads;
    };
    std::vector<Step> since;
  };
  static constexpr std::uint32_t kNowhere = ~std::uint32_t{0};
  static constexpr std::size_t kLongestWayBack = 8;  // instructions

  Counted& row(const Warp& warp);
  void count(std::uint32_t at, std::uint32_t threads);
  void leave(Spin& spin);
  std::uint64_t request(const Warp& warp, const std::uint64_t (&addresses)[kLanes], Mask lanes,
                        std::uint32_t bytes, Footprint& footprint);

  std::vector<Counted> counted_;  // by instruction
  std::vector<Spin> spins_;       // by warp
  std::vector<Footprint> l1_;     // by block
  Footprint read_, written_;
};

}  // namespace cnnkernels::emulator
