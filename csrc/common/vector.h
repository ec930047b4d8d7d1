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

// Copies 16 bytes from shared to global memory.
template <class T>
void copy_vector(T* to, const T* from CNN_SITE) {
  store(reinterpret_cast<std::uint32_t*>(to), load<4>(reinterpret_cast<const std::uint32_t*>(from), site),
        site);
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

// The compiler takes a Vector apart that goes from one memory to the other, but no uint4.
template <class T>
CNN_DEVICE void copy_vector(T* to, const T* from) {
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
}

#endif

}  // namespace cnnkernels
