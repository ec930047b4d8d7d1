// Floating rows by an int8 weight, for so few rows that time is what reading the weight takes: once, 16 bytes
// a lane, from global memory into registers, where bytes become floats. The rows lie in shared memory as
// fp32.
//
// The order of a sum is a function of nothing but its length, so that a row's bits depend neither on its
// neighbours nor on the GPU: part p of 32 adds the terms of floor(k / 16) mod 32 = p in increasing k by fused
// multiply-adds; four parts are added as (0 + 1) + (2 + 3), and eight such sums one after the other.
#include "../common/fast_divide.h"
#include "../common/geometry.h"
#include "../int8/bytes.cuh"
#include "../int8/epilogue.cuh"
#include "../common/launch.h"
#include "../common/shared_limits.h"
#include "int8_weight_only_linear.h"

namespace cnnkernels::int8_weight_only_linear {

namespace {

using int8::kRun;
using Words = Vector<std::uint32_t, 4>;  // 16 weights

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kPiece = 64;  // of each column that a warp takes at a time: 16 a lane, by four lanes
constexpr int kStep = kWarps * kPiece;  // that a block does
constexpr int kHeldFloats = 16 << 10;   // of the rows, at a time
constexpr int kFewRows = 4;             // that are bound by memory alone
constexpr int kBatch = 4;               // loads of a thread under way when rows are fetched

struct Stream {
  Problem problem;
  std::int32_t m, k;
  std::int32_t held;    // of each row, a multiple of kStep
  FastDivide quads;     // held / 4
  bool input_vectors;   // four elements of a row may be loaded at once
  bool weight_vectors;  // and 16 of the weight
  bool output_vectors;
  std::uint8_t unused[5] = {};
};

// The values of four int8: as unsigned ones, 128 more, they are the last bits of floats from 2^23 on. A
// conversion would take four times as long as a permute and a subtraction.
CNN_DEVICE void widen_bytes(std::uint32_t word, float (&values)[4]) {
  const std::uint32_t moved = word ^ 0x80808080u;
#pragma unroll
  for (int e = 0; e < 4; ++e)
    values[e] = __fsub_rn(__uint_as_float(__byte_perm(moved, 0x4b000000u, 0x7440u + e)), 0x1p23f + 128);
}

// Four places from k on; those past the end are zeros.
template <class T>
CNN_DEVICE Vector<T, 4> read_input(const Stream& s, std::int32_t row, std::int32_t k) {
  const T* from =
      static_cast<const T*>(s.problem.input) + row * s.problem.row_stride + k * s.problem.depth_stride;
  if (s.input_vectors) return k < s.k ? load<4>(from) : Vector<T, 4>{};
  Vector<T, 4> four{};
#pragma unroll
  for (int e = 0; e < 4; ++e)
    if (k + e < s.k) four[e] = from[e * s.problem.depth_stride];
  return four;
}

// Rows lie in shared memory as [held / 16][row][4][4]: what a piece's four lanes read at the same time is
// side by side, as in other banks, and a row is as far from the next as the compiler knows. The number of the
// four places that lie in the (4 i + c)th of a piece is c of 16, and of those i of 4.
CNN_DEVICE int quad_of(int place) { return (place & ~15) | (place & 3) << 2 | (place >> 2 & 3); }

// All rows' places from `first` on, as fp32.
template <class T>
CNN_DEVICE void hold(const Stream& s, std::int32_t first, float* rows) {
  const std::uint32_t count = s.m * s.quads.divisor;
#pragma unroll 1
  for (std::uint32_t begin = threadIdx.x; begin < count; begin += kBatch * kThreads) {
    Vector<T, 4> fours[kBatch];
    std::uint32_t row[kBatch], place[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      row[i] = s.quads.divmod(min(begin + i * kThreads, count - 1), place[i]);
      const std::int32_t k = first + 4 * quad_of(static_cast<int>(place[i]));
      fours[i] = read_input<T>(s, static_cast<std::int32_t>(row[i]), k);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (begin + i * kThreads >= count) continue;
      Vector<float, 4> widened;
#pragma unroll
      for (int e = 0; e < 4; ++e) widened[e] = widen(fours[i][e]);
      store(rows + (place[i] / 4 * s.m + row[i]) * 16 + place[i] % 4 * 4, widened);
    }
  }
}

// 16 weights of a column from k on; those past the end are zeros.
CNN_DEVICE Words read_weight(const Stream& s, const std::uint8_t* column, std::int32_t k, bool exists) {
  if (!exists || k >= s.k) return {};
  if (s.weight_vectors) return load<4>(reinterpret_cast<const std::uint32_t*>(column + k));
  return int8::read_sixteen(column, k, s.k);
}

// A block makes 8 ColumnTiles columns of at most Rows rows; its warps share the reduction.
template <int Rows, int ColumnTiles>
CNN_KERNEL(kThreads, Rows <= kFewRows ? 3 : 2)
stream_weight(const __grid_constant__ Stream s, const __grid_constant__ int8::Epilogue epilogue,
              void* output) {
  constexpr int kColumns = 8 * ColumnTiles;
  constexpr bool kAhead = Rows <= kFewRows;  // more rows have arithmetic enough to hide a load behind
  CNN_DYNAMIC_SHARED(memory);
  auto* const rows = reinterpret_cast<float*>(memory);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int g = lane / 4, c = lane % 4;
  const std::int64_t first_column = std::int64_t(blockIdx.x) * kColumns;
  const std::uint8_t* const column =
      static_cast<const std::uint8_t*>(s.problem.weight) + (first_column + g) * s.problem.weight_stride;

  const auto read = [&](std::int32_t k, Words(&words)[ColumnTiles]) {
#pragma unroll
    for (int j = 0; j < ColumnTiles; ++j)
      words[j] = read_weight(s, column + 8 * j * s.problem.weight_stride, k + 16 * c,
                             first_column + 8 * j + g < s.problem.n);
  };

  float sums[Rows][ColumnTiles] = {};
  Words next[ColumnTiles];
  if constexpr (kAhead) read(warp * kPiece, next);
#pragma unroll 1
  for (std::int32_t first = 0; first < s.k; first += s.held) {
    __syncthreads();  // all are done with the places before
    switch (s.problem.dtype) {
      case DType::float16:
        hold<float16>(s, first, rows);
        break;
      case DType::bfloat16:
        hold<bfloat16>(s, first, rows);
        break;
      default:
        hold<float>(s, first, rows);
    }
    __syncthreads();

    const std::int32_t end = min(s.k - first, s.held);
#pragma unroll 1
    for (std::int32_t k = warp * kPiece; k < end; k += kStep) {
      Words words[ColumnTiles];
      if constexpr (kAhead) {
#pragma unroll
        for (int j = 0; j < ColumnTiles; ++j) words[j] = next[j];
        read(first + k + kStep, next);
      } else {
        read(first + k, words);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float weights[ColumnTiles][4];
#pragma unroll
        for (int j = 0; j < ColumnTiles; ++j) widen_bytes(words[j][i], weights[j]);
        const float* const from = rows + (k + 16 * i) * s.m + 4 * c;
#pragma unroll
        for (int row = 0; row < Rows; ++row) {
          if (row >= s.m) break;
          const auto x = load<4>(from + 16 * row);
#pragma unroll
          for (int j = 0; j < ColumnTiles; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[row][j] = fmaf(x[e], weights[j][e], sums[row][j]);
          }
        }
      }
    }
  }

  __syncthreads();  // the rows' memory becomes the sums': [warp][row][column]
#pragma unroll
  for (int row = 0; row < Rows; ++row) {
    if (row >= s.m) break;
#pragma unroll
    for (int j = 0; j < ColumnTiles; ++j) {
      float sum = sums[row][j];
      sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 1));
      sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, 2));
      if (c == 0) rows[(warp * s.m + row) * kColumns + 8 * j + g] = sum;
    }
  }
  __syncthreads();

  constexpr int kRuns = kColumns / kRun;
#pragma unroll 1
  for (int i = thread; i < s.m * kRuns; i += kThreads) {
    const int row = i / kRuns, first = i % kRuns * kRun;
    const std::int64_t place = first_column + first;
    if (place >= s.problem.n) continue;
    const int count = static_cast<int>(min(s.problem.n - place, std::int64_t(kRun)));
    auto total = load<kRun>(rows + row * kColumns + first);
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
      const auto part = load<kRun>(rows + (w * s.m + row) * kColumns + first);
#pragma unroll
      for (int e = 0; e < kRun; ++e) total[e] = __fadd_rn(total[e], part[e]);
    }
    const int8::Columns columns(epilogue, place, count, s.output_vectors);
    float x[1][kRun];
#pragma unroll
    for (int e = 0; e < kRun; ++e) x[0][e] = __fmul_rn(total[e], columns.scale[e]);
    const int8::Rows rows{0, 1, 1, row, row * s.problem.n + place, s.problem.n};
    int8::finish_scaled(epilogue, columns, rows, x, output);
  }
}

template <int Rows, int ColumnTiles>
void launch_rows(const Stream& s, const int8::Epilogue& epilogue, void* output, std::uintptr_t stream) {
  constexpr int kColumns = 8 * ColumnTiles;
  const auto blocks = static_cast<unsigned>(ceil_div(s.problem.n, kColumns));
  static_assert(kWarps * kColumns <= kStep);  // what the sums take
  static_assert(kHeldFloats * sizeof(float) <= kEveryBlockBytes);
  const auto bytes = static_cast<std::size_t>(s.m) * s.held * sizeof(float);
  launch(stream_weight<Rows, ColumnTiles>, Launch{dim3(blocks), dim3(kThreads), bytes, stream}, s, epilogue,
         output);
}

}  // namespace

void forward(const Problem& problem, const int8::Epilogue& epilogue, void* output, std::uintptr_t stream) {
  const Problem& p = problem;
  constexpr std::int64_t kMost = std::int64_t(1) << 30;
  if (p.m > kMostRows) throw_invalid_argument("int8_weight_only_linear: more than 16 rows");
  if (p.n >= kMost || p.k >= kMost)
    throw_invalid_argument("int8_weight_only_linear: more than 2^30 columns or products of a sum");
  const auto at = [](const void* pointer, std::int64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
  };
  const int element = p.dtype == DType::float32 ? 4 : 2;

  Stream s{};
  s.problem = p;
  s.m = static_cast<std::int32_t>(p.m);
  s.k = static_cast<std::int32_t>(p.k);
  s.held =
      static_cast<std::int32_t>(smaller(ceil_div(p.k, kStep) * kStep, kHeldFloats / p.m / kStep * kStep));
  s.quads = FastDivide(s.held / 4);
  s.input_vectors =
      p.depth_stride == 1 && p.k % 4 == 0 && (p.m == 1 || p.row_stride % 4 == 0) && at(p.input, 4 * element);
  s.weight_vectors = p.k % 16 == 0 && (p.n == 1 || p.weight_stride % 16 == 0) && at(p.weight, 16);
  s.output_vectors = int8::whole_runs(epilogue, output, p.n);
  // Few rows want many blocks; with more the loads of rows count, which columns share.
  if (p.m <= kFewRows) return launch_rows<kFewRows, 2>(s, epilogue, output, stream);
  launch_rows<kMostRows, 4>(s, epilogue, output, stream);
}

}  // namespace cnnkernels::int8_weight_only_linear
