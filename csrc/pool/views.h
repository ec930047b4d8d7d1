// The host's view of a whole pool.
#pragma once

#include <type_traits>

#include "../common/sites.h"
#include "../common/types.h"
#include "../common/window.h"
#include "pool.h"

namespace cnnkernels::pool {

// A pool as the kernels see it: N * C images of one channel for NCHW.
struct Pool {
  PoolGeometry g;
  Batch batch;
  std::int64_t input_image, output_image;  // elements

  Pool(const PoolGeometry& geometry, Layout layout, std::int64_t largest_index, const char* op = "max_pool2d")
      : g(within_reach(geometry, op)) {
    const std::int64_t channels = layout == Layout::nhwc ? g.c : 1;
    input_image = g.h * g.w * channels;
    output_image = g.p * g.q * channels;
    batch = {layout == Layout::nhwc ? g.n : g.n * g.c, channels,
             input_image > output_image ? input_image : output_image, largest_index};
  }

  WindowAxis rows() const { return {g.h, g.r, g.stride_h, g.pad_h, g.dilation_h}; }
  WindowAxis columns() const { return {g.w, g.s, g.stride_w, g.pad_w, g.dilation_w}; }
};

// Calls body(Place{}) with the C++ type of an argmax.
template <class Body>
void dispatch_places(DType places, Body&& body) {
  switch (places) {
    case DType::uint8:
      return body(std::uint8_t{});
    case DType::uint16:
      return body(std::uint16_t{});
    case DType::int32:
      return body(std::int32_t{});
    default:
      throw_invalid_argument("max_pool2d: argmax must be uint8, uint16 or int32");
  }
}

}  // namespace cnnkernels::pool
