// The words a kernel source is written in. nvcc maps them to CUDA, the host compiler to the interpreter,
// so one source runs on a GPU and on a CPU. A source without kernels (.cpp) is compiled once for both, and
// meets them in headers that it shares with kernels: they are plain functions to it.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(CNN_INTERPRETER)

#include "../interpreter/vocabulary.h"

#elif defined(__CUDACC__)

#include <cuda_runtime.h>

#define CNN_DEVICE __device__ __forceinline__
#define CNN_HOST_DEVICE __host__ __device__ __forceinline__
// A kernel, with the most threads a block of it may have and the blocks an SM should hold.
#define CNN_KERNEL(max_threads, min_blocks) __global__ void __launch_bounds__(max_threads, min_blocks)
// Dynamic shared memory, 1024-byte aligned (the widest swizzle pattern). One per kernel.
#define CNN_DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
// Static shared memory: CNN_SHARED(float, tile, [32][33]).
#define CNN_SHARED(type, name, extents) __shared__ type name extents

#else

#include "../interpreter/arithmetic.h"

#define CNN_DEVICE inline
#define CNN_HOST_DEVICE inline

#endif
