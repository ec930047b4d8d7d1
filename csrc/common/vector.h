// A group of elements moved by one access: Vector<float16, 8> is a 128-bit load or store.
#pragma once

#include "device.h"

namespace cnnkernels {

template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T element[N];
  CNN_HOST_DEVICE T& operator[](int i) { return element[i]; }
  CNN_HOST_DEVICE const T& operator[](int i) const { return element[i]; }
};

template <int N, class T>
CNN_DEVICE Vector<T, N> load(const T* from) { return *reinterpret_cast<const Vector<T, N>*>(from); }

template <int N, class T>
CNN_DEVICE void store(T* to, const Vector<T, N>& value) { *reinterpret_cast<Vector<T, N>*>(to) = value; }

}  // namespace cnnkernels
