#include "statistics.h"

#include <atomic>

namespace cnnkernels::model {
namespace {

std::atomic<std::uint64_t> all_taken, all_needed;

// Counted per block and added up when the block ends: counters shared by OS threads would serialise them.
struct BlockTrips : SharedTrips {
  ~BlockTrips() {
    all_taken += taken;
    all_needed += needed;
  }
};

}  // namespace

void count_shared_trips(int taken, int needed) {
  auto& trips = interpreter::block_state<BlockTrips>();
  trips.taken += taken;
  trips.needed += needed;
}

SharedTrips shared_trips() { return {all_taken, all_needed}; }

void reset_shared_trips() { all_taken = all_needed = 0; }

}  // namespace cnnkernels::model
