#include "missing_windows.h"

#include "activation.h"
#include "fast_divide.h"
#include "launch.h"
#include "types.h"
#include "vector.h"

namespace cnnkernels {

namespace {

constexpr int kThreads = 256;

// One axis. By tap t, pixel i lies in window (i + pad - t dilation) / stride, where that divides.
struct Axis {
  std::int32_t pixels, windows, taps, pad, dilation;
  std::int32_t begin, end;  // the pixels from begin on and before end miss no window
  FastDivide stride;

  std::int64_t border() const { return pixels - (end - begin); }
  CNN_DEVICE std::int32_t pixel(std::int32_t number) const {
    return number < begin ? number : number - begin + end;
  }
  // -1 where there is no window.
  CNN_DEVICE std::int32_t window(std::int32_t pixel, std::int32_t tap) const {
    const std::int32_t reach = pixel + pad - tap * dilation;
    if (reach < 0) return -1;
    std::uint32_t rest;
    const auto window = static_cast<std::int32_t>(stride.divmod(static_cast<std::uint32_t>(reach), rest));
    return rest == 0 && window < windows ? window : -1;
  }
};

// Of the windows that are missed in front, the last tap's reach furthest, of those behind the first tap's.
// Steps over all of the axis are cut to the shortest that does: no tap or window meets another pixel for it.
Axis axis(std::int64_t pixels, std::int64_t windows, std::int64_t taps, std::int64_t stride, std::int64_t pad,
          std::int64_t dilation) {
  const auto within = [](std::int64_t x, std::int64_t low, std::int64_t high) {
    return static_cast<std::int32_t>(x < low ? low : x > high ? high : x);
  };
  const std::int32_t begin = within((taps - 1) * dilation - pad - stride + 1, 0, pixels),
                     end = within(windows * stride - pad, begin, pixels);
  const auto small = [](std::int64_t x) { return static_cast<std::int32_t>(x); };
  return {small(pixels),
          small(windows),
          small(taps),
          small(pad),
          within(dilation, 1, pixels + pad),
          begin,
          end,
          FastDivide(within(stride, 1, pixels + pad))};
}

// Elements from one index to the next. A filter's n is k, its h and w are r and s.
struct Strides {
  std::int64_t n, c, h, w;
};

// n := n / d, returns n % d.
CNN_DEVICE std::int32_t split(std::int64_t& n, const FastDivide& d) {
  std::uint32_t rest;
  if (n < std::int64_t(1) << 31) {
    n = d.divmod(static_cast<std::uint32_t>(n), rest);
  } else {
    rest = static_cast<std::uint32_t>(n % d.divisor);
    n /= d.divisor;
  }
  return static_cast<std::int32_t>(rest);
}

struct Border {
  Axis h, w;
  Strides input, error, filter;
  std::int64_t threads;
  std::int32_t channels, filters;  // of a group
  FastDivide vectors, pixels;      // of channels; of an image's border
  std::uint32_t whole_rows;        // pixels of them; of the other rows' borders come next
  FastDivide row, ends;            // pixels of a whole row, of the border of another
  std::int32_t channels_last;      // else threads run along pixels
};

struct Place {
  std::int64_t image;
  std::int32_t channel, row, column;
};

template <int V>
CNN_DEVICE Place place_of(const Border& border, std::int64_t thread) {
  Place at;
  std::int32_t pixel;
  if (border.channels_last) {
    at.channel = split(thread, border.vectors) * V;
    pixel = split(thread, border.pixels);
  } else {
    pixel = split(thread, border.pixels);
    at.channel = split(thread, border.vectors);
  }
  at.image = thread;
  auto number = static_cast<std::uint32_t>(pixel);
  std::uint32_t column;
  if (number < border.whole_rows) {
    at.row = border.h.pixel(static_cast<std::int32_t>(border.row.divmod(number, column)));
    at.column = static_cast<std::int32_t>(column);
  } else {
    number -= border.whole_rows;
    at.row = border.h.begin + static_cast<std::int32_t>(border.ends.divmod(number, column));
    at.column = border.w.pixel(static_cast<std::int32_t>(column));
  }
  return at;
}

template <class Sum>
CNN_DEVICE bool is_nan(Sum x) {
  return x != x;
}

// One chain, in this order. A sum that is NaN of right ends at the product that makes it so: where a whole
// network is NaN, at its first.
template <class T>
CNN_DEVICE Accumulator<T> sum_of_windows(const Border& border, const T* error, const T* filter,
                                         const Place& at, std::int32_t channel) {
  const std::int32_t group = channel / border.channels;
  const std::int64_t first = std::int64_t(group) * border.filters;
  error += at.image * border.error.n + first * border.error.c;
  filter += first * border.filter.n + (channel - group * border.channels) * border.filter.c;
  Accumulator<T> sum = 0;
#pragma unroll 1
  for (std::int32_t r = 0; r < border.h.taps; ++r) {
    const std::int32_t p = border.h.window(at.row, r);
    if (p < 0) continue;
#pragma unroll 1
    for (std::int32_t s = 0; s < border.w.taps; ++s) {
      const std::int32_t q = border.w.window(at.column, s);
      if (q < 0) continue;
      const T* dy = error + p * border.error.h + q * border.error.w;
      const T* tap = filter + r * border.filter.h + s * border.filter.w;
#pragma unroll 1
      for (std::int32_t k = 0; k < border.filters; ++k, dy += border.error.c, tap += border.filter.n) {
        sum = multiply_add(widen(*dy), widen(*tap), sum);
        if (is_nan(sum)) return sum;
      }
    }
  }
  return sum;
}

// What is stored of a sum. An epilogue makes NaN of a NaN, so that it is seen in the output.
template <class T>
CNN_DEVICE T finished(const Epilogue& epilogue, Accumulator<T> sum, std::int32_t channel,
                      std::int64_t offset) {
  using Sum = Accumulator<T>;
  const auto number = [&](const void* all, std::int64_t i, Sum otherwise) {
    return all != nullptr ? widen(static_cast<const T*>(all)[i]) : otherwise;
  };
  if (epilogue.bias != nullptr) sum += number(epilogue.bias, channel, Sum(0));
  if (epilogue.scale != nullptr || epilogue.shift != nullptr) {
    sum = multiply_add(number(epilogue.scale, channel, Sum(1)), sum, number(epilogue.shift, channel, Sum(0)));
  }
  if (epilogue.residual != nullptr) sum += number(epilogue.residual, offset, Sum(0));
  const auto slope = static_cast<Sum>(static_cast<double>(epilogue.slope));
  with_activation(epilogue.activation,
                  [&](auto which) { sum = activate(decltype(which)::value, sum, slope); });
  return narrow<T>(sum);
}

// A thread has V channels of a pixel.
template <class T, int V>
CNN_KERNEL(kThreads, 4)
missing_windows_kernel(const __grid_constant__ Border border, const __grid_constant__ Epilogue epilogue,
                       const T* error, const T* filter, T* input) {
  const std::int64_t thread = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= border.threads) return;
  const Place at = place_of<V>(border, thread);
  const std::int64_t offset = at.image * border.input.n + at.channel * border.input.c +
                              at.row * border.input.h + at.column * border.input.w;
  T* const to = input + offset;
  const Vector<T, V> sums = load<V>(to);
  std::uint32_t asked = 0;
#pragma unroll
  for (int v = 0; v < V; ++v) asked |= std::uint32_t(is_nan(widen(sums[v]))) << v;
#pragma unroll 1
  for (int v = 0; asked >> v != 0; ++v) {
    if ((asked >> v & 1) == 0) continue;
    const std::int32_t channel = at.channel + v;
    to[v] = finished<T>(epilogue, sum_of_windows(border, error, filter, at, channel), channel, offset + v);
  }
}

}  // namespace

void leave_out_missing_windows(const ConvGeometry& geometry, Layout layout, DType dtype,
                               const void* grad_output, const void* weight, const Epilogue& epilogue,
                               void* grad_input, std::uintptr_t stream) {
  const ConvGeometry& g = geometry;
  const auto strides = [&](std::int64_t c, std::int64_t h, std::int64_t w) {
    return layout == Layout::nhwc ? Strides{c * h * w, 1, w * c, c} : Strides{c * h * w, h * w, w, 1};
  };
  Border border{};
  border.h = axis(g.h, g.p, g.r, g.stride_h, g.pad_h, g.dilation_h);
  border.w = axis(g.w, g.q, g.s, g.stride_w, g.pad_w, g.dilation_w);
  const std::int64_t whole_rows = border.h.border() * g.w,
                     pixels = whole_rows + (g.h - border.h.border()) * border.w.border();
  if (pixels == 0) return;
  if (pixels > INT32_MAX) throw_invalid_argument("conv2d", "2^31 pixels of an image miss a window");
  border.channels = static_cast<std::int32_t>(g.c / g.groups);
  border.filters = static_cast<std::int32_t>(g.k / g.groups);
  border.input = strides(g.c, g.h, g.w);
  border.error = strides(g.k, g.p, g.q);
  border.filter = strides(border.channels, g.r, g.s);
  border.pixels = FastDivide(pixels);
  border.whole_rows = static_cast<std::uint32_t>(whole_rows);
  border.row = FastDivide(g.w);
  border.ends = FastDivide(border.w.border() > 0 ? border.w.border() : 1);
  border.channels_last = layout == Layout::nhwc;
  dispatch_floating(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kVector = 16 / sizeof(T);
    const auto look = [&](auto kernel, int vector) {
      border.vectors = FastDivide(g.c / vector);
      border.threads = g.n * pixels * (g.c / vector);
      launch(
          kernel,
          Launch{dim3(static_cast<unsigned>(ceil_div(border.threads, kThreads))), dim3(kThreads), 0, stream},
          border, epilogue, static_cast<const T*>(grad_output), static_cast<const T*>(weight),
          static_cast<T*>(grad_input));
    };
    const bool aligned = reinterpret_cast<std::uintptr_t>(grad_input) % 16 == 0;
    if (layout == Layout::nhwc && g.c % kVector == 0 && aligned) {
      look(missing_windows_kernel<T, kVector>, kVector);
    } else {
      look(missing_windows_kernel<T, 1>, 1);
    }
  });
}

}  // namespace cnnkernels
