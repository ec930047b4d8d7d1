// The kernels of docs/learn/gpu.md, which shows them as they stand here.
#include "common/launch.h"
#include "common/types.h"
#include "ptx/mma.cuh"
#include "ptx/tma.cuh"
#include "registry.h"

namespace cnnkernels {
namespace {

// y[i] += a * x[i]
CNN_KERNEL(256, 1) axpy(float a, const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i];
}

CNN_KERNEL(32, 1) warp_sum(const float* x, float* sum) {
  float mine = x[threadIdx.x];
  for (int apart = 16; apart > 0; apart /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, apart);
  if (threadIdx.x == 0) *sum = mine;
}

// Each block turns its 256 numbers round.
template <bool Waits>
CNN_KERNEL(256, 1)
reverse(const float* x, float* y) {
  CNN_SHARED(float, tile, [256]);
  const int t = threadIdx.x, i = blockIdx.x * 256 + t;
  tile[t] = x[i];
  if (Waits) __syncthreads();
  y[i] = tile[255 - t];
}

// y = x turned over its diagonal, [n, n]; a block a tile of 32 x 32.
template <int Padding>
CNN_KERNEL(256, 1)
transpose(const float* x, float* y, int n) {
  CNN_SHARED(float, tile, [32][32 + Padding]);
  const int column = threadIdx.x % 32, first = threadIdx.x / 32;
  for (int row = first; row < 32; row += 8)
    tile[row][column] = x[(blockIdx.y * 32 + row) * n + blockIdx.x * 32 + column];
  __syncthreads();
  for (int row = first; row < 32; row += 8)
    y[(blockIdx.x * 32 + row) * n + blockIdx.y * 32 + column] = tile[column][row];
}

// c = a b, [n, n]; a block a tile of 16 x 16, a thread an element of it.
template <bool WaitsAgain>
CNN_KERNEL(256, 1)
matmul(const float* a, const float* b, float* c, int n) {
  CNN_SHARED(float, left, [16][16]);
  CNN_SHARED(float, right, [16][16]);
  const int column = threadIdx.x % 16, row = threadIdx.x / 16;
  const int i = blockIdx.y * 16 + row, j = blockIdx.x * 16 + column;
  float sum = 0;
  for (int k = 0; k < n; k += 16) {
    left[row][column] = a[i * n + k + column];
    right[row][column] = b[(k + row) * n + j];
    __syncthreads();
    for (int l = 0; l < 16; ++l) sum += left[row][l] * right[l][column];
    if (WaitsAgain) __syncthreads();
  }
  c[i * n + j] = sum;
}

// y = x cross-correlated with w: x is [C, H, W], w is [K, C, R, R], y is [K, H - R + 1, W - R + 1].
CNN_KERNEL(256, 1) conv(const float* x, const float* w, float* y, int C, int H, int W, int R) {
  const int P = H - R + 1, Q = W - R + 1;
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y;
  if (pixel >= P * Q) return;
  const int p = pixel / Q, q = pixel % Q;
  float sum = 0;
  for (int c = 0; c < C; ++c)
    for (int r = 0; r < R; ++r)
      for (int s = 0; s < R; ++s) sum += x[(c * H + p + r) * W + q + s] * w[((k * C + c) * R + r) * R + s];
  y[k * P * Q + pixel] = sum;
}

// d = a b: a is [16, 16], b is [16, 8] column by column, d is [16, 8].
CNN_KERNEL(32, 1) tensor_core(const std::uint32_t* a, const std::uint32_t* b, float* d) {
  const int g = threadIdx.x / 4, c = threadIdx.x % 4;
  std::uint32_t left[1][4], right[1][2];  // two halves in a word
  for (int r = 0; r < 4; ++r) left[0][r] = a[(g + 8 * (r % 2)) * 8 + c + 4 * (r / 2)];
  for (int r = 0; r < 2; ++r) right[0][r] = b[g * 8 + c + 4 * r];
  float sum[1][1][4] = {};
  mma_tile<float16>(sum, left, right);
  for (int v = 0; v < 4; ++v) d[(g + 8 * (v / 2)) * 8 + 2 * c + v % 2] = sum[0][0][v];
}

// Sums of the 32 rows of a box of 32 x 32 numbers whose first is (row, column); outside of the matrix are
// zeros.
CNN_KERNEL(32, 1) box_sums(const __grid_constant__ TensorMap map, int row, int column, float* sums) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(box);
  CNN_SHARED(Mbarrier, arrived, [1]);
  if (threadIdx.x == 0) {
    mbarrier_init(arrived, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expect_bytes(arrived, 32 * 32 * 4);
    tma_load(box, map, arrived, {column, row});
  }
  __syncthreads();
  mbarrier_wait(arrived, 0);
  float sum = 0;
  for (int i = 0; i < 32; ++i) sum += reinterpret_cast<const float*>(box)[32 * threadIdx.x + i];
  sums[threadIdx.x] = sum;
#else
  left_out();
#endif
}

Launch shape(const tests::Arguments& arguments, unsigned x, unsigned y = 1, unsigned threads = 256) {
  return {dim3(x, y), dim3(threads), 0, arguments.stream};
}

CNN_TEST(learn_axpy) {  // a, x, y, n
  const int n = int(arguments.number(3));
  launch(axpy, shape(arguments, unsigned(n + 255) / 256), float(arguments.number(0)),
         arguments.pointer<const float>(1), arguments.pointer<float>(2), n);
}
CNN_TEST(learn_warp_sum) {
  launch(warp_sum, shape(arguments, 1, 1, 32), arguments.pointer<const float>(0),
         arguments.pointer<float>(1));
}
CNN_TEST(learn_reverse) {  // x, y, blocks
  launch(reverse<true>, shape(arguments, unsigned(arguments.number(2))), arguments.pointer<const float>(0),
         arguments.pointer<float>(1));
}
CNN_TEST(learn_transpose) {  // x, y, n, padding
  const auto n = unsigned(arguments.number(2));
  launch(arguments.number(3) != 0 ? transpose<1> : transpose<0>, shape(arguments, n / 32, n / 32),
         arguments.pointer<const float>(0), arguments.pointer<float>(1), int(n));
}
CNN_TEST(learn_matmul) {  // a, b, c, n
  const auto n = unsigned(arguments.number(3));
  launch(matmul<true>, shape(arguments, n / 16, n / 16), arguments.pointer<const float>(0),
         arguments.pointer<const float>(1), arguments.pointer<float>(2), int(n));
}
CNN_TEST(learn_conv) {  // x, w, y, K, C, H, W, R
  const int C = int(arguments.number(4)), H = int(arguments.number(5)), W = int(arguments.number(6));
  const int R = int(arguments.number(7)), pixels = (H - R + 1) * (W - R + 1);
  launch(conv, shape(arguments, unsigned(pixels + 255) / 256, unsigned(arguments.number(3))),
         arguments.pointer<const float>(0), arguments.pointer<const float>(1), arguments.pointer<float>(2), C,
         H, W, R);
}
CNN_TEST(learn_tensor_core) {
  launch(tensor_core, shape(arguments, 1, 1, 32), arguments.pointer<const std::uint32_t>(0),
         arguments.pointer<const std::uint32_t>(1), arguments.pointer<float>(2));
}
CNN_TEST(learn_box_sums) {  // x, rows, columns, row, column, sums
  const std::int64_t rows = arguments.number(1), columns = arguments.number(2);
  const TensorMap map = make_tensor_map(TileBox{.element = MapElement::float32,
                                                .rank = 2,
                                                .address = arguments.pointer<const float>(0),
                                                .size = {columns, rows},
                                                .stride = {0, 4 * columns},
                                                .box = {32, 32}});
  launch(box_sums, Launch{dim3(1), dim3(32), 32 * 32 * 4, arguments.stream}, map, int(arguments.number(3)),
         int(arguments.number(4)), arguments.pointer<float>(5));
}
#if defined(CNN_INTERPRETER)  // a GPU runs the right kernels only
CNN_TEST(learn_reverse_racing) {
  launch(reverse<false>, shape(arguments, unsigned(arguments.number(2))), arguments.pointer<const float>(0),
         arguments.pointer<float>(1));
}
CNN_TEST(learn_matmul_racing) {
  const auto n = unsigned(arguments.number(3));
  launch(matmul<false>, shape(arguments, n / 16, n / 16), arguments.pointer<const float>(0),
         arguments.pointer<const float>(1), arguments.pointer<float>(2), int(n));
}
#endif

}  // namespace
}  // namespace cnnkernels
