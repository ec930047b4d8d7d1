// The words of common/device.h for the host compiler: what a kernel source may say, and nothing else of CUDA.
#pragma once

#include <math.h>

#include "api.h"
#include "arithmetic.h"
#include "atomics.h"
#include "barrier.h"
#include "dim3.h"
#include "shared_array.h"
#include "shuffle.h"

#define CNN_DEVICE inline
#define CNN_HOST_DEVICE inline
#define CNN_KERNEL(max_threads, min_blocks) void
#define CNN_DYNAMIC_SHARED(name) \
  unsigned char* const name = static_cast<unsigned char*>(::cnnkernels::interpreter::dynamic_shared())
#define CNN_SHARED(type, name, extents)                                                           \
  using name##_type = type extents;                                                               \
  static constexpr ::cnnkernels::interpreter::SharedArray name##_slot{#name, __FILE__, __LINE__}; \
  name##_type& name = *static_cast<name##_type*>(                                                 \
      ::cnnkernels::interpreter::shared_array(name##_slot, sizeof(name##_type), alignof(name##_type)))

// The place in the source a primitive was called from: the last parameter of its model.
#define CNN_SITE_ONLY ::cnnkernels::interpreter::Site site = ::cnnkernels::interpreter::Site::current()
#define CNN_SITE , CNN_SITE_ONLY

#define __grid_constant__
#define threadIdx (::cnnkernels::interpreter::current->index)
#define blockIdx (::cnnkernels::interpreter::current->view->index)
#define blockDim (::cnnkernels::interpreter::current->view->block_dim)
#define gridDim (::cnnkernels::interpreter::current->view->grid_dim)

inline constexpr int warpSize = 32;

inline void __syncthreads(CNN_SITE_ONLY) { cnnkernels::interpreter::sync_threads(site); }
inline int __syncthreads_count(int predicate CNN_SITE) {
  return static_cast<int>(
      cnnkernels::interpreter::sync_threads_vote(predicate != 0, "__syncthreads_count", site));
}
inline int __syncthreads_or(int predicate CNN_SITE) {
  return cnnkernels::interpreter::sync_threads_vote(predicate != 0, "__syncthreads_or", site) != 0;
}
inline int __syncthreads_and(int predicate CNN_SITE) {
  return cnnkernels::interpreter::sync_threads_vote(predicate == 0, "__syncthreads_and", site) == 0;
}

// Memory is written in program order here; whether a fence is missing cannot be seen (docs/interpreter.md).
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __nanosleep(unsigned) { cnnkernels::interpreter::yield(); }
[[noreturn]] inline void __trap(CNN_SITE_ONLY) { cnnkernels::interpreter::fault(site, "__trap"); }
