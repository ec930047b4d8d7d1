#pragma once

namespace cnnkernels {

inline constexpr int kMostDevices = 64;

// The current device's number, below kMostDevices; 0 in the interpreter.
int this_device();

}  // namespace cnnkernels
