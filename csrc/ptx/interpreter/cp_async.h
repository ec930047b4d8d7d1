// The CPU's cp.async. The destination is poisoned when a copy is issued; a group's data arrive
// when the delivery policy says so (at once, at a random moment, as late as the waits allow).
// Copies that nothing waits for never arrive.
#pragma once

#include "../../interpreter/api.h"

namespace cnnkernels {

struct Mbarrier;

namespace model {

void cp_async(int bytes, void* shared, const void* global, bool valid, interpreter::Site site);
void cp_async_commit(interpreter::Site site);
void cp_async_wait(int groups_left, interpreter::Site site);
void cp_async_arrive(Mbarrier* barrier, interpreter::Site site);

}  // namespace model
}  // namespace cnnkernels
