// What every operator's bindings.cpp is written in: pointers and enumerations come in as plain numbers.
#pragma once

#include <cstdint>

#include <pybind11/pybind11.h>

#include "geometry.h"

namespace py = pybind11;

namespace cnnkernels {

enum class DType : int;

using Pointer = std::uintptr_t;

template <class T = void>
T* pointer(Pointer address) {
  return reinterpret_cast<T*>(address);
}

inline DType dtype_of(int value) { return static_cast<DType>(value); }
inline Layout layout_of(int value) { return static_cast<Layout>(value); }

}  // namespace cnnkernels
