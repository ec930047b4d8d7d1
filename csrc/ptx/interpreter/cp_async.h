// The CPU's cp.async. The destination is poisoned when a copy is issued; a group's data arrive when the
// delivery policy says so (at once, at a random moment, as late as the waits allow). Uncommitted copies never
// arrive.
#pragma once

#include "../../interpreter/api.h"

namespace cnnkernels::model {

void cp_async(int bytes, void* shared, const void* global, bool valid, interpreter::Site site);
void cp_async_commit(interpreter::Site site);
void cp_async_wait(int groups_left, interpreter::Site site);

}  // namespace cnnkernels::model
