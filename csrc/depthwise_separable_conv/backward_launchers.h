// The backward kernel's launchers, one an element type, and what they take beside the pair.
#pragma once

#include "pair.h"

namespace cnnkernels::depthwise_separable_conv {

inline constexpr int kBackwardRows = 128;        // pixels of a patch
inline constexpr int kBackwardFilterStages = 2;  // of 128 bytes of filters, whose gradient a block keeps

struct Errors {
  const void* of_output;  // g
  const void* saved;      // z; or null: it is made anew
  void* of_intermediate;  // or null
  void* parts;            // [part][filter][channel], the accumulator's type; or null
  std::int32_t patches, patches_a_part;
  FastDivide filter_tiles, stages;
  bool output_vectors;  // runs of g's filters start at multiples of 16 bytes
  std::uint8_t unused[7] = {};
};

// Exact types are here to be right: they read element by element.
constexpr bool backward_kernel_exists(int bytes, Reader reader) {
  return bytes == 2 || reader == Reader::elements;
}

template <class T>
void launch_backward(const Pair& pair, const Errors& errors, Reader reader, std::int64_t blocks,
                     std::uintptr_t stream);

}  // namespace cnnkernels::depthwise_separable_conv
