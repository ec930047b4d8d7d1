// What a launch cost shared memory: a free, static signal of a wrong swizzle, which computes the right
// numbers slowly.
#pragma once

#include <cstdint>

#include "../../interpreter/api.h"

namespace cnnkernels::model {

struct SharedTrips {
  std::uint64_t taken = 0;   // trips to shared memory that ldmatrix and stmatrix took
  std::uint64_t needed = 0;  // and what they take without bank conflicts
};

void count_shared_trips(int taken, int needed);

// Of all launches since the last call of reset_shared_trips.
SharedTrips shared_trips();
void reset_shared_trips();

}  // namespace cnnkernels::model
