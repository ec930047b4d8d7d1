// What the producer copies into a stage: the two operands of one stage of the reduction, by TMA.
#pragma once

#include "../../ptx/tma_multicast.cuh"
#include "config.cuh"
#include "tile_scheduler.cuh"

namespace cnnkernels::gemm::sm90 {

// Where a pixel's window has its first tap.
struct Pixel {
  int w, h, n;
};
template <class A>
CNN_DEVICE Pixel pixel_of(const A& a, const Phase& phase, int pixel) {
  std::uint32_t q, p;
  std::uint32_t rest = phase.width.divmod(pixel, q);
  const int n = static_cast<int>(phase.height.divmod(rest, p));
  return {phase.w + static_cast<int>(q) * a.stride_w, phase.h + static_cast<int>(p) * a.stride_h, n};
}

// A copy for all blocks of the cluster: of a part of what they share.
template <class C, class... Coordinates>
CNN_DEVICE void load_for_all(unsigned char* to, const TensorMap& map, Mbarrier* full,
                             const Coordinates&... coordinates) {
  if constexpr (C::kCluster > 1) {
    tma_load(to, map, full, ClusterMask{(1 << C::kCluster) - 1}, coordinates...);
  } else {
    tma_load(to, map, full, coordinates...);
  }
}

// A's rows are windows, B's columns the filter's. The reduction takes one tap after the other, for each run
// of channels. What is left of the last stage is filled with zeros, by places that lie outside of both
// tensors.
template <class C>
class WindowLoads {
 public:
  CNN_DEVICE WindowLoads(const typename C::Arguments& a, const WorkTile& work)
      : a_(a),
        work_(work),
        phase_(a.phase[work.phase]),
        place_(pixel_of(a, phase_, work.first_row)),
        rank_(rank_in_cluster<C>()) {
    if constexpr (C::kInParts) {
      const int run = work.first_step * C::kRuns, row = run / phase_.s.count;
      s_ = run - row * phase_.s.count;
      chunk_ = row / phase_.r.count;
      r_ = row - chunk_ * phase_.r.count;
    }
  }

  CNN_DEVICE void load(unsigned char* stage, Mbarrier* full) {
    mbarrier_arrive_expect_bytes(full, C::kStageBytes);
#pragma unroll
    for (int run = 0; run < C::kRuns; ++run) {
      load_windows(stage + run * C::kRows * C::kSpan, full);
      load_filters(stage + C::kBytesA + run * C::kColumns * C::kSpan, full);
      next();
    }
  }

 private:
  CNN_DEVICE void load_windows(unsigned char* to, Mbarrier* full) const {
    const TensorMap& windows = a_.windows[work_.phase];
    const bool rest = C::kRuns > 1 && chunk_ >= a_.chunks;
    const int c = work_.group * a_.group_channels + chunk_ * C::kRun;
    if (a_.pointwise) {
      tma_load(to, windows, full, {c, rest ? phase_.pixels : work_.first_row});
    } else {
      tma_load(to, windows, full, {c, place_.w, place_.h, rest ? a_.images : place_.n},
               {phase_.s.offset + s_ * phase_.s.offset_step, phase_.r.offset + r_ * phase_.r.offset_step});
    }
  }

  CNN_DEVICE void load_filters(unsigned char* to, Mbarrier* full) const {
    const int c = chunk_ * C::kRun;
    const int tap = (phase_.r.filter + r_ * phase_.r.filter_step) * a_.filter_width + phase_.s.filter +
                    s_ * phase_.s.filter_step;
    if constexpr (C::kMajorB == Major::k) {
      const int first = rank_ * (C::kColumns / C::kCluster);
      const int corner[] = {c, tap, work_.first_column + first, work_.group};
      load_for_all<C>(to + first * C::kSpan, a_.other, full, corner);
    } else {
#pragma unroll
      for (int i = 0; i < C::kColumns; i += kBlock * C::kCluster) {
        const int j = i + rank_ * kBlock, corner[] = {work_.first_column + j, tap, c, work_.group};
        load_for_all<C>(to + j * C::kSpan, a_.other, full, corner);
      }
    }
  }

  CNN_DEVICE void next() {
    if (++s_ < phase_.s.count) return;
    s_ = 0;
    if (++r_ < phase_.r.count) return;
    r_ = 0;
    ++chunk_;
  }

  const typename C::Arguments& a_;
  const WorkTile& work_;
  const Phase& phase_;
  const Pixel place_;
  const int rank_;
  int chunk_ = 0, r_ = 0, s_ = 0;
};

}  // namespace cnnkernels::gemm::sm90
