// A pool's windows over its input, and the walk over the places of one.
#pragma once

#include "errors.h"
#include "geometry.h"
#include "index.h"

namespace cnnkernels {

// One axis: place r of window p stands at p * stride - pad + r * dilation.
struct WindowAxis {
  Index size, places, stride, pad;
  FastDivide by_dilation, by_places;

  WindowAxis(std::int64_t size, std::int64_t places, std::int64_t stride, std::int64_t pad,
             std::int64_t dilation)
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

// Places [r_begin, r_end) x [s_begin, s_end): what a reduction walks over.
struct Places {
  Index s_begin, s_end, r_begin, r_end;
};

// One output's window: the places of it that lie inside the input. Its first one stands at row h and column
// w, which are negative before the input.
struct Window : Places {
  Index h, w;

  CNN_DEVICE Window(const WindowAxis& rows, const WindowAxis& columns, Index p, Index q)
      : h(rows.start(p)), w(columns.start(q)) {
    s_begin = columns.first_place(w);
    s_end = columns.end_place(w);
    r_begin = rows.first_place(h);
    r_end = s_begin < s_end ? rows.end_place(h) : 0;
  }
};

CNN_DEVICE Index clamp(Index x, Index low, Index high) { return x < low ? low : x > high ? high : x; }

// What a reduction becomes when it has been told of every element of a window, in the order of places:
// update(element(r, s), place r * S + s).
//
// Loads of a row are in flight together: all of them where S is known at compile time (kS, else 0), which
// takes a reduction that an element met twice in a row does not change, else as many as it has kTogether; it
// names what changes nothing, for those that lie beyond the row's end. Threads may share a window: each takes
// one in every `parts` rows. (By value: a reference costs instructions, as the reduction is taken apart into
// registers late.)
template <int kS, class Reduction, class Load>
CNN_DEVICE Reduction reduce_window(const Places& window, Index places, Index part, Index parts,
                                   const Load& element, Reduction reduction) {
  using Element = typename Reduction::Element;
#pragma unroll 1
  for (Index r = window.r_begin + part; r < window.r_end; r += parts) {
    if constexpr (kS > 0) {
      static_assert(Reduction::kIdempotent);
      Element elements[kS];
#pragma unroll
      for (int s = 0; s < kS; ++s) elements[s] = element(r, clamp(s, window.s_begin, window.s_end - 1));
#pragma unroll
      for (int s = 0; s < kS; ++s)
        reduction.update(elements[s], r * kS + clamp(s, window.s_begin, window.s_end - 1));
    } else if constexpr (Reduction::kTogether == 1) {
      for (Index s = window.s_begin; s < window.s_end; ++s) reduction.update(element(r, s), r * places + s);
    } else {
#pragma unroll 1
      for (Index s = window.s_begin; s < window.s_end; s += Reduction::kTogether) {
        Element elements[Reduction::kTogether];
#pragma unroll
        for (int k = 0; k < Reduction::kTogether; ++k) {
          elements[k] = reduction.nothing();
          if (k == 0 || s + k < window.s_end) elements[k] = element(r, s + k);
        }
#pragma unroll
        for (int k = 0; k < Reduction::kTogether; ++k) reduction.update(elements[k], r * places + s + k);
      }
    }
  }
  return reduction;
}

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
