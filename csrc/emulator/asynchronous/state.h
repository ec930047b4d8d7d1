// What is on its way, and the mbarriers that say when it is there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "emulator/races.h"
#include "emulator/types.h"

namespace cnnkernels::emulator {

struct Block;

struct Mbarrier {
  std::uint32_t expected = 0, pending = 0;  // arrivals, of a phase and still to come
  std::int32_t bytes = 0;                   // expected and not yet there; below 0 where they came first
  std::uint32_t phase = 0;                  // how many are complete
  Races::Agent agent = 0;
  Clock gathering, complete;  // of those who arrived; of those up to the last phase that is complete
};

struct BlockBarriers {
  std::map<std::uint32_t, Mbarrier> at;  // by offset in shared memory
};

// Groups of what a thread started: commit_group closes one, wait_group waits for all but the last ones. Races
// count what the warp's lanes start, which needs finer steps than groups, in `started`.
class Groups {
 public:
  std::uint32_t start() { return ++started_; }
  std::uint32_t started() const { return started_; }
  std::uint32_t open_group(int lane) const { return closed_[lane]; }
  void commit(int lane) {
    const std::uint32_t group = closed_[lane]++;
    if (stamps_.size() <= group) stamps_.resize(group + 1);
    stamps_[group] = std::max(stamps_[group], started_);
  }
  // A group below this has to be complete after wait_group N.
  std::uint32_t waited(int lane, std::uint32_t left) const {
    return closed_[lane] - std::min(closed_[lane], left);
  }
  // `started` as of when that was so.
  std::uint32_t stamp(std::uint32_t groups) const { return groups == 0 ? 0 : stamps_[groups - 1]; }

 private:
  std::uint32_t closed_[kLanes]{};
  std::uint32_t started_ = 0;
  std::vector<std::uint32_t> stamps_;
};

struct WarpCopies {
  // cp.async, or the arrival that follows those before it (cp.async.mbarrier.arrive).
  struct Copy {
    int lane;
    std::uint32_t group;
    Block* block;
    std::uint32_t offset;     // of the destination, or of the mbarrier
    std::uint32_t bytes = 0;  // 0: an arrival
    const std::byte* source = nullptr;
    std::uint32_t read_bytes = 0;  // the rest is zeros
  };
  std::vector<Copy> copies;
  Groups copy_groups;

  // Out of shared memory: read first, written later.
  struct Bulk {
    int lane;
    std::uint32_t group;
    std::function<void()> read, write;  // `read` is empty once done
  };
  std::vector<Bulk> bulks;
  Groups bulk_groups;
};

// Into shared memory; each signals an mbarrier when it is there.
struct ClusterDeliveries {
  struct Delivery {
    Block* destination;
    Block* block;  // the mbarrier's
    std::uint32_t mbarrier;
    std::function<void()> land;
  };
  std::vector<Delivery> pending;
};

}  // namespace cnnkernels::emulator
