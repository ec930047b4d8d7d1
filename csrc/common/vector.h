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

#if defined(CNN_INTERPRETER)

// A GPU faults on a misaligned access; the host's processor would not.
template <class V>
void check_aligned(const void* address, const char* what CNN_SITE) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignof(V) != 0) {
    interpreter::fault(site, std::string(what) + " of " + std::to_string(sizeof(V)) + " bytes is misaligned");
  }
}

template <int N, class T>
Vector<T, N> load(const T* from CNN_SITE) {
  check_aligned<Vector<T, N>>(from, "a vector load", site);
  return *reinterpret_cast<const Vector<T, N>*>(from);
}

template <int N, class T>
void store(T* to, const Vector<T, N>& value CNN_SITE) {
  check_aligned<Vector<T, N>>(to, "a vector store", site);
  interpreter::generic_write(to, sizeof(value));
  *reinterpret_cast<Vector<T, N>*>(to) = value;
}

#else

template <int N, class T>
CNN_DEVICE Vector<T, N> load(const T* from) {
  return *reinterpret_cast<const Vector<T, N>*>(from);
}

template <int N, class T>
CNN_DEVICE void store(T* to, const Vector<T, N>& value) {
  *reinterpret_cast<Vector<T, N>*>(to) = value;
}

#endif

}  // namespace cnnkernels
