// int8_max_pool and int8_avg_pool: one kernel, two ways to reduce a window.
//
// A thread works at one pixel of the output for V adjacent channels, 16 where channels come in sixteens.
// Where that leaves most of the GPU without work, as global pooling of small maps does, several threads share
// a window's rows.
#include "../common/gpu.h"
#include "../common/sites.h"
#include "../common/types.h"
#include "../common/window.h"
#include "int8_pool.h"
#include "reduce.cuh"

namespace cnnkernels::int8_pool {
namespace {

template <int V>
CNN_DEVICE Bytes<V> read_bytes(const std::uint8_t* from) {
  Bytes<V> bytes;
  if constexpr (V == 1) {
    bytes.word[0] = *from;
  } else {
    const auto words = load<kWords<V>>(reinterpret_cast<const std::uint32_t*>(from));
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) bytes.word[i] = words[i];
  }
  return bytes;
}

template <int V>
CNN_DEVICE void write_bytes(std::uint8_t* to, const Bytes<V>& bytes) {
  if constexpr (V == 1) {
    *to = static_cast<std::uint8_t>(bytes.word[0]);
  } else {
    Vector<std::uint32_t, kWords<V>> words;
#pragma unroll
    for (int i = 0; i < kWords<V>; ++i) words[i] = bytes.word[i];
    store(reinterpret_cast<std::uint32_t*>(to), words);
  }
}

// `share` lanes of a warp, a power of two, take rows of a window in turn. Lanes beside each other have sites
// beside each other.
template <class Reduce, class Sites>
CNN_KERNEL(kSiteThreads, 4)
int8_pool_kernel(const Sites sites, const WindowAxis rows, const WindowAxis columns, int share,
                 const Reduce reduce, const std::uint8_t* __restrict__ input,
                 std::uint8_t* __restrict__ output) {
  constexpr int V = Sites::kLanes;
  const auto lane = static_cast<Index>(threadIdx.x % 32);
  const auto warp = static_cast<Index>(blockIdx.x * (kSiteThreads / 32) + threadIdx.x / 32);
  const Index beside = 32 / share, part = lane / beside, i = warp * beside + lane % beside;
  const bool exists = i < sites.count;
  const Site at = sites[exists ? i : 0];
  const std::int64_t step = std::int64_t(columns.dilation()) * sites.channels;

  const Window window(rows, columns, at.row, at.column);
  const auto element = [&](Index r, Index s) {
    const std::uint8_t* row =
        input + sites.offset(at, rows.size, columns.size, window.h + r * rows.dilation(), window.w);
    return read_bytes<V>(row + s * step);
  };
  const typename Reduce::template Running<V> none{{reduce.flip}};
  auto running = reduce_window<0>(window, columns.places, part, Index(share), element, none);
  for (int distance = beside; distance < 32; distance *= 2) running.combine_lanes(distance);
  if (part != 0 || !exists) return;

  const auto length = [](const WindowAxis& axis, Index start) {  // with the padding, of either side
    return min(start + axis.places, axis.size + axis.pad) - start;
  };
  Bytes<V> result;
  const Index inside = (window.r_end - window.r_begin) * (window.s_end - window.s_begin);
  reduce.template finish<V>(running, inside, length(rows, window.h) * length(columns, window.w), result);
  write_bytes<V>(output + sites.offset(at), result);
}

template <int V, class Reduce>
void start(const PoolGeometry& g, const Reduce& reduce, const std::uint8_t* input, std::uint8_t* output,
           std::uintptr_t stream, std::int64_t largest_index) {
  const WindowAxis rows(g.h, g.r, g.stride_h, g.pad_h, g.dilation_h);
  const WindowAxis columns(g.w, g.s, g.stride_w, g.pad_w, g.dilation_w);
  const std::int64_t of_row = g.q * (g.c / V);
  const std::int64_t enough = std::int64_t(this_gpu().processors) * 4 * kSiteThreads;
  const auto slice = [&](std::int64_t first, std::int64_t n, std::int64_t row, std::int64_t some, bool) {
    const auto sites = sites_of<Lanes::channels, V, std::int64_t>(n, row, some, g.p, g.q, g.c);
    int share = 1;
    while (share < g.r && share < 32 && sites.count * share < enough) share *= 2;
    launch(&int8_pool_kernel<Reduce, std::decay_t<decltype(sites)>>,
           launch_over(std::int64_t(sites.count) * share, stream), sites, rows, columns, share, reduce,
           input + first * g.h * g.w * g.c, output + first * g.p * g.q * g.c);
  };
  for_each_slice(g.n, g.p, g.p * of_row, of_row, largest_index, slice);
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
