// The CPU's elect.sync and setmaxnreg.
#pragma once

#include "../../interpreter/api.h"

namespace cnnkernels::model {

bool elect_one(interpreter::Site site);

// Changes no registers, but keeps the books: who takes more than there is waits,
// and who gives what it has not faults.
void change_registers(int count, bool increase, interpreter::Site site);

}  // namespace cnnkernels::model
