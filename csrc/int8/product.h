// An INT8 product as the implicit GEMM that int8_gemm and int8_conv share sees it:
//   C[row, column] = sum over depth of A[row, depth] B[column, depth],   then the epilogue
// Rows of a matrix, or windows of an NHWC image, by rows of weights; nothing is ever copied into a matrix.
#pragma once

#include "../common/fast_divide.h"
#include "../common/geometry.h"
#include "epilogue.h"
#include "plan.h"

namespace cnnkernels::int8 {

// The reduction: `down` x `across` runs of consecutive bytes. A matrix is one run of K; a convolution has one
// a row of the filter, of S C bytes, or where dilation or groups separate the taps one a tap, of C / groups.
// What multiplies them takes a run in units, and bytes of the last unit past the run's end are zeros in B.
struct Depth {
  std::int64_t run_bytes = 0, down = 1;
  FastDivide across;
  FastDivide units{};  // of a run; the launcher knows how long they are

  std::int64_t stages(int unit_bytes, int stage_bytes) const {
    const std::int64_t units_of_run = (run_bytes + unit_bytes - 1) / unit_bytes;
    return (units_of_run * across.divisor * down * unit_bytes + stage_bytes - 1) / stage_bytes;
  }
};

// A or B. The side is its row or column: three digits q, p, n (a matrix has only n), each with the bytes it
// moves by. Windows also move down the rows of an image, and along the bytes of a row: what they read outside
// counts as `fill`. A matrix's image is one row it never leaves.
struct Operand {
  const std::uint8_t* data = nullptr;
  std::int64_t group_stride = 0;

  std::int64_t extent = 1;
  FastDivide q, p;
  std::int64_t offset_q = 0, offset_p = 0, offset_n = 0;
  std::int32_t h_p = 0, x_q = 0;

  std::int64_t offset_across = 0, offset_down = 0;  // from run to run
  std::int32_t x_across = 0, h_down = 0;
  std::int64_t depth_stride = 1;  // of a matrix's depth; windows have 1

  std::int64_t origin = 0;
  std::int32_t origin_h = 0, origin_x = 0;
  std::int32_t height = 1, row_bytes = INT32_MAX;
  std::uint32_t fill = 0;  // four times the byte

  Access access = Access::vectors;
  bool ragged = false;  // words_reach_out of the tensor
  std::uint8_t unused[7] = {};
};

struct Product {
  Operand a, b;
  Depth depth;
  std::int64_t groups = 1;  // each with its rows of b, its part of a's bytes and its columns
  void* output = nullptr;   // [a.extent, groups * b.extent]
  Epilogue epilogue;
  bool unsigned_a = false;  // b is int8
  std::uint8_t unused[7] = {};

  CNN_HOST_DEVICE std::int64_t rows() const { return a.extent; }
  CNN_HOST_DEVICE std::int64_t columns() const { return groups * b.extent; }
};

// Runs it as the plan says. workspace: workspace_bytes(plan, ...) of device memory.
void launch_product(const Product& product, const Plan& plan, void* workspace, std::uintptr_t stream);

// The same product as TMA sees it: windows of an image by filters. A matrix is an image of one row, whose
// pixels are the matrix's rows, k its channels.
struct Boxes {
  ConvGeometry geometry{};
  const void *a = nullptr, *b = nullptr;
  std::int64_t pixel_bytes = 0, filter_bytes = 0;  // from one to the next
  // [(r + 1)(s + 1)][filters]: sums of the filters' taps above and left of each place (launch_window_sums).
  // TMA brings 0 from outside of the image, where the zero point belongs; so what the zero point takes away
  // is the sum of the taps inside. Null: there is no zero point, or every window lies inside.
  const std::int32_t* window_sums = nullptr;
};

// On Hopper: by a plan with wgmma. The epilogue's zero point is a number where there are window sums.
void launch_sm90(const Product& product, const Boxes& boxes, const Plan& plan, void* workspace,
                 std::uintptr_t stream);

// Adds the parts of a split reduction in order and finishes the sums.
void launch_finish_parts(const Product& product, const void* parts, int splits, std::uintptr_t stream);

// window_sums of filters [filters][r][s][channels], at multiples of 16 bytes.
void launch_window_sums(const void* weight, std::int64_t filters, int r, int s, int channels,
                        std::int32_t* window_sums, std::uintptr_t stream);

// sums[side] = sum over depth of data[side * side_stride + depth * depth_stride].
struct Summands {
  const void* data;
  std::int64_t sides, depth, side_stride, depth_stride;
  bool is_unsigned;
  std::uint8_t unused[7] = {};
};
void launch_sums(const Summands& summands, std::int32_t* sums, std::uintptr_t stream);

}  // namespace cnnkernels::int8
