// int8_max_pool and int8_avg_pool: one kernel, two ways to reduce a window.
//
// A thread works at one pixel of the output for V adjacent channels, 16 where channels come in sixteens.
// Where that leaves most of the GPU without work, as global pooling of small maps does, several threads share
// a window's rows.
#include <algorithm>

#include "../common/launch.h"
#include "../common/gpu.h"
#include "../common/types.h"
#include "../common/vector.h"
#include "int8_pool.h"
#include "reduce.cuh"

namespace cnnkernels::int8_pool {
namespace {

inline constexpr unsigned kThreads = 256;
inline constexpr int kAtOnce = 3;  // columns of a window whose loads are in flight together

// V channels of the pixels of some successive rows of the output, over all images.
template <int V>
struct Sites {
  static constexpr int kChannels = V;
  std::int64_t image;  // of the first row
  Index row;           // of the first row in its image
  Index count;
  Index channels;
  FastDivide by_rows, by_columns, by_groups;

  struct Site {
    std::int64_t image;
    Index row, column, channel;
  };
  CNN_DEVICE Site operator[](Index i) const {
    Site at;
    at.channel = split(i, by_groups) * V;
    at.column = split(i, by_columns);
    i += row;
    at.row = split(i, by_rows);
    at.image = image + i;
    return at;
  }
  // The offset of such a site in a tensor of that many rows and columns.
  CNN_DEVICE std::int64_t offset(const Site& at, Index rows, Index columns, Index r, Index c) const {
    return ((at.image * rows + r) * columns + c) * channels + at.channel;
  }
};

template <int V>
CNN_DEVICE void read_bytes(const std::uint8_t* from, std::uint32_t (&bytes)[kWords<V>]) {
  if constexpr (V == 1) {
    bytes[0] = *from;
  } else {
    const auto words = load<kWords<V>>(reinterpret_cast<const std::uint32_t*>(from));
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) bytes[i] = words[i];
  }
}

template <int V>
CNN_DEVICE void write_bytes(std::uint8_t* to, const std::uint32_t (&bytes)[kWords<V>]) {
  if constexpr (V == 1) {
    *to = static_cast<std::uint8_t>(bytes[0]);
  } else {
    Vector<std::uint32_t, kWords<V>> words;
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) words[i] = bytes[i];
    store(reinterpret_cast<std::uint32_t*>(to), words);
  }
}

// `share` lanes of a warp, a power of two, take rows of a window in turn. Lanes beside each other have sites
// beside each other.
template <class Reduce, class Sites>
CNN_KERNEL(kThreads, 4)
int8_pool_kernel(const Sites sites, const Axis rows, const Axis columns, int share, const Reduce reduce,
                 const std::uint8_t* __restrict__ input, std::uint8_t* __restrict__ output) {
  constexpr int V = Sites::kChannels, kCount = kWords<V>;
  const auto lane = static_cast<Index>(threadIdx.x % 32);
  const auto warp = static_cast<Index>(blockIdx.x * (kThreads / 32) + threadIdx.x / 32);
  const Index beside = 32 / share, part = lane / beside, i = warp * beside + lane % beside;
  const bool exists = i < sites.count;
  const auto at = sites[exists ? i : 0];

  const Index h = rows.start(at.row), w = columns.start(at.column);
  const Index s_begin = columns.first_place(w), s_end = columns.end_place(w);
  const Index r_begin = rows.first_place(h), r_end = rows.end_place(h);

  typename Reduce::template Running<V> running;
#pragma unroll 1
  for (Index r = r_begin + part; r < r_end; r += share) {
    const std::uint8_t* row = input + sites.offset(at, rows.size, columns.size, h + r * rows.dilation(), w);
    const std::int64_t step = std::int64_t(columns.dilation()) * sites.channels;
#pragma unroll 1
    for (Index s = s_begin; s < s_end; s += kAtOnce) {
      std::uint32_t bytes[kAtOnce][kCount];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
        for (int word = 0; word < kCount; ++word) bytes[k][word] = reduce.flip;
        if (s + k < s_end) read_bytes<V>(row + (s + k) * step, bytes[k]);
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
#pragma unroll
        for (int word = 0; word < kCount; ++word) bytes[k][word] ^= reduce.flip;
        running.meet(bytes[k]);
      }
    }
  }
  for (int distance = beside; distance < 32; distance *= 2) running.meet_lane(distance);
  if (part != 0 || !exists) return;

  const auto length = [](const Axis& axis, Index start) {  // with the padding, of either side
    return min(start + axis.places, axis.size + axis.pad) - start;
  };
  std::uint32_t result[kCount];
  reduce.template finish<V>(running, (r_end - r_begin) * (s_end - s_begin),
                            length(rows, h) * length(columns, w), result);
  write_bytes<V>(output + sites.offset(at, static_cast<Index>(sites.by_rows.divisor),
                                       static_cast<Index>(sites.by_columns.divisor), at.row, at.column),
                 result);
}

template <int V, class Reduce>
void start(const PoolGeometry& g, const Reduce& reduce, const std::uint8_t* input, std::uint8_t* output,
           std::uintptr_t stream, std::int64_t largest_index) {
  const Axis rows(g.h, g.r, g.stride_h, g.pad_h, g.dilation_h);
  const Axis columns(g.w, g.s, g.stride_w, g.pad_w, g.dilation_w);
  const std::int64_t groups = g.c / V, in_row = g.q * groups, all = g.n * g.p;
  const std::int64_t fit = std::min(largest_index / in_row, kLargestIndex - g.p);
  if (fit == 0) throw_invalid_argument("int8_pool: a row of the output has more than 2^31 elements");
  const std::int64_t enough = std::int64_t(this_gpu().processors) * 4 * kThreads;
  for (std::int64_t first = 0; first < all; first += fit) {
    const std::int64_t some = fit < all - first ? fit : all - first;
    const Sites<V> sites{first / g.p,
                         static_cast<Index>(first % g.p),
                         static_cast<Index>(some * in_row),
                         static_cast<Index>(g.c),
                         FastDivide(g.p),
                         FastDivide(g.q),
                         FastDivide(groups)};
    int share = 1;
    while (share < g.r && share < 32 && sites.count * share < enough) share *= 2;
    const auto blocks = static_cast<unsigned>(ceil_div(std::int64_t(sites.count) * share, kThreads));
    launch(&int8_pool_kernel<Reduce, Sites<V>>, Launch{dim3(blocks), dim3(kThreads), 0, stream}, sites, rows,
           columns, share, reduce, input, output);
  }
}

template <class Reduce>
void pool(const PoolGeometry& geometry, const Reduce& reduce, const void* input, void* output,
          std::uintptr_t stream, std::int64_t largest_index) {
  const PoolGeometry g = within_reach(geometry, "int8_pool");
  if (g.c > INT32_MAX) throw_invalid_argument("int8_pool: more than 2^31 - 1 channels");
  const auto* x = static_cast<const std::uint8_t*>(input);
  auto* y = static_cast<std::uint8_t*>(output);
  const auto aligned = [&](std::int64_t bytes) {
    return g.c % bytes == 0 &&
           (reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y)) % bytes == 0;
  };
  if (aligned(16)) return start<16>(g, reduce, x, y, stream, largest_index);
  if (aligned(4)) return start<4>(g, reduce, x, y, stream, largest_index);
  start<1>(g, reduce, x, y, stream, largest_index);
}

bool is_signed(DType dtype) {
  if (dtype != DType::int8 && dtype != DType::uint8) throw_invalid_argument("expected int8 or uint8");
  return dtype == DType::int8;
}

}  // namespace

void int8_max_pool(DType dtype, const PoolGeometry& geometry, const void* input, void* output,
                   std::uintptr_t stream, std::int64_t largest_index) {
  pool(geometry, Maximum{is_signed(dtype) ? kTopBits : 0}, input, output, stream, largest_index);
}

void int8_avg_pool(DType dtype, const PoolGeometry& geometry, std::int32_t zero_point, bool count_include_pad,
                   std::int32_t divisor_override, const void* input, void* output, std::uintptr_t stream,
                   std::int64_t largest_index) {
  const bool with_sign = is_signed(dtype);
  const Average average{with_sign ? 0 : kTopBits, with_sign ? -128 : 0, zero_point, divisor_override,
                        count_include_pad};
  pool(geometry, average, input, output, stream, largest_index);
}

}  // namespace cnnkernels::int8_pool
