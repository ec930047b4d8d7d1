// The only way a kernel is started, on a GPU and in the interpreter alike.
#pragma once

#include <cstdint>
#include <type_traits>

#include "device.h"

namespace cnnkernels {

struct Launch {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic shared memory
  std::uintptr_t stream = 0;     // cudaStream_t; the interpreter runs at once
  dim3 cluster = dim3(1, 1, 1);
};

int processors();  // of the GPU that launches go to

// Whether all bytes of a T are its value: padding would take to the GPU what lay on the stack, and no two
// launches would be the same. A struct's floating numbers are AsBits (as_bits.h), its gaps have members.
// nvcc looks at the host's part of a source twice, and errs about derived structs where it compiles for the
// GPU.
#if defined(__CUDA_ARCH__)
template <class T>
inline constexpr bool kPacked = true;
#else
template <class T>
inline constexpr bool kPacked = std::has_unique_object_representations_v<T> || std::is_floating_point_v<T>;
#endif

#if defined(CNN_INTERPRETER)

template <class... P, class... A>
void launch(void (*kernel)(P...), const Launch& how, A... arguments) {
  static_assert((kPacked<P> && ...), "a kernel's argument has padding");
  // By reference: run() returns when the kernel has. (By value, GCC 12 under -ftrivial-auto-var-init clears
  // bytes of a large array's elements for padding when it copies them into the closure.)
  interpreter::run(how.grid, how.block, how.cluster, how.shared_bytes,
                   [&] { kernel(static_cast<P>(arguments)...); });
}

#else

// Starts a kernel whose parameters lie at `parameters`.
void start(const void* kernel, const Launch& how, void** parameters);

template <class... P, class... A>
void launch(void (*kernel)(P...), const Launch& how, A... arguments) {
  static_assert((kPacked<P> && ...), "a kernel's argument has padding");
  const auto with = [&](P... converted) {
    void* parameters[] = {&converted..., nullptr};
    start(reinterpret_cast<const void*>(kernel), how, parameters);
  };
  with(static_cast<P>(arguments)...);
}

#endif

}  // namespace cnnkernels
