// How the elements of a tensor are spread over threads.
//
// There is one layout: NHWC. A dense NCHW tensor is an NHWC tensor of N * C images with one channel each.
// A thread works at one site (image, row, column, channel) for V lanes, which share all the index arithmetic:
//   Spread::channels   V adjacent channels of one image, moved by one 16-byte access
//   Spread::images     the same site of V successive images; the threads of a warp stand beside each other in
//                      memory, so every access is coalesced whatever the number of channels
#pragma once

#include "../common/device.h"
#include "../common/fast_divide.h"
#include "../common/launch.h"
#include "../common/vector.h"

namespace cnnkernels {

enum class Spread { channels, images };

// Exact division of a non-negative Index by a number known at launch.
template <class Index>
struct Divider;

template <>
struct Divider<std::int32_t> {
  FastDivide fast;
  explicit Divider(std::int64_t d) : fast(d) {}
  CNN_DEVICE std::int32_t divisor() const { return static_cast<std::int32_t>(fast.divisor); }
  CNN_DEVICE std::int32_t quotient(std::int32_t n) const {
    return static_cast<std::int32_t>(fast.quotient(n));
  }
};

template <>
struct Divider<std::int64_t> {
  std::uint64_t by;
  explicit Divider(std::int64_t d) : by(d) {}
  CNN_DEVICE std::int64_t divisor() const { return static_cast<std::int64_t>(by); }
  CNN_DEVICE std::int64_t quotient(std::int64_t n) const { return static_cast<std::int64_t>(n / by); }
};

// n := n / d, returns n % d.
template <class Index>
CNN_DEVICE Index split(Index& n, const Divider<Index>& d) {
  const Index quotient = d.quotient(n);
  const Index remainder = n - quotient * d.divisor();
  n = quotient;
  return remainder;
}

template <class Index>
struct Site {
  Index image, row, column, channel;
};

// The sites of a tensor [images, rows, columns, channels], channels fastest, with V lanes at each.
template <Spread kSpread, int V, class Index>
struct Sites {
  static constexpr int kLanes = V;
  using Offset = Index;

  Index images, count;  // `count` sites; a thread for each
  Divider<Index> rows, columns, channels;
  Divider<Index> groups;  // of V channels (or of 1)

  Sites(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c)
      : images(static_cast<Index>(n)), rows(h), columns(w), channels(c), groups(kAdjacent ? c / V : c) {
    count = static_cast<Index>((kAdjacent ? n : (n + V - 1) / V) * h * w * (kAdjacent ? c / V : c));
  }

  CNN_DEVICE Site<Index> operator[](Index i) const {
    Site<Index> site;
    site.channel = split(i, groups) * (kAdjacent ? V : 1);
    site.column = split(i, columns);
    site.row = split(i, rows);
    site.image = i * (kAdjacent ? 1 : V);
    return site;
  }
  // Elements in an image, and before a site's first lane.
  CNN_DEVICE Index image() const { return rows.divisor() * columns.divisor() * channels.divisor(); }
  CNN_DEVICE Index offset(const Site<Index>& at) const {
    return ((at.image * rows.divisor() + at.row) * columns.divisor() + at.column) * channels.divisor() +
           at.channel;
  }

  // The lanes at one site, over any tensor of the same images and channels. Lanes past the batch's end load
  // what the last image has and store nothing.
  struct Lanes {
    Index last;
    // From lane 0 to lane j, in a tensor of `image` elements an image.
    CNN_DEVICE Index step(int j, Index image) const {
      if constexpr (kAdjacent) return j;
      return (j < last ? static_cast<Index>(j) : last) * image;
    }

    // `offset` is lane 0's.
    template <class T>
    CNN_DEVICE Vector<T, V> load(const T* tensor, Index offset, Index image) const {
      if constexpr (kAdjacent) {
        return cnnkernels::load<V>(tensor + offset);
      } else {
        Vector<T, V> values;
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = tensor[offset + step(j, image)];
        return values;
      }
    }
    template <class T>
    CNN_DEVICE void store(T* tensor, Index offset, Index image, const Vector<T, V>& values) const {
      if constexpr (kAdjacent) {
        cnnkernels::store(tensor + offset, values);
      } else {
#pragma unroll
        for (int j = 0; j < V; ++j) {
          if (j <= last) tensor[offset + step(j, image)] = values[j];
        }
      }
    }
  };
  CNN_DEVICE Lanes lanes(const Site<Index>& at) const {
    const Index left = kAdjacent ? V : images - at.image;
    return {left < V ? left - 1 : V - 1};
  }

 private:
  static constexpr bool kAdjacent = kSpread == Spread::channels;
};

inline constexpr unsigned kThreads = 256;
// Blocks an SM should hold: up to 64 registers a thread, 128 with 64-bit arithmetic.
template <class Index>
inline constexpr unsigned kBlocks = sizeof(Index) == 4 ? 4 : 2;

template <class Index>
CNN_DEVICE Index thread_index() {
  return static_cast<Index>(blockIdx.x) * static_cast<Index>(kThreads) + static_cast<Index>(threadIdx.x);
}

// A thread for each of `count` sites.
inline Launch over(std::int64_t count, std::uintptr_t stream) {
  return Launch{dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream};
}

// Images of one batch in several tensors of different rows and columns.
struct Batch {
  std::int64_t images, channels;
  std::int64_t largest_image;  // elements, over all the tensors
  bool small;                  // whatever else a kernel computes stays below 2^31
  std::int64_t largest_index;  // that 32-bit arithmetic may meet

  // Calls body(first, images, Index{}) for successive slices of the batch, each within 32-bit arithmetic: a
  // batch of more than 2^31 elements keeps the fast kernels. 64-bit arithmetic serves the single image that
  // large.
  template <class Body>
  void slices(Body&& body) const {
    const std::int64_t fit = small ? largest_index / largest_image : 0;
    if (fit == 0) return body(std::int64_t{0}, images, std::int64_t{});
    for (std::int64_t first = 0; first < images; first += fit) {
      body(first, fit < images - first ? fit : images - first, std::int32_t{});
    }
  }

  // Calls body(sites, first) for the slices of a tensor [images, rows, columns, channels], spread over
  // channels where all of `tensors` allow vectors of V elements, else over images.
  template <int V, class Body, class... T>
  void spread(std::int64_t rows, std::int64_t columns, Body&& body, const T*... tensors) const {
    const auto aligned = [](auto* p) { return reinterpret_cast<std::uintptr_t>(p) % (V * sizeof(*p)) == 0; };
    const bool vectors = channels % V == 0 && (aligned(tensors) && ...);
    slices([&](std::int64_t first, std::int64_t count, auto index) {
      using Index = decltype(index);
      if (vectors) return body(Sites<Spread::channels, V, Index>(count, rows, columns, channels), first);
      body(Sites<Spread::images, kImages, Index>(count, rows, columns, channels), first);
    });
  }
  template <class Body>
  void spread_over_images(std::int64_t rows, std::int64_t columns, Body&& body) const {
    slices([&](std::int64_t first, std::int64_t count, auto index) {
      body(Sites<Spread::images, kImages, decltype(index)>(count, rows, columns, channels), first);
    });
  }
  static constexpr int kImages = 4;
};

// The most elements that one instruction moves.
template <class T>
inline constexpr int kVector = 16 / sizeof(T);

}  // namespace cnnkernels
