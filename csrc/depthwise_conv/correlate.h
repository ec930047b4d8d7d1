// forward and backward_input are one computation, a sum over taps of the filter for every result:
//
//   result[n, o, :, :] = bias[o] + sum over terms j and taps of source[n, ...] filter[...]
//   forward:         o is a filter k, which reads channel k / m; one term
//   backward_input:  o is a channel c, which m filters c m + j read; m terms
//
// What differs is data: the axes (axis.h), the filter's strides (a stride of 1 is undone by walking the
// filter backwards) and the numbers of channels. This header is plain C++; correlate.cuh has the kernel.
#pragma once

#include "views.h"

namespace cnnkernels::depthwise_conv {

// How results are spread over threads. FastDivide holds an extent that something is divided by.
struct Tiling {
  FastDivide lanes, strips, lines;                    // threads of a block; images are the rest
  Index images;                                       // of a block
  FastDivide lane_blocks, strip_blocks, line_blocks;  // blocks; of images there are as many as needed
  Index first_result;                                 // along a, of the first strip: 0 or before the first
};

// The part of the filters that a block holds in shared memory at once.
struct Batch {
  Index lines;       // taps along b
  FastDivide taps;   // along a
  FastDivide slots;  // filters
};

struct Correlation {
  Axis a, b;
  View source, result;
  Taps taps;
  Tiling tiling;
  Batch batch;
  bool channels_last;
  std::uint8_t unused[3] = {};
  Index images;           // N
  FastDivide channels;    // of the result
  FastDivide multiplier;  // forward: a result's channel is its filter's over this
  Index terms;            // filters of one result: 1, or the multiplier in backward_input
};

inline constexpr int kBatchBytes = 24 * 1024;  // of shared memory for the filters

// Where the first strip starts: chunks of a transposed axis want results whose o + pad is even.
inline Index first_result(const Axis& a, const Plan& plan) {
  return a.transposed && plan.chunk > 0 ? -(a.pad % 2) : 0;
}

inline std::int64_t strips_along(const Axis& a, const Plan& plan) {
  return ceil_div(a.result_size - first_result(a, plan), strip_of(plan.vector, plan.chunk, a));
}

struct CorrelationPointers {
  const void *source, *filter, *bias;  // bias null: none
  void* result;
};

template <class T>
void launch_correlation(const Correlation& correlation, const Plan& plan, const CorrelationPointers& pointers,
                        std::uintptr_t stream);

template <class T>
void launch_slab(Correlation correlation, const Plan& plan, const CorrelationPointers& pointers,
                 std::uintptr_t stream);

// forward.cpp and backward_input.cpp.
Correlation forward_correlation(const Problem& problem, bool along_row);
Correlation backward_input_correlation(const Problem& problem, bool along_row);

}  // namespace cnnkernels::depthwise_conv
