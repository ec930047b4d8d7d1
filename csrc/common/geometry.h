// The geometry of an operator in the field's letters: input N C D H W, filter K T R S, output N K Z P Q.
#pragma once

#include <cstdint>

#include "errors.h"

namespace cnnkernels {

// How the four axes lie in memory. Filters follow: KRSC beside NHWC, KCRS beside NCHW.
enum class Layout : int { nchw = 0, nhwc = 1 };

// What lies outside the image: zeros, or its own pixels (conv/border.h).
enum class PaddingMode : int { zeros = 0, reflect = 1, replicate = 2, circular = 3 };

// Three spatial axes; of an operator with fewer the first are of extent 1, stride 1, no padding.
struct ConvGeometry {
  std::int64_t n, c, d, h, w;  // input
  std::int64_t k, t, r, s;     // filter [k, c / groups, t, r, s]
  std::int64_t z, p, q;        // output [n, k, z, p, q]
  std::int64_t stride_d, stride_h, stride_w;
  // Before the first of an axis; what is needed after the last follows from z, p, q.
  std::int64_t pad_d, pad_h, pad_w;
  std::int64_t dilation_d, dilation_h, dilation_w;
  std::int64_t groups;
  PaddingMode padding_mode = PaddingMode::zeros;  // conv's forward and backward_weight alone know others
  std::int32_t unused = 0;
};

struct PoolGeometry {
  std::int64_t n, c, d, h, w;  // input
  std::int64_t t, r, s;        // window
  std::int64_t z, p, q;        // output [n, c, z, p, q]
  std::int64_t stride_d, stride_h, stride_w;
  std::int64_t pad_d, pad_h, pad_w;
  std::int64_t dilation_d, dilation_h, dilation_w;
};

// The same geometry, for kernels of planes; std::invalid_argument for one that has depth.
template <class Geometry>
const Geometry& of_planes(const Geometry& g) {
  if (g.d != 1 || g.t != 1 || g.z != 1)
    throw_invalid_argument("expected a geometry of two spatial axes: d, t and z of 1");
  return g;
}

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// std::max and std::min of numbers, on the host: <algorithm> takes nvcc as long as all headers of CUDA.
template <class T>
constexpr T larger(T a, T b) {
  return a < b ? b : a;
}
template <class T>
constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}

}  // namespace cnnkernels
