// Conformance of wgmma: a warpgroup's products in every form and width.
#include <stdexcept>
#include <utility>

#include "common/launch.h"
#include "ptx/sync.cuh"
#include "ptx/wgmma.cuh"
#include "format.h"
#include "registry.h"

namespace cnnkernels {
namespace {

// A's or B's tile in the image.
struct Operand {
  int start, swizzle, leading_bytes, stride_bytes, step_bytes;
  bool mn_major;
  std::uint8_t unused[3] = {};
};

template <class In, int N, Major MajorA, Major MajorB, bool FromRegisters>
CNN_KERNEL(128, 1)
wgmma_kernel(Operand a, Operand b, int steps, bool accumulate, const std::uint32_t* image, int bytes,
             const std::uint32_t* a_registers, typename Mma<In>::Accumulator* d) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  const int thread = threadIdx.x;
  for (int i = thread; i < bytes / 4; i += 128) reinterpret_cast<std::uint32_t*>(shared)[i] = image[i];
  fence_proxy_async();
  __syncthreads();
  typename Mma<In>::Accumulator sum[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) sum[i] = d[thread * (N / 2) + i];
  for (int step = 0; step < steps; ++step) {
    const bool add = accumulate || step > 0;
    const std::uint64_t right =
        wgmma_descriptor(shared + b.start + step * b.step_bytes, static_cast<Swizzle>(b.swizzle),
                         b.leading_bytes, b.stride_bytes);
    if constexpr (FromRegisters) {
      std::uint32_t left[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) left[i] = a_registers[(step * 128 + thread) * 4 + i];
      wgmma_fence(sum);
      wgmma<In, N, MajorB>(sum, left, right, add);
    } else {
      const std::uint64_t left =
          wgmma_descriptor(shared + a.start + step * a.step_bytes, static_cast<Swizzle>(a.swizzle),
                           a.leading_bytes, a.stride_bytes);
      wgmma_fence(sum);
      wgmma<In, N, MajorA, MajorB>(sum, left, right, add);
    }
    wgmma_commit();
    wgmma_wait<0>(sum);
  }
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[thread * (N / 2) + i] = sum[i];
#else
  left_out();
#endif
}

struct Problem {
  Operand a, b;
  int steps;
  bool accumulate;
  const std::uint32_t* image;
  int bytes;
  const std::uint32_t* a_registers;
  void* d;
  std::uintptr_t stream;
};

template <class In, int N, Major MajorA, Major MajorB, bool FromRegisters>
void start(const Problem& x) {
  launch(wgmma_kernel<In, N, MajorA, MajorB, FromRegisters>,
         Launch{dim3(1), dim3(128), std::size_t(x.bytes), x.stream}, x.a, x.b, x.steps, x.accumulate, x.image,
         x.bytes, x.a_registers, static_cast<typename Mma<In>::Accumulator*>(x.d));
}

template <class In, Major MajorA, Major MajorB, bool FromRegisters, int... Columns>
void choose_width(int columns, const Problem& x, std::integer_sequence<int, Columns...>) {
  const bool found =
      ((columns == Columns ? (start<In, Columns, MajorA, MajorB, FromRegisters>(x), true) : false) || ...);
  if (!found) throw std::invalid_argument("no such width");
}

// 8, 16, .. 256
template <int... I>
constexpr auto multiples_of_8(std::integer_sequence<int, I...>) {
  return std::integer_sequence<int, 8 * (I + 1)...>{};
}
using EveryWidth = decltype(multiples_of_8(std::make_integer_sequence<int, 32>{}));
using SomeWidths = std::integer_sequence<int, 8, 24, 64, 256>;

template <class In, class Widths>
void k_major_forms(int columns, const Problem& x) {
  if (x.a_registers)
    choose_width<In, Major::k, Major::k, true>(columns, x, SomeWidths{});
  else
    choose_width<In, Major::k, Major::k, false>(columns, x, Widths{});
}

template <class In, class Widths>
void all_forms(int columns, const Problem& x) {
  constexpr Major k = Major::k, mn = Major::mn;
  if (x.a_registers && x.b.mn_major)
    choose_width<In, k, mn, true>(columns, x, SomeWidths{});
  else if (x.a_registers || (!x.a.mn_major && !x.b.mn_major))
    k_major_forms<In, Widths>(columns, x);
  else if (!x.a.mn_major)
    choose_width<In, k, mn, false>(columns, x, SomeWidths{});
  else if (!x.b.mn_major)
    choose_width<In, mn, k, false>(columns, x, SomeWidths{});
  else
    choose_width<In, mn, mn, false>(columns, x, SomeWidths{});
}

Operand operand(const std::int64_t* fields) {
  return {int(fields[1]), int(fields[2]), int(fields[3]), int(fields[4]), int(fields[5]), fields[0] != 0};
}

}  // namespace

// format, columns, a, b (mn_major, start, swizzle, leading, stride, step in bytes), steps, accumulate, image,
// bytes, a_registers, d: d [128 threads][columns / 2] = sum of the steps (+ d). A's fragments [steps][128][4]
// are taken instead of its tile where a_registers != 0.
CNN_TEST(wgmma_product) {
  const int columns = int(arguments.number(1));
  const Problem x{operand(arguments.pointer<const std::int64_t>(2)),
                  operand(arguments.pointer<const std::int64_t>(3)),
                  int(arguments.number(4)),
                  arguments.number(5) != 0,
                  arguments.pointer<const std::uint32_t>(6),
                  int(arguments.number(7)),
                  arguments.pointer<const std::uint32_t>(8),
                  arguments.pointer<void>(9),
                  arguments.stream};
  switch (static_cast<tests::Format>(arguments.number(0))) {
    case tests::Format::float16:
      return all_forms<float16, SomeWidths>(columns, x);
    case tests::Format::bfloat16:
      return all_forms<bfloat16, EveryWidth>(columns, x);
    case tests::Format::tf32:
      return k_major_forms<tf32, SomeWidths>(columns, x);
    case tests::Format::int8:
      return k_major_forms<std::int8_t, SomeWidths>(columns, x);
    case tests::Format::uint8:
      return k_major_forms<std::uint8_t, SomeWidths>(columns, x);
    default:
      throw std::invalid_argument("wgmma has no such type");
  }
}

}  // namespace cnnkernels
