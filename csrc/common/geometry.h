// The geometry of an operator in the field's letters: input N C H W, filter K R S, output N K P Q.
#pragma once

#include <cstdint>

namespace cnnkernels {

// How the four axes lie in memory. Filters follow: KRSC beside NHWC, KCRS beside NCHW.
enum class Layout : int { nchw = 0, nhwc = 1 };

// What lies outside the image: zeros, or its own pixels (conv/border.h).
enum class PaddingMode : int { zeros = 0, reflect = 1, replicate = 2, circular = 3 };

struct ConvGeometry {
  std::int64_t n, c, h, w;  // input
  std::int64_t k, r, s;     // filter [k, c / groups, r, s]
  std::int64_t p, q;        // output [n, k, p, q]
  std::int64_t stride_h, stride_w;
  std::int64_t pad_h,
      pad_w;  // before the first row and column; what is needed after the last follows from p, q
  std::int64_t dilation_h, dilation_w;
  std::int64_t groups;
  PaddingMode padding_mode = PaddingMode::zeros;  // conv2d's forward and backward_weight alone know others
  std::int32_t unused = 0;
};

struct PoolGeometry {
  std::int64_t n, c, h, w;  // input
  std::int64_t r, s;        // window
  std::int64_t p, q;        // output [n, c, p, q]
  std::int64_t stride_h, stride_w;
  std::int64_t pad_h, pad_w;
  std::int64_t dilation_h, dilation_w;
};

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace cnnkernels
