// The CPU's mbarrier: the state machine of the PTX manual, with its undefined behaviour made into faults.
#pragma once

#include <cstdint>

#include "../../interpreter/api.h"

namespace cnnkernels {

struct Mbarrier;

namespace model {

using interpreter::Site;

void mbarrier_init(Mbarrier* barrier, unsigned arrivals, Site site);
void mbarrier_init_fence(Site site);
void mbarrier_invalidate(Mbarrier* barrier, Site site);
void mbarrier_arrive(Mbarrier* barrier, Site site);
void mbarrier_arrive_cluster(Mbarrier* barrier, unsigned rank, Site site);
void mbarrier_expect_bytes(Mbarrier* barrier, unsigned bytes, Site site);
bool mbarrier_test(Mbarrier* barrier, unsigned parity, Site site);
void mbarrier_wait(Mbarrier* barrier, unsigned parity, Site site);

// Faults unless the barrier is alive.
void mbarrier_check(Mbarrier* barrier, const char* what, Site site);

// For asynchronous copies to the block of this rank, whose barrier it is. Their bytes belong to the phase
// that was current when they were issued.
std::uint32_t mbarrier_phase_for_copy(Mbarrier* barrier, unsigned rank, Site site);
void mbarrier_complete_bytes(Mbarrier* barrier, unsigned rank, unsigned bytes, std::uint32_t phase,
                             Site site);

}  // namespace model
}  // namespace cnnkernels
