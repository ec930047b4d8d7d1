// Warps, blocks and a cluster of them while they run. A cluster is run by one OS thread, from its start to
// its end.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "emulator/fault.h"
#include "emulator/launch.h"
#include "emulator/profile/meter.h"
#include "emulator/ptx/kernel.h"
#include "emulator/races.h"
#include "emulator/types.h"

namespace cnnkernels::emulator {

// What asynchronous/state.h and tensor_cores/state.h keep for each.
struct WarpCopies;
struct BlockBarriers;
struct ClusterDeliveries;
struct WarpProducts;

struct Block;
struct Cluster;

// Of an instruction that waits: it was executed; it was not and has to be tried again; it was, but found that
// what it waits for is not there (a try_wait that says no), so that others should have their turn.
enum class Outcome : std::uint8_t { done, again, spins };

struct Warp {
  Warp(Block& block, int index);
  ~Warp();
  Warp(Warp&&) noexcept;

  Block* block;
  Cluster* cluster;
  int index;          // in the block
  int cluster_index;  // in the cluster: races count by it
  std::uint32_t pc[kLanes]{};
  Mask live = 0;     // have not ended
  Mask blocked = 0;  // at a barrier of the block
  Mask stalled = 0;  // tried to go on since the warp got its turn, and could not
  Mask carry = 0;    // the carry flag of add.cc
  Mask passed = 0;   // lanes that others of the warp go before: they spin
  Outcome outcome = Outcome::done;
  std::uint32_t position = 0;  // of the instruction being executed
  std::uint32_t apart = 0;     // instructions since lanes that have come apart last changed turns
  std::uint32_t vain = 0;      // turns without progress since the cluster's last event
  std::uint64_t executed = 0, threads_executed = 0;  // instructions, and times lanes

  // The 32 lanes of a register, seen as T: float, std::uint64_t ... (the emulator is compiled without strict
  // aliasing).
  template <class T = std::uint32_t>
  T* lanes(Slot slot) {
    return reinterpret_cast<T*>(registers_ + std::size_t(slot) * kLanes);
  }
  Mask& predicate(Slot slot) { return predicates_[slot]; }
  Mask predicate_source(const Instruction& instruction, int which) const {
    Mask value = predicates_[instruction.source[which]];
    return instruction.negated >> which & 1 ? ~value : value;
  }
  void set_predicate(Slot slot, Mask value, Mask lanes) {
    predicates_[slot] = (predicates_[slot] & ~lanes) | (value & lanes);
  }
  // The address in source[0] without the offset, whatever the register's width.
  std::uint64_t address(const Instruction& instruction, int lane) {
    return instruction.address_bytes == 4 ? lanes<std::uint32_t>(instruction.source[0])[lane]
                                          : lanes<std::uint64_t>(instruction.source[0])[lane];
  }
  std::byte* local(int lane);
  std::size_t local_bytes() const;  // of a lane

  std::vector<std::uint32_t> returns[kLanes];  // of calls
  Mask at_barrier[16]{};                       // lanes that have come to a barrier that the warp has not yet
  Mask at_cluster_barrier = 0;                 // lanes that have arrived there
  std::uint64_t cluster_phase[kLanes]{};       // that a lane waits for
  std::unique_ptr<WarpCopies> copies;
  std::unique_ptr<WarpProducts> products;

 private:
  std::uint32_t* registers_ = nullptr;
  std::unique_ptr<std::byte[]> memory_;  // registers, aligned to 64 bytes
  std::vector<Mask> predicates_;
  std::vector<std::byte> local_;  // of all lanes, one after another
};

// A block's shared memory: addresses begin at kStart, as the driver keeps what is before.
class SharedMemory {
 public:
  static constexpr std::uint32_t kStart = 1024;

  void resize(std::uint32_t end);  // all poison, all unwritten
  std::uint32_t end() const { return static_cast<std::uint32_t>(bytes_.size()); }
  // Nothing is checked here: who resolved the address did.
  std::byte* at(std::uint32_t offset) { return bytes_.data() + offset; }
  bool written(std::uint32_t offset, std::uint32_t bytes) const {
    for (std::uint32_t i = offset; i < offset + bytes; ++i)
      if (!written_[i]) return false;
    return true;
  }
  void mark_written(std::uint32_t offset, std::uint32_t bytes) { std::memset(&written_[offset], 1, bytes); }
  // Poison until something is written: a copy is on its way here.
  void forget(std::uint32_t offset, std::uint32_t bytes);

 private:
  std::vector<std::byte> bytes_;
  std::vector<std::uint8_t> written_;
};

// bar.sync, bar.arrive, bar.red.
struct NamedBarrier {
  std::uint32_t arrived = 0, expected = 0;  // threads; expected is 0 where all of the block are
  struct Waiter {
    Warp* warp;
    Mask lanes;
    const Instruction* instruction;
  };
  std::vector<Waiter> waiters;
  std::uint32_t votes = 0;  // of bar.red
  bool all = true, any = false;
  Clock clock;
};

struct Block {
  Block(Cluster& cluster, int rank);
  ~Block();
  Block(Block&&) noexcept;

  Cluster* cluster;
  int rank;                  // in the cluster
  std::uint32_t index[3]{};  // %ctaid
  SharedMemory shared;
  std::vector<Warp> warps;
  NamedBarrier barriers[16];
  std::unique_ptr<BlockBarriers> mbarriers;

  bool ended() const;
};

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed ^ 0x9e3779b97f4a7c15u) {
    for (int i = 0; i < 8; ++i) next();
  }
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(next() % bound); }

 private:
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  std::uint64_t state_;
};

// What all clusters of a launch share and none changes.
struct LaunchState {
  const Kernel& kernel;
  const Launch& launch;
  const Mode& mode;
  bool measures;              // each cluster has a meter
  std::vector<Range> memory;  // sorted; empty where anything may be touched
  std::uint32_t warps_per_block;

  std::uint32_t shared_end() const { return kernel.dynamic_shared + launch.shared_bytes; }
};

struct Cluster {
  Cluster(const LaunchState& state, std::uint64_t index);
  ~Cluster();

  const LaunchState& state;
  std::uint32_t index[3]{};  // %clusterid
  std::vector<Block> blocks;
  Random random;
  std::uint64_t events = 0;  // something changed that another warp may wait for: raised by whoever changes it
  std::uint64_t phase = 0;   // of barrier.cluster
  Clock arrived, completed;  // of those who arrive there, of those who did before the last phase ended
  Warp* running = nullptr;
  std::unique_ptr<Races> races;  // none where Mode::races is false
  std::unique_ptr<ClusterDeliveries> deliveries;
  std::unique_ptr<Meter> meter;  // none where nothing is counted

  const Mode& mode() const { return state.mode; }
  Counts run();

 private:
  void round(bool starved);
  void take_turn(Warp& warp);
  bool stuck() const;
  std::string why_stuck() const;
  std::string standing() const;

  std::vector<Warp*> warps_;
  std::vector<bool> starves_;  // of warps_
};

}  // namespace cnnkernels::emulator
