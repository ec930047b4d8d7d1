// A warp's tile of a block's: which of its rows and columns a lane brings to mma.sync and has of the sums. An
// instruction makes 16 x 8 outputs of 32 bytes of the reduction, whatever the type.
#pragma once

#include <cstring>

#include "../common/device.h"
#include "../ptx/convert.cuh"

namespace cnnkernels::gemm {

// Rows x Columns outputs a warp, WarpsAcross warps beside each other.
template <int Rows, int Columns, int WarpsAcross>
struct WarpTile {
  static constexpr int kRowTiles = Rows / 16, kColumnTiles = Columns / 8;
  static_assert(kColumnTiles % 2 == 0);  // columns come two tiles at a time

  CNN_DEVICE static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  CNN_DEVICE static int first_row() { return static_cast<int>(threadIdx.x) / 32 / WarpsAcross * Rows; }
  CNN_DEVICE static int first_column() { return static_cast<int>(threadIdx.x) / 32 % WarpsAcross * Columns; }

  // ldmatrix lane l names row l % 8 of matrix l / 8. Of 16 rows the four matrices are the upper and lower
  // eight at the first 16 bytes, then at the second; of 16 columns the first eight at both 16 bytes, then the
  // next.
  CNN_DEVICE static int named() { return lane() % 8; }
  CNN_DEVICE static int lower_rows() { return lane() / 8 % 2 * 8; }
  CNN_DEVICE static int half_of_rows() { return lane() / 16; }
  CNN_DEVICE static int next_columns() { return lane() / 16 * 8; }
  CNN_DEVICE static int half_of_columns() { return lane() / 8 % 2; }

  // What four matrices of 16 columns are to the instructions of the left and the right eight.
  CNN_DEVICE static void take_apart(const std::uint32_t (&both)[4], std::uint32_t (&left)[2],
                                    std::uint32_t (&right)[2]) {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      left[v] = both[v];
      right[v] = both[2 + v];
    }
  }

  // Where sum v of tile (i, j) lies in the block's tile: sums 0 and 1 are beside each other, 2 and 3 eight
  // rows below.
  CNN_DEVICE static int row(int i, int v) { return first_row() + lane() / 4 + 16 * i + 8 * (v / 2); }
  CNN_DEVICE static int column(int j, int v) { return first_column() + lane() % 4 * 2 + 8 * j + v % 2; }
};

// fp32 in shared memory becomes tf32 on its way to the tensor cores.
template <int Count>
CNN_DEVICE void round_to_tf32(std::uint32_t (&registers)[Count]) {
#pragma unroll
  for (std::uint32_t& bits : registers) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    bits = float_to_tf32(value);
  }
}

}  // namespace cnnkernels::gemm
