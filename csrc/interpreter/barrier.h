// __syncthreads for vocabulary.h.
#pragma once

#include "api.h"

namespace cnnkernels::interpreter {

void sync_threads(Site site);
// Returns how many of the threads brought a true predicate.
unsigned sync_threads_vote(bool predicate, const char* what, Site site);

}  // namespace cnnkernels::interpreter
