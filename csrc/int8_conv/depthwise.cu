// One channel a group: each output sums taps of a single channel, which tensor cores have no use for. A
// thread makes a strip of outputs along q for four channels. Four columns of an image's row, a word of
// channels each, are transposed into four words of columns, one a channel: a dp4a then adds four taps of a
// channel at once.
#include "../int8/bytes.cuh"
#include "../common/launch.h"
#include "strips.cuh"

namespace cnnkernels::int8_conv {

namespace {

using int8::kRun;

constexpr int kTaps = 4;         // in a word
constexpr int kHeldGroups = 16;  // of four taps, in shared memory at a time

// How four neighbouring filters read their channels: a word, at multiples of four bytes or anywhere, or one
// by one, as is done too where a word might reach past the tensor.
enum class Reading : int { words, unaligned, gathered };

struct Depthwise : Strips {
  FastDivide multiplier;  // filters of a channel
  Reading reading{};
};

// The channels of filters first .. first + 3; those past the last filter repeat it.
struct Channels {
  Reading reading;
  std::int32_t channel[kRun];
  int count;

  CNN_DEVICE Channels(const Depthwise& d, std::int32_t first)
      : reading(d.reading), count(min(d.k - first, kRun)) {
#pragma unroll
    for (int i = 0; i < kRun; ++i)
      channel[i] = static_cast<std::int32_t>(d.multiplier.quotient(min(first + i, d.k - 1)));
  }

  CNN_DEVICE std::uint32_t read(const std::uint8_t* pixel) const {
    if (reading == Reading::words)
      return load<1>(reinterpret_cast<const std::uint32_t*>(pixel + channel[0]))[0];
    if (reading == Reading::unaligned) return int8::assemble(int8::fetch(pixel + channel[0], 0, count), 0);
    std::uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < kRun; ++i) word |= std::uint32_t(pixel[channel[i]]) << (8 * i);
    return word;
  }
};

// kStep: the stride along q where it is 1 or 2 and taps lie beside each other, so that a strip's outputs
// share what they read; 0: any other stride and dilation.
template <int kStep>
CNN_KERNEL(kThreads, 2)
depthwise(const __grid_constant__ Depthwise d, const __grid_constant__ int8::Epilogue epilogue,
          void* output) {
  constexpr int kStrip = kStep == 1 ? 8 : 4, kColumns = 12;  // of the image, of a group of four taps
  static_assert((kStrip - 1) * kStep + kTaps <= kColumns);
  using Weights = Vector<std::uint32_t, kRun>;  // four taps of four filters
  CNN_SHARED(Sums, memory, [kStrip * kThreads]);
  auto* const held = reinterpret_cast<std::uint32_t*>(memory);  // [group][lane] of Weights, before the sums

  const Strip at = strip_of_thread<kStrip, kThreads>(d);
  const std::int32_t h = static_cast<std::int32_t>(at.p) * d.stride_h - d.pad_h,
                     w = at.q * d.stride_w - d.pad_w;
  const std::uint8_t* const image = d.input + std::int64_t(at.n) * d.h * d.w * d.c;
  const Channels channels(d, min(at.first, d.k - 1));

  const AsSigned as_signed(d);
  const auto column = [&](const std::uint8_t* row, std::int32_t x) {
    const bool inside = static_cast<std::uint32_t>(x) < static_cast<std::uint32_t>(d.w);
    return (inside ? channels.read(row + std::int64_t(x) * d.c) : as_signed.fill) ^ as_signed.flip;
  };

  std::int32_t sums[kStrip][kRun] = {}, weight_sums[kRun] = {};
  const int groups_of_row = (d.s + kTaps - 1) / kTaps, groups = d.r * groups_of_row;
#pragma unroll 1
  for (int held_from = 0; held_from < groups; held_from += kHeldGroups) {
    const int held_groups = min(groups - held_from, kHeldGroups);
    __syncthreads();  // all are done with the groups before
    for (int i = static_cast<int>(threadIdx.x); i < held_groups * d.lanes * kRun; i += kThreads) {
      const int filter = i & (d.lanes * kRun - 1), group = held_from + i / (d.lanes * kRun);
      const int r = group / groups_of_row, s = (group - r * groups_of_row) * kTaps;
      const std::uint8_t* from =
          d.weight + std::int64_t(at.first_of_block + filter) * d.r * d.s + r * d.s + s;
      const int count = at.first_of_block + filter < d.k ? min(d.s - s, kTaps) : 0;
      held[i] = int8::assemble(int8::fetch_singly(from, 0, count), 0);
    }
    __syncthreads();
    if (!at.live) continue;

#pragma unroll 1
    for (int i = 0; i < held_groups; ++i) {
      const int group = held_from + i, r = group / groups_of_row, s = (group - r * groups_of_row) * kTaps;
      const std::int32_t row = h + r * d.dilation_h;
      if (static_cast<std::uint32_t>(row) >= static_cast<std::uint32_t>(d.h))
        continue;  // as its zero point: nothing
      const std::uint8_t* const from = image + std::int64_t(row) * d.w * d.c;
      const Weights weights = load<kRun>(held + (i * d.lanes + at.lane) * kRun);
#pragma unroll
      for (int e = 0; e < kRun; ++e)
        weight_sums[e] = __dp4a(static_cast<int>(weights[e]), 0x01010101, weight_sums[e]);

      if constexpr (kStep > 0) {
        const int needed = (kStrip - 1) * kStep + min(d.s - s, kTaps);
        std::uint32_t columns[kColumns / 4][4];
#pragma unroll
        for (int j = 0; j < kColumns; ++j) columns[j / 4][j % 4] = j < needed ? column(from, w + s + j) : 0;
#pragma unroll
        for (auto& four : columns) int8::transpose(four);
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          const int at = j * kStep, which = 0x3210 + 0x1111 * (at % 4);
#pragma unroll
          for (int e = 0; e < kRun; ++e) {
            const std::uint32_t taps = at % 4 == 0
                                           ? columns[at / 4][e]
                                           : __byte_perm(columns[at / 4][e], columns[at / 4 + 1][e], which);
            sums[j][e] = __dp4a(static_cast<int>(taps), static_cast<int>(weights[e]), sums[j][e]);
          }
        }
      } else {
#pragma unroll
        for (int j = 0; j < kStrip; ++j) {
          std::uint32_t taps[kTaps];
#pragma unroll
          for (int t = 0; t < kTaps; ++t)
            taps[t] = s + t < d.s ? column(from, w + j * d.stride_w + (s + t) * d.dilation_w) : 0;
          int8::transpose(taps);
#pragma unroll
          for (int e = 0; e < kRun; ++e)
            sums[j][e] = __dp4a(static_cast<int>(taps[e]), static_cast<int>(weights[e]), sums[j][e]);
        }
      }
    }
  }

  finish_strip<kThreads>(d, at, epilogue, sums, weight_sums, as_signed.zero_point, channels.count, memory,
                         output);
}

template <int kStep>
void launch_strips(Depthwise d, std::int64_t images, const int8::Epilogue& epilogue, void* output,
                   std::uintptr_t stream) {
  constexpr int kStrip = kStep == 1 ? 8 : 4;
  const dim3 grid = cut(d, images, kStrip, kThreads);
  launch(depthwise<kStep>, Launch{grid, dim3(kThreads), 0, stream}, d, epilogue, output);
}

}  // namespace

void launch_depthwise(const Problem& problem, const void* input, const void* weight,
                      const int8::Epilogue& asked, void* output, std::uintptr_t stream) {
  const ConvGeometry& g = problem.geometry;
  int8::Epilogue epilogue = asked;
  epilogue.sums_b = nullptr;  // the kernel's own

  const bool words = g.c % kRun == 0 && reinterpret_cast<std::uintptr_t>(input) % kRun == 0;
  const bool ragged = int8::words_reach_out(input, g.n * g.h * g.w * g.c);
  const Depthwise d{strips_of(problem, input, weight, epilogue, output, kMostLanes), FastDivide(g.k / g.c),
                    g.k != g.c || ragged ? Reading::gathered
                    : words              ? Reading::words
                                         : Reading::unaligned};

  const bool together = g.dilation_w == 1 || g.s == 1;
  if (together && g.stride_w == 1) return launch_strips<1>(d, g.n, epilogue, output, stream);
  if (together && g.stride_w == 2) return launch_strips<2>(d, g.n, epilogue, output, stream);
  launch_strips<0>(d, g.n, epilogue, output, stream);
}

}  // namespace cnnkernels::int8_conv
