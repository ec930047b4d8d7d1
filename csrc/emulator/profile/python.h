// A profile as Python has it.
#pragma once

#include <pybind11/pybind11.h>

#include "emulator/profile/profile.h"

namespace cnnkernels::emulator {

pybind11::dict as_dict(const Profile& profile);

}  // namespace cnnkernels::emulator
