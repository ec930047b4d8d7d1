// Groups of few channels, 4, 8 or 16, which fill a small part of a tensor core's tile. A thread makes a strip
// of outputs along q for four filters of a group. A pixel's channels of the group are one load of 4 to 16
// bytes, as each filter's are, so that a dp4a adds four channels of a tap.
#include "../common/launch.h"
#include "strips.cuh"

namespace cnnkernels::int8_conv {

namespace {

using int8::kRun;

constexpr int kStrip = 8;
constexpr int kHeldWords = 64;  // of each filter, in shared memory at a time

struct Grouped : Strips {
  FastDivide runs_of_group;
  FastDivide taps_of_row;  // S
};

// kWords: a group's channels in words.
template <int kWords>
CNN_KERNEL(kThreads, 2)
grouped(const __grid_constant__ Grouped g, const __grid_constant__ int8::Epilogue epilogue, void* output) {
  constexpr int kHeldTaps = kHeldWords / kWords;
  using Pixel = Vector<std::uint32_t, kWords>;
  CNN_SHARED(Sums, memory, [kStrip * kThreads]);
  static_assert(kHeldWords * kMostLanes <= kStrip * kThreads);
  auto* const held = reinterpret_cast<std::uint32_t*>(memory);  // [tap][word][lane][filter], before the sums

  const Strip at = strip_of_thread<kStrip, kThreads>(g);
  const std::int32_t h = static_cast<std::int32_t>(at.p) * g.stride_h - g.pad_h,
                     w = at.q * g.stride_w - g.pad_w;
  const auto group = static_cast<std::int32_t>(g.runs_of_group.quotient(at.first / kRun));
  const std::uint8_t* const image = g.input + std::int64_t(at.n) * g.h * g.w * g.c + group * kWords * 4;

  const AsSigned as_signed(g);

  std::int32_t sums[kStrip][kRun] = {}, weight_sums[kRun] = {};
  const int taps = g.r * g.s;
#pragma unroll 1
  for (int held_from = 0; held_from < taps; held_from += kHeldTaps) {
    const int held_taps = min(taps - held_from, kHeldTaps);
    __syncthreads();  // all are done with the taps before
    for (int i = static_cast<int>(threadIdx.x); i < held_taps * kWords * g.lanes * kRun; i += kThreads) {
      const int filter = at.first_of_block + (i & (g.lanes * kRun - 1)), word = i / (g.lanes * kRun);
      const auto* words = reinterpret_cast<const std::uint32_t*>(g.weight);
      held[i] = filter < g.k ? words[(std::int64_t(filter) * taps + held_from) * kWords + word] : 0;
    }
    __syncthreads();
    if (!at.live) continue;

#pragma unroll 1
    for (int i = 0; i < held_taps; ++i) {
      std::uint32_t column;
      const auto r = static_cast<std::int32_t>(g.taps_of_row.divmod(held_from + i, column));
      const std::int32_t row = h + r * g.dilation_h;
      if (static_cast<std::uint32_t>(row) >= static_cast<std::uint32_t>(g.h))
        continue;  // as its zero point: nothing
      const std::uint8_t* const from = image + std::int64_t(row) * g.w * g.c;
      Pixel pixels[kStrip];
      std::int32_t x = w + static_cast<std::int32_t>(column) * g.dilation_w;
      auto byte = static_cast<std::uint32_t>(x * g.c);  // of a row of less than 2^31
#pragma unroll
      for (int j = 0; j < kStrip; ++j) {
#pragma unroll
        for (int word = 0; word < kWords; ++word) pixels[j][word] = as_signed.fill;
        if (static_cast<std::uint32_t>(x) < static_cast<std::uint32_t>(g.w))
          pixels[j] = load<kWords>(reinterpret_cast<const std::uint32_t*>(from + byte));
        x += g.stride_w;
        byte += static_cast<std::uint32_t>(g.stride_w * g.c);
      }
#pragma unroll
      for (int word = 0; word < kWords; ++word) {
        const auto weights = load<kRun>(held + ((i * kWords + word) * g.lanes + at.lane) * kRun);
#pragma unroll
        for (int e = 0; e < kRun; ++e) {
          const int four = static_cast<int>(weights[e]);
          weight_sums[e] = __dp4a(four, 0x01010101, weight_sums[e]);
#pragma unroll
          for (int j = 0; j < kStrip; ++j)
            sums[j][e] = __dp4a(static_cast<int>(pixels[j][word] ^ as_signed.flip), four, sums[j][e]);
        }
      }
    }
  }

  finish_strip<kThreads>(g, at, epilogue, sums, weight_sums, as_signed.zero_point, kRun, memory, output);
}

}  // namespace

void launch_grouped(const Problem& problem, const void* input, const void* weight,
                    const int8::Epilogue& asked, void* output, std::uintptr_t stream) {
  const ConvGeometry& from = problem.geometry;
  int8::Epilogue epilogue = asked;
  epilogue.sums_b = nullptr;  // the kernel's own

  Grouped g{strips_of(problem, input, weight, epilogue, output, kMostLanes),
            FastDivide(from.k / from.groups / kRun), FastDivide(from.s)};
  const dim3 grid = cut(g, from.n, kStrip, kThreads);
  const Launch how{grid, dim3(kThreads), 0, stream};
  switch (from.c / from.groups) {
    case 4:
      return launch(grouped<1>, how, g, epilogue, output);
    case 8:
      return launch(grouped<2>, how, g, epilogue, output);
    default:
      return launch(grouped<4>, how, g, epilogue, output);
  }
}

}  // namespace cnnkernels::int8_conv
