// Which thread has which elements of a tensor.
//
// There is one layout: NHWC. A dense NCHW tensor is an NHWC tensor of N * C images with one channel each.
// A thread works at one site (image, row, column, channel) for V lanes, which share all the index arithmetic:
//   Lanes::channels   V adjacent channels of one image, moved by one 16-byte access
//   Lanes::images     the same site of V successive images; the threads of a warp stand beside each other in
//                     memory, so every access is coalesced whatever the number of channels
#pragma once

#include "errors.h"
#include "index.h"
#include "launch.h"
#include "vector.h"

namespace cnnkernels {

enum class Lanes { channels, images };

struct Site {
  Index image, row, column, channel;
};

// The sites of some rows of a tensor [images, rows, columns, channels], channels fastest, with V lanes at
// each.
template <Lanes kMapping, int V, class OffsetType>
struct Sites {
  static constexpr bool kAdjacent = kMapping == Lanes::channels;
  static constexpr int kLanes = V;
  using Offset = OffsetType;

  Index images, rows, columns, channels;
  Index first_row, count;  // `count` sites; a thread for each
  FastDivide by_rows, by_columns, by_groups;

  // The offset of a pixel's channel in a tensor of the same images and channels, but its own rows and
  // columns.
  CNN_DEVICE Offset offset(const Site& at, Index height, Index width, Index row, Index column) const {
    return ((Offset(at.image) * height + row) * width + column) * channels + at.channel;
  }
  CNN_DEVICE Offset offset(const Site& at) const { return offset(at, rows, columns, at.row, at.column); }
  // The elements of an image in such a tensor.
  CNN_DEVICE Offset image(Index height, Index width) const { return Offset(height) * width * channels; }
  CNN_DEVICE Offset image() const { return image(rows, columns); }

  CNN_DEVICE Site operator[](Index i) const {
    Site at;
    at.channel = split(i, by_groups) * (kAdjacent ? V : 1);
    at.column = split(i, by_columns);
    at.row = split(i, by_rows) + first_row;
    at.image = i * (kAdjacent ? 1 : V);
    return at;
  }

  // The lanes at one site. Lanes past the batch's end load what the last image has and store nothing.
  struct LanesAt {
    Index last;

    // From lane 0 to lane j, in a tensor of `image` elements an image.
    CNN_DEVICE Offset step(int j, Offset image) const {
      if constexpr (kAdjacent) return j;
      return (j < last ? j : last) * image;
    }
    // `offset` is lane 0's.
    template <class T>
    CNN_DEVICE Vector<T, V> load(const T* tensor, Offset offset, Offset image) const {
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
    CNN_DEVICE void store(T* tensor, Offset offset, Offset image, const Vector<T, V>& values) const {
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
  CNN_DEVICE LanesAt lanes(const Site& at) const {
    const Index left = kAdjacent ? V : images - at.image;
    return {left < V ? left - 1 : V - 1};
  }
};

inline constexpr unsigned kSiteThreads = 256;

CNN_DEVICE Index site_of_thread() { return static_cast<Index>(blockIdx.x * kSiteThreads + threadIdx.x); }

// A thread for each of `count` sites.
inline Launch launch_over(std::int64_t count, std::uintptr_t stream) {
  return Launch{dim3(static_cast<unsigned>((count + kSiteThreads - 1) / kSiteThreads)), dim3(kSiteThreads), 0,
                stream};
}

// `some_rows` of a tensor's rows, from first_row on, of n images.
template <Lanes kMapping, int V, class Offset>
Sites<kMapping, V, Offset> sites_of(std::int64_t n, std::int64_t first_row, std::int64_t some_rows,
                                    std::int64_t rows, std::int64_t columns, std::int64_t channels) {
  const std::int64_t groups = kMapping == Lanes::channels ? channels / V : channels;
  const std::int64_t lanes = kMapping == Lanes::channels ? n : (n + V - 1) / V;
  const auto index = [](std::int64_t x) { return static_cast<Index>(x); };
  return {index(n),
          index(rows),
          index(columns),
          index(channels),
          index(first_row),
          index(lanes * some_rows * columns * groups),
          FastDivide(some_rows),
          FastDivide(columns),
          FastDivide(groups)};
}

// Cuts [images, rows] into slices of up to `most`, where an image and a row count for so many: calls
// slice(first image, images, first row, rows, whole) with whole images, or where not even one fits, with rows
// of one.
template <class Slice>
void for_each_slice(std::int64_t images, std::int64_t rows, std::int64_t of_image, std::int64_t of_row,
                    std::int64_t most, Slice&& slice) {
  const std::int64_t fit = most / of_image, step = most / of_row;
  if (fit == 0 && step == 0) throw_invalid_argument("a row of an image has more than 2^31 elements");
  for (std::int64_t first = 0; first < images; first += fit > 0 ? fit : 1) {
    if (fit > 0) {
      slice(first, fit < images - first ? fit : images - first, 0, rows, true);
      continue;
    }
    for (std::int64_t row = 0; row < rows; row += step)
      slice(first, 1, row, step < rows - row ? step : rows - row, false);
  }
}

// The images of several tensors that differ in rows and columns alone.
struct Batch {
  std::int64_t images, channels;
  std::int64_t largest_image;  // in elements, over all the tensors
  std::int64_t largest_index;  // that 32-bit arithmetic may meet

  // Calls body(sites, first image) for parts of a tensor [images, rows, columns, channels] whose sites and
  // offsets stay within 32 bits: all of it, or slices of the batch. Only an image too large for that takes
  // 64-bit offsets, slices of its rows keeping its sites within 32 bits. Lanes are V adjacent channels where
  // all of `tensors`, if there are any, allow vectors, else V images.
  template <int V, class Body, class... T>
  void map_threads(std::int64_t rows, std::int64_t columns, Body&& body, const T*... tensors) const {
    const auto part = [&](auto offset, std::int64_t first, std::int64_t n, std::int64_t row,
                          std::int64_t some) {
      using Offset = decltype(offset);
      if constexpr (sizeof...(T) > 0) {
        const bool aligned = ((reinterpret_cast<std::uintptr_t>(tensors) % (V * sizeof(T)) == 0) && ...);
        if (channels % V == 0 && aligned) {
          return body(sites_of<Lanes::channels, V, Offset>(n, row, some, rows, columns, channels), first);
        }
      }
      if constexpr (sizeof(Offset) == sizeof(Index)) {
        if (n > V / 2)
          return body(sites_of<Lanes::images, V, Offset>(n, row, some, rows, columns, channels), first);
      }
      body(sites_of<Lanes::images, 1, Offset>(n, row, some, rows, columns, channels), first);
    };

    const auto slice = [&](std::int64_t first, std::int64_t n, std::int64_t row, std::int64_t some,
                           bool fits) {
      if (fits) return part(std::int32_t{}, first, n, row, some);
      part(std::int64_t{}, first, n, row, some);
    };
    for_each_slice(images, rows, largest_image, columns * channels, largest_index, slice);
  }
};

// The most elements that one instruction moves.
template <class T>
inline constexpr int kVectorLanes = 16 / sizeof(T);

}  // namespace cnnkernels
