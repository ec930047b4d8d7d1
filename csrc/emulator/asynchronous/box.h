// Which bytes of global memory a tensor copy takes where: the rows of a box, tiled or im2col, one after
// another.
#pragma once

#include <cstdint>

#include "emulator/tensor_map.h"

namespace cnnkernels::emulator {

struct BoxStart {
  std::int32_t at[kMostDimensions]{};  // the innermost first
  std::uint16_t offsets[3]{};          // im2col: of the filter's tap, width first
};

// A row lies densely in shared memory. Elements [first, last) of it are the tensor's, at `address` and on;
// the others are filled.
struct BoxRow {
  std::uint64_t address = 0;
  std::uint32_t first = 0, last = 0;
  bool skipped = false;  // of a wrong model alone: leave what is there
};

class BoxRows {
 public:
  BoxRows(const TensorMap& map, const BoxStart& start);
  std::uint32_t count() const { return count_; }
  std::uint32_t row_elements() const { return width_; }
  std::uint32_t row_bytes() const { return width_ * static_cast<std::uint32_t>(map_.strides[0]); }
  BoxRow next();  // `count` times

 private:
  BoxRow row(const std::int64_t* pixel) const;
  void step_tiled();
  void step_im2col();

  const TensorMap& map_;
  const BoxStart start_;
  std::uint32_t width_, count_ = 1;
  std::int64_t place_[kMostDimensions]{};  // tiled: step of the box; im2col: where the filter's corner lies
  std::int64_t steps_[kMostDimensions]{};
};

std::uint32_t box_bytes(const TensorMap& map);  // all of a box, whether or not it lies in the tensor

}  // namespace cnnkernels::emulator
