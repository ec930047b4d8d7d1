// A border's distances (border.h) in shared memory.
#pragma once

#include "../border.h"

namespace cnnkernels::conv {

// Those of the rows, then those of the columns.
class BorderTable {
 public:
  CNN_DEVICE BorderTable(const Border& border, void* shared)
      : border_(border), distances_(static_cast<std::int32_t*>(shared)) {}

  CNN_DEVICE bool exists() const { return border_.exists(); }

  // By all threads of a block; readable after the next barrier.
  CNN_DEVICE void fill(int threads) const {
    const int rows = border_.h.count, all = rows + border_.w.count;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < all; i += threads) {
      const BorderAxis& axis = i < rows ? border_.h : border_.w;
      distances_[i] = axis.distance(border_.mode, axis.first + (i < rows ? i : i - rows));
    }
  }

  // From where row h and column w of the padded image would lie to the pixel they repeat, in elements.
  CNN_DEVICE std::int32_t operator()(std::int32_t h, std::int32_t w) const {
    return distances_[h] + distances_[border_.h.count + w];
  }

 private:
  const Border& border_;
  std::int32_t* distances_;
};

// Of an operand that has none.
struct NoBorder {
  CNN_DEVICE static bool exists() { return false; }
  CNN_DEVICE std::int32_t operator()(std::int32_t, std::int32_t) const { return 0; }
};

}  // namespace cnnkernels::conv
