// Refusals by a constant message. <stdexcept> would take nvcc a third of what a small source takes in all.
#pragma once

namespace cnnkernels {

[[noreturn]] void throw_invalid_argument(const char* why);                   // std::invalid_argument
[[noreturn]] void throw_invalid_argument(const char* who, const char* why);  // "who: why"

}  // namespace cnnkernels
