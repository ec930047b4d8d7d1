#include "common/launch.h"
#include "conv/gemm.h"
#include "registry.h"

namespace cnnkernels {

// out[i] = where index `first` + `by`[i] of the axis leads, found by a step from `first`.
CNN_KERNEL(64, 1)
walk(const conv::Axis axis, std::int64_t first, const std::int64_t* by, std::int64_t* out, int count) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= count) return;
  conv::Cursor cursor = conv::seek(axis, first);
  conv::step(axis, cursor, static_cast<std::int32_t>(by[i]));
  out[3 * i] = cursor.place.offset;
  out[3 * i + 1] = cursor.place.h;
  out[3 * i + 2] = cursor.place.w;
}

// first, by, out, count, then size, stride, h and w of each of three digits
CNN_TEST(conv_axis_walk) {
  const auto digit = [&](std::size_t i) {
    const std::size_t at = 4 + 4 * i;
    return conv::Digit{arguments.number(at), arguments.number(at + 1),
                       static_cast<std::int32_t>(arguments.number(at + 2)),
                       static_cast<std::int32_t>(arguments.number(at + 3))};
  };
  launch(walk, Launch{dim3(1), dim3(64), 0, arguments.stream}, conv::Axis{digit(0), digit(1), digit(2)},
         arguments.number(0), arguments.pointer<const std::int64_t>(1), arguments.pointer<std::int64_t>(2),
         static_cast<int>(arguments.number(3)));
}

}  // namespace cnnkernels
