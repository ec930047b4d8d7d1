// Integer atomics: atomic between OS threads, and like CUDA's without any order for other memory. There are
// none for floating types: their result would depend on the order of arrival.
#pragma once

#include <type_traits>

namespace cnnkernels::interpreter {

template <class T>
concept AtomicInteger =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
template <class T>
concept AtomicInteger64 = AtomicInteger<T> || std::is_same_v<T, long long>;

template <class T>
T replace_where(T* at, T value, bool (*better)(T, T)) {
  T now = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (better(value, now) &&
         !__atomic_compare_exchange_n(at, &now, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return now;
}

}  // namespace cnnkernels::interpreter

// All return the value that was there before.
template <cnnkernels::interpreter::AtomicInteger T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <cnnkernels::interpreter::AtomicInteger T>
T atomicSub(T* at, std::type_identity_t<T> value)
  requires(sizeof(T) == 4)
{
  return __atomic_fetch_sub(at, value, __ATOMIC_RELAXED);
}
template <cnnkernels::interpreter::AtomicInteger64 T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return cnnkernels::interpreter::replace_where<T>(at, value, [](T a, T b) { return a > b; });
}
template <cnnkernels::interpreter::AtomicInteger64 T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return cnnkernels::interpreter::replace_where<T>(at, value, [](T a, T b) { return a < b; });
}
template <cnnkernels::interpreter::AtomicInteger T>
T atomicAnd(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_and(at, value, __ATOMIC_RELAXED);
}
template <cnnkernels::interpreter::AtomicInteger T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}
template <cnnkernels::interpreter::AtomicInteger T>
T atomicXor(T* at, std::type_identity_t<T> value) {
  return __atomic_fetch_xor(at, value, __ATOMIC_RELAXED);
}
template <cnnkernels::interpreter::AtomicInteger T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
}
template <cnnkernels::interpreter::AtomicInteger T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
