// What the producer copies into a stage: the two operands of one stage of the reduction, by TMA. The three
// directions differ in nothing else but where their results go (hopper_store.cuh).
#pragma once

#include "../ptx/tma_multicast.cuh"
#include "hopper_config.cuh"

namespace cnnkernels::conv2d::hopper {

// A pixel's place in the image: where its window has its first tap.
struct Place {
  int w, h, n;
};
template <class A>
CNN_DEVICE Place place_of(const A& a, const Phase& phase, int pixel) {
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

// forward, backward_input: A's rows are windows, B's columns the filter's. The reduction takes one tap after
// the other, for each run of channels. What is left of the last stage is filled with zeros, by places that
// lie outside of both tensors.
template <class C>
class WindowLoads {
 public:
  CNN_DEVICE WindowLoads(const typename C::Arguments& a, const Job& job)
      : a_(a),
        job_(job),
        phase_(a.phase[job.phase]),
        place_(place_of(a, phase_, job.first_row)),
        rank_(rank_in_cluster<C>()) {}

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
    const TensorMap& windows = a_.windows[job_.phase];
    const bool rest = C::kRuns > 1 && chunk_ >= a_.chunks;
    const int c = job_.group * a_.group_channels + chunk_ * C::kRun;
    if (a_.pointwise) {
      tma_load(to, windows, full, {c, rest ? phase_.pixels : job_.first_row});
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
      const int corner[] = {c, tap, job_.first_column + first, job_.group};
      load_for_all<C>(to + first * C::kSpan, a_.other, full, corner);
    } else {
#pragma unroll
      for (int i = 0; i < C::kColumns; i += kBlock * C::kCluster) {
        const int j = i + rank_ * kBlock, corner[] = {job_.first_column + j, tap, c, job_.group};
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
  const Job& job_;
  const Phase& phase_;
  const Place place_;
  const int rank_;
  int chunk_ = 0, r_ = 0, s_ = 0;
};

// backward_weight: the reduction runs over pixels. A's rows are filters, B's columns blocks of 64 channels of
// one tap each, as many taps side by side as a tile has room for.
template <class C>
class PixelLoads {
 public:
  CNN_DEVICE PixelLoads(const typename C::Arguments& a, const Job& job)
      : a_(a), job_(job), phase_(a.phase[0]), rank_(rank_in_cluster<C>()), pixel_(job.first_step * kBlock) {
    const int first = job.first_column / kBlock, all = phase_.r.count * phase_.s.count * a.chunks;
    rows_ = min(C::kRows / kBlock, (a.rows - job.first_row + kBlock - 1) / kBlock);
    if constexpr (C::kCluster > 1) rows_ = max(rows_, 0);  // a cluster's last tiles may lie outside
    columns_ = min(C::kColumns / kBlock, all - first);
#pragma unroll
    for (int j = 0; j < C::kColumns / kBlock; ++j) {
      const int tap = (first + j) / a.chunks, r = tap / phase_.s.count, s = tap - r * phase_.s.count;
      channel_[j] = job.group * a.group_channels + (first + j - tap * a.chunks) * kBlock;
      w_[j] = s * phase_.s.offset_step;
      h_[j] = r * phase_.r.offset_step;
    }
  }

  CNN_DEVICE void load(unsigned char* stage, Mbarrier* full) {
    // Blocks of the tile that lie outside the result are not copied; whatever is there, nothing stores it.
    mbarrier_arrive_expect_bytes(full, (rows_ + columns_) * kBlockBytes);
#pragma unroll
    for (int i = 0; i < C::kRows / kBlock; ++i) {
      if (i < rows_)
        tma_load(stage + i * kBlockBytes, a_.other, full, {job_.first_row + i * kBlock, job_.group, pixel_});
    }
    const Place place = place_of(a_, phase_, pixel_);
    unsigned char* b = stage + C::kBytesA;
#pragma unroll
    for (int j = 0; j < C::kColumns / kBlock; ++j) {
      if (j >= columns_ || j % C::kCluster != rank_) continue;
      if (a_.pointwise) {
        const int corner[] = {channel_[j], pixel_};
        load_for_all<C>(b + j * kBlockBytes, a_.windows[0], full, corner);
      } else {
        const int start[] = {channel_[j], place.w, place.h, place.n}, tap[] = {w_[j], h_[j]};
        load_for_all<C>(b + j * kBlockBytes, a_.windows[0], full, start, tap);
      }
    }
    pixel_ += kBlock;
  }

 private:
  const typename C::Arguments& a_;
  const Job& job_;
  const Phase& phase_;
  const int rank_;
  int pixel_, rows_, columns_;
  int channel_[C::kColumns / kBlock], w_[C::kColumns / kBlock], h_[C::kColumns / kBlock];
};

template <class C>
using Loads = std::conditional_t<C::kWeight, PixelLoads<C>, WindowLoads<C>>;

}  // namespace cnnkernels::conv2d::hopper
