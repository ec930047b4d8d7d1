// A pool's windows over the rows or columns of its input.
#pragma once

#include "errors.h"
#include "geometry.h"
#include "index.h"

namespace cnnkernels {

// One axis: place r of window p stands at p * stride - pad + r * dilation.
struct Axis {
  Index size, places, stride, pad;
  FastDivide by_dilation, by_places;

  Axis(std::int64_t size, std::int64_t places, std::int64_t stride, std::int64_t pad, std::int64_t dilation)
      : size(static_cast<Index>(size)),
        places(static_cast<Index>(places)),
        stride(static_cast<Index>(stride)),
        pad(static_cast<Index>(pad)),
        by_dilation(dilation),
        by_places(places) {}

  CNN_DEVICE Index dilation() const { return value(by_dilation); }
  // Where window p starts; before the input it is negative.
  CNN_DEVICE Index start(Index p) const { return p * stride - pad; }
  // The first place at or after the input's start (the last one if there is none).
  CNN_DEVICE Index first_place(Index start) const {
    if (start >= 0) return 0;
    const Index first = (dilation() - 1 - start) / by_dilation;
    return first < places ? first : places - 1;
  }
  // One past the last place before the input's end.
  CNN_DEVICE Index end_place(Index start) const {
    if (start >= size) return 0;
    const Index end = (size - 1 - start) / by_dilation + 1;
    return end < places ? end : places;
  }
};

// Strides and dilations that step over all of the input are cut to the shortest that does, so that no product
// of coordinates overflows: with dilation >= size + pad, places beyond the first fall outside either way, and
// with stride >= size + pad so do windows beyond the first.
inline PoolGeometry within_reach(PoolGeometry g, const char* op) {
  of_planes(g);
  if (g.r > INT32_MAX / g.s) throw_invalid_argument(op, "a window of more than 2^31 - 1 places");
  const auto cut = [](std::int64_t& step, std::int64_t reach) { step = step < reach ? step : reach; };
  cut(g.stride_h, g.h + g.pad_h);
  cut(g.stride_w, g.w + g.pad_w);
  cut(g.dilation_h, g.h + g.pad_h);
  cut(g.dilation_w, g.w + g.pad_w);
  // Beyond the ends of the input a coordinate still stays below this.
  const double rows = double(g.h) + double(g.pad_h) + double(g.p) * g.stride_h + double(g.r) * g.dilation_h;
  const double columns =
      double(g.w) + double(g.pad_w) + double(g.q) * g.stride_w + double(g.s) * g.dilation_w;
  if (rows >= 0x1p31 || columns >= 0x1p31) throw_invalid_argument(op, "rows or columns pass 2^31");
  return g;
}

}  // namespace cnnkernels
