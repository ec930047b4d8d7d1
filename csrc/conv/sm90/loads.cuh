// What the producer copies into a stage, by TMA. The three directions differ in nothing else but where their
// results go (sm90/store.cuh).
#pragma once

#include "../../gemm/sm90/loads.cuh"
#include "config.cuh"

namespace cnnkernels::conv::sm90 {

// backward_weight: the reduction runs over pixels. A's rows are filters, B's columns blocks of 64 channels of
// one tap each, as many taps side by side as a tile has room for.
template <class C>
class PixelLoads {
 public:
  CNN_DEVICE PixelLoads(const typename C::Arguments& a, const WorkTile& work)
      : a_(a),
        work_(work),
        phase_(a.phase[0]),
        rank_(rank_in_cluster<C>()),
        pixel_(work.first_step * kBlock) {
    const int first = work.first_column / kBlock, all = phase_.r.count * phase_.s.count * a.chunks;
    rows_ = min(C::kRows / kBlock, (a.rows - work.first_row + kBlock - 1) / kBlock);
    if constexpr (C::kCluster > 1) rows_ = max(rows_, 0);  // a cluster's last tiles may lie outside
    columns_ = min(C::kColumns / kBlock, all - first);
#pragma unroll
    for (int j = 0; j < C::kColumns / kBlock; ++j) {
      const int tap = (first + j) / a.chunks, r = tap / phase_.s.count, s = tap - r * phase_.s.count;
      channel_[j] = work.group * a.group_channels + (first + j - tap * a.chunks) * kBlock;
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
        tma_load(stage + i * kBlockBytes, a_.other, full,
                 {work_.first_row + i * kBlock, work_.group, pixel_});
    }
    const Pixel place = pixel_of(a_, phase_, pixel_);
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
  const WorkTile& work_;
  const Phase& phase_;
  const int rank_;
  int pixel_, rows_, columns_;
  int channel_[C::kColumns / kBlock], w_[C::kColumns / kBlock], h_[C::kColumns / kBlock];
};

template <class C>
using Loads = std::conditional_t<C::kWeight, PixelLoads<C>, WindowLoads<C>>;

}  // namespace cnnkernels::conv::sm90
