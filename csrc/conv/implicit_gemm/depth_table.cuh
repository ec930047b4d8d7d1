// Where the depth indices of a stage lie in both operands. Each is worked out once, by one thread, a stage
// ahead, and read from shared memory by all.
#pragma once

#include "../gemm.h"

namespace cnnkernels::conv {

template <int Depth>
class DepthTable {
 public:
  using Shared = Place[2][2][Depth];  // slot, operand, depth index

  // The reduction runs over `depth` indices from `first_depth`. prepare() is called for stage 0, 1, 2, ...
  CNN_DEVICE DepthTable(const Gemm& gemm, Shared& shared, std::int64_t first_depth, std::int32_t depth)
      : shared_(shared),
        axis_(operand() == 0 ? gemm.a.depth : gemm.b.depth),
        left_(depth - index()),
        cursor_(seek(axis_, first_depth)) {
    step(axis_, cursor_, index());
  }

  // Slots take turns: with a barrier between two calls, none is overwritten while it is read.
  CNN_DEVICE void prepare(int stage) {
    if (operand() > 1 || index() >= Depth) return;
    Place& place = shared_[stage % 2][operand()][index()];
    place = cursor_.place;
    if (left_ <= 0) place.h = kOutside;
    step(axis_, cursor_, Depth);
    left_ -= Depth;
  }

  // Readable after the barrier that follows prepare(stage).
  CNN_DEVICE const Place* a(int stage) const { return shared_[stage % 2][0]; }
  CNN_DEVICE const Place* b(int stage) const { return shared_[stage % 2][1]; }

 private:
  // Warp 0 writes for A, warp 1 for B.
  CNN_DEVICE static int operand() { return static_cast<int>(threadIdx.x) / 32; }
  CNN_DEVICE static int index() { return static_cast<int>(threadIdx.x) % 32; }

  Shared& shared_;
  const Axis& axis_;
  std::int32_t left_;
  Cursor cursor_;
};

}  // namespace cnnkernels::conv
