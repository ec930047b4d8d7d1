// The kernel that packs and unpacks tensors of 16-bit elements, whatever type they are (pack.h).
#include "pack.h"

#include <stdexcept>

#include "../../common/fast_divide.h"
#include "../../common/launch.h"
#include "../../common/vector.h"
#include "../views.h"

namespace cnnkernels::conv {

namespace {

using Bits = std::uint16_t;
using Chunk = Vector<Bits, kPackedChunk>;

constexpr int kPackThreads = 256, kChunk = kPackedChunk;
constexpr int kSide = 64;  // of a tile that is transposed: channels by pixels
constexpr int kRowChunks = kSide / kChunk;

// A Copy as the kernel wants it.
struct Job {
  const Bits* from;
  Bits* to;
  std::uint32_t elements, first_block;
  FastDivide size[5], channels;
  std::int64_t stride[6], origin, tap_stride;
  std::uint32_t taps, filters;
  std::int32_t column_step, tap_step, pad, width;
  Copy::Planes planes;
  bool whole;        // a chunk of the destination is of one digit 0
  bool from_chunks;  // and whole chunks of the source are aligned runs of 16 bytes
  bool to_chunks;    // so are those of the destination
  std::uint8_t unused = 0;
  FastDivide channel_tiles, pixel_tiles;  // of what is transposed
};

struct Jobs {
  Job job[kMostCopies];
  int count = 0;
  std::int32_t unused = 0;
};

// Where a destination's element comes from, but for its first digit.
struct Source {
  std::int64_t offset;
  std::int32_t column;
  std::uint32_t first;
  bool inside;
};

CNN_DEVICE Source source_of(const Job& job, std::uint32_t index) {
  std::uint32_t digit[6], rest = index;
#pragma unroll
  for (int i = 0; i < 5; ++i) rest = job.size[i].divmod(rest, digit[i]);
  digit[5] = rest;
  Source source{job.origin, 0, digit[0], digit[4] < job.filters};
#pragma unroll
  for (int i = 1; i < 6; ++i) source.offset += digit[i] * job.stride[i];
  source.column = static_cast<std::int32_t>(digit[2]) * job.column_step - job.pad;
  return source;
}

CNN_DEVICE Bits element_of(const Job& job, const Source& source, std::uint32_t ahead) {
  std::uint32_t channel;
  const std::uint32_t tap = job.channels.divmod(source.first + ahead, channel);
  const std::int32_t column = source.column + static_cast<std::int32_t>(tap) * job.tap_step;
  const bool inside = source.inside && tap < job.taps &&
                      static_cast<std::uint32_t>(column) < static_cast<std::uint32_t>(job.width);
  return inside ? job.from[source.offset + channel * job.stride[0] + tap * job.tap_stride] : Bits(0);
}

// Each thread makes 16 bytes of the destination, wherever its elements come from.
CNN_DEVICE void gather(const Job& job, std::uint32_t block) {
  const std::uint32_t first = (block * kPackThreads + threadIdx.x) * kChunk;
  if (first >= job.elements) return;
  Chunk chunk;
  Source source = source_of(job, first);
  if (job.from_chunks) {
    const bool inside = source.inside && source.first < job.channels.divisor;
    chunk = inside ? load<kChunk>(job.from + source.offset + source.first) : Chunk{};
  } else {
#pragma unroll
    for (int e = 0; e < kChunk; ++e) {
      if (job.whole) {
        chunk[e] = element_of(job, source, e);
      } else if (first + e < job.elements) {
        source = source_of(job, first + e);
        chunk[e] = element_of(job, source, 0);
      }
    }
  }
  if (job.to_chunks && first + kChunk <= job.elements) {
    store(job.to + first, chunk);
  } else {
#pragma unroll
    for (int e = 0; e < kChunk; ++e)
      if (first + e < job.elements) job.to[first + e] = chunk[e];
  }
}

// A tile in shared memory: a channel's 64 pixels are a row, whose chunks are permuted so that neither rows
// nor columns of 8 chunks meet a bank twice.
CNN_DEVICE int place(int channel, int pixel) {
  return channel * kSide + ((pixel / kChunk ^ channel / kChunk) * kChunk) + pixel % kChunk;
}

struct TilePlace {
  std::uint32_t channel, pixel;  // its first
  std::uint32_t padded;          // channels of a packed pixel
  std::uint32_t pixels;          // of an image
  std::int64_t planes, packed;   // where its image begins, elements

  CNN_DEVICE TilePlace(const Job& job, std::uint32_t block)
      : padded(job.size[0].divisor * job.size[1].divisor), pixels(job.size[2].divisor) {
    std::uint32_t image = job.channel_tiles.divmod(block, channel);
    image = job.pixel_tiles.divmod(image, pixel);
    channel *= kSide;
    pixel *= kSide;
    planes = image * job.stride[4];
    packed = std::int64_t(image) * pixels * padded;
  }
};

// Where a row of a tile lies among the planes of an image; negative for a padded channel, or none.
CNN_DEVICE std::int64_t plane_of(const Job& job, const TilePlace& at, int row) {
  if (at.channel + row >= at.padded) return -1;
  std::uint32_t channel;
  const std::uint32_t group = job.size[0].divmod(at.channel + row, channel);
  return channel < job.channels.divisor ? (group * job.channels.divisor + channel) * job.stride[0] : -1;
}

// Calls body(row, pixel) for each chunk, or element, of a tile's rows that this thread has; `pixel` is of the
// tile.
template <int kWidth, class Body>
CNN_DEVICE void along_planes(const Job& job, const TilePlace& at, Body&& body) {
#pragma unroll
  for (int i = 0; i < kSide * kSide / kWidth / kPackThreads; ++i) {
    const int number = static_cast<int>(threadIdx.x) + i * kPackThreads;
    const int row = number / (kSide / kWidth), pixel = number % (kSide / kWidth) * kWidth;
    body(row, pixel, at.pixel + pixel < at.pixels ? plane_of(job, at, row) : -1);
  }
}
// Calls body(channel, pixel) for each chunk of a tile's pixels that this thread has.
template <class Body>
CNN_DEVICE void along_pixels(const TilePlace& at, Body&& body) {
#pragma unroll
  for (int i = 0; i < kSide * kRowChunks / kPackThreads; ++i) {
    const int number = static_cast<int>(threadIdx.x) + i * kPackThreads;
    const int channel = number % kRowChunks * kChunk, pixel = number / kRowChunks;
    if (at.channel + channel >= at.padded || at.pixel + pixel >= at.pixels) continue;
    body(channel, pixel, at.packed + std::int64_t(at.pixel + pixel) * at.padded + at.channel + channel);
  }
}

CNN_DEVICE void from_planes(const Job& job, std::uint32_t block, Bits* tile) {
  const TilePlace at(job, block);
  const Bits* from = job.from + at.planes + at.pixel;
  if (job.from_chunks) {
    along_planes<kChunk>(job, at, [&](int row, int pixel, std::int64_t plane) {
      Bits* to = tile + place(row, pixel);
      if (plane >= 0) {
        copy_vector(to, from + plane + pixel);
      } else {
        store(to, Chunk{});
      }
    });
  } else {
    along_planes<1>(job, at, [&](int row, int pixel, std::int64_t plane) {
      tile[place(row, pixel)] = plane >= 0 ? from[plane + pixel] : Bits(0);
    });
  }
  __syncthreads();
  along_pixels(at, [&](int channel, int pixel, std::int64_t offset) {
    Chunk chunk;
#pragma unroll
    for (int e = 0; e < kChunk; ++e) chunk[e] = tile[place(channel + e, pixel)];
    store(job.to + offset, chunk);
  });
}

CNN_DEVICE void to_planes(const Job& job, std::uint32_t block, Bits* tile) {
  const TilePlace at(job, block);
  along_pixels(at, [&](int channel, int pixel, std::int64_t offset) {
    const Chunk chunk = load<kChunk>(job.from + offset);
#pragma unroll
    for (int e = 0; e < kChunk; ++e) tile[place(channel + e, pixel)] = chunk[e];
  });
  __syncthreads();
  Bits* to = job.to + at.planes + at.pixel;
  if (job.to_chunks) {
    along_planes<kChunk>(job, at, [&](int row, int pixel, std::int64_t plane) {
      if (plane >= 0) copy_vector(to + plane + pixel, tile + place(row, pixel));
    });
  } else {
    along_planes<1>(job, at, [&](int row, int pixel, std::int64_t plane) {
      if (plane >= 0) to[plane + pixel] = tile[place(row, pixel)];
    });
  }
}

CNN_KERNEL(kPackThreads, 4) pack(const __grid_constant__ Jobs jobs) {
  CNN_SHARED(Chunk, tile, [kSide * kRowChunks]);
  int number = 0;
  while (number + 1 < jobs.count && blockIdx.x >= jobs.job[number + 1].first_block) ++number;
  const Job& job = jobs.job[number];
  const std::uint32_t block = blockIdx.x - job.first_block;
  Bits* elements = &tile[0][0];
  if (job.planes == Copy::Planes::no) return gather(job, block);
  if (job.planes == Copy::Planes::from) return from_planes(job, block, elements);
  to_planes(job, block, elements);
}

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % sizeof(Chunk) == 0; }

// A copy as a job, and the blocks it takes.
std::int64_t prepare(const Copy& copy, std::uint32_t first_block, Job& job) {
  if (copy.elements >= std::int64_t(1) << 31)
    throw std::invalid_argument("conv2d: more than 2^31 elements to pack at a time");
  const auto small = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
  job.from = static_cast<const Bits*>(copy.from);
  job.to = static_cast<Bits*>(copy.to);
  job.elements = static_cast<std::uint32_t>(copy.elements);
  job.first_block = first_block;
  for (int i = 0; i < 5; ++i) job.size[i] = FastDivide(copy.size[i]);
  for (int i = 0; i < 6; ++i) job.stride[i] = copy.stride[i];
  job.channels = FastDivide(copy.channels > 0 ? copy.channels : copy.size[0]);
  job.origin = copy.origin;
  job.tap_stride = copy.tap_stride;
  job.taps = static_cast<std::uint32_t>(copy.taps);
  job.filters = static_cast<std::uint32_t>(copy.filters > 0 ? copy.filters : copy.size[4]);
  job.column_step = small(copy.column_step);
  job.tap_step = small(copy.tap_step);
  job.pad = small(copy.pad);
  job.width = small(copy.width);
  job.planes = copy.planes;
  job.whole = copy.size[0] % kChunk == 0;
  job.from_chunks = aligned(copy.from);
  job.to_chunks = aligned(copy.to);
  if (copy.planes == Copy::Planes::no) {
    bool runs = job.whole && copy.taps == 1 && copy.stride[0] == 1 && copy.origin % kChunk == 0 &&
                job.channels.divisor % kChunk == 0;
    for (int i = 1; i < 6; ++i) runs = runs && copy.stride[i] % kChunk == 0;
    job.from_chunks = job.from_chunks && runs;
    return ceil_div(copy.elements, std::int64_t(kPackThreads) * kChunk);
  }
  const bool runs = copy.size[2] % kChunk == 0;
  job.from_chunks = job.from_chunks && runs;
  job.to_chunks = job.to_chunks && runs;
  const std::int64_t channel_tiles = ceil_div(copy.size[0] * copy.size[1], kSide),
                     pixel_tiles = ceil_div(copy.size[2], kSide);
  job.channel_tiles = FastDivide(channel_tiles);
  job.pixel_tiles = FastDivide(pixel_tiles);
  return channel_tiles * pixel_tiles * copy.size[4];
}

// With fewer channels, lines of packed pixels are so short that neighbouring threads read neighbouring
// pixels.
constexpr std::int64_t kFewChannels = 32;

}  // namespace

Copy pack_image(Layout layout, std::int64_t n, std::int64_t groups, std::int64_t c, std::int64_t h,
                std::int64_t w, const Row& row, const void* from, void* to) {
  const Strides x = strides(layout, groups * c, h, w);
  const std::int64_t padded = whole_chunks(row.taps * c);
  Copy copy{.from = from, .to = to, .elements = n * h * row.columns * groups * padded};
  copy.channels = c;
  const bool same_columns = row.columns == w && row.taps == 1 && row.stride == 1 && row.pad == 0;
  if (layout == Layout::nchw && same_columns && groups * padded >= kFewChannels) {
    copy.planes = Copy::Planes::from;
    copy.size[0] = padded, copy.size[1] = groups, copy.size[2] = h * w, copy.size[4] = n;
    copy.stride[0] = x.c, copy.stride[4] = x.n;
    return copy;
  }
  const std::int64_t size[] = {padded, groups, row.columns, h, n, 1};
  const std::int64_t stride[] = {x.c, c * x.c, row.stride * x.w, x.h, x.n, 0};
  std::copy_n(size, 6, copy.size);
  std::copy_n(stride, 6, copy.stride);
  copy.origin = -row.pad * x.w;
  copy.taps = row.taps;
  copy.tap_stride = row.dilation * x.w;
  copy.column_step = row.stride;
  copy.tap_step = row.dilation;
  copy.pad = row.pad;
  copy.width = w;
  return copy;
}

Copy pack_filter(Layout layout, std::int64_t groups, std::int64_t k, std::int64_t c, std::int64_t r,
                 std::int64_t s, bool rows, const void* from, void* to) {
  const Strides w = strides(layout, c, r, s);
  const std::int64_t taps = rows ? s : 1, columns = rows ? 1 : s, padded = whole_chunks(taps * c);
  const std::int64_t size[] = {padded, 1, columns, r, whole_chunks(k), groups};
  const std::int64_t stride[] = {w.c, 0, w.w, w.h, w.n, k * w.n};
  Copy copy{.from = from, .to = to, .elements = size[5] * size[4] * r * columns * padded};
  std::copy_n(size, 6, copy.size);
  std::copy_n(stride, 6, copy.stride);
  copy.channels = c;
  copy.taps = taps;
  copy.tap_stride = w.w;
  copy.filters = k;
  return copy;
}

Copy unpack_image(Layout layout, std::int64_t n, std::int64_t groups, std::int64_t c, std::int64_t h,
                  std::int64_t w, const void* from, void* to) {
  const std::int64_t padded = whole_chunks(c), pixels = h * w, whole = groups * padded;
  Copy copy{.from = from, .to = to, .elements = n * pixels * groups * c};
  copy.size[4] = n;
  if (layout == Layout::nchw && whole >= kFewChannels) {
    copy.planes = Copy::Planes::to;
    copy.channels = c;
    copy.size[0] = padded, copy.size[1] = groups, copy.size[2] = pixels;
    copy.stride[0] = pixels, copy.stride[4] = groups * c * pixels;
    return copy;
  }
  copy.stride[4] = pixels * whole;
  if (layout == Layout::nhwc) {
    copy.size[0] = c, copy.size[1] = groups, copy.size[2] = pixels;
    copy.stride[0] = 1, copy.stride[1] = padded, copy.stride[2] = whole;
  } else {
    copy.size[0] = pixels, copy.size[1] = c, copy.size[2] = groups;
    copy.stride[0] = whole, copy.stride[1] = 1, copy.stride[2] = padded;
  }
  return copy;
}

Copy unpack_filter(Layout layout, std::int64_t groups, std::int64_t k, std::int64_t c, std::int64_t r,
                   std::int64_t s, bool rows, const void* from, void* to) {
  const std::int64_t tap = rows ? c : whole_chunks(c), row = rows ? whole_chunks(s * c) : s * tap;
  Copy copy{.from = from, .to = to, .elements = groups * k * r * s * c};
  copy.size[4] = k;
  copy.stride[4] = r * row;
  copy.stride[5] = whole_chunks(k) * r * row;
  if (layout == Layout::nhwc) {
    copy.size[0] = c, copy.size[1] = s, copy.size[3] = r;
    copy.stride[0] = 1, copy.stride[1] = tap, copy.stride[3] = row;
  } else {
    copy.size[0] = s, copy.size[1] = r, copy.size[3] = c;
    copy.stride[0] = tap, copy.stride[1] = row, copy.stride[3] = 1;
  }
  return copy;
}

void launch_copies(const Copies& copies, std::uintptr_t stream) {
  if (copies.count == 0) return;
  Jobs jobs{};  // all of them are passed, also those behind the last
  jobs.count = copies.count;
  std::int64_t blocks = 0;
  for (int i = 0; i < copies.count; ++i)
    blocks += prepare(copies.copy[i], static_cast<std::uint32_t>(blocks), jobs.job[i]);
  launch(pack, Launch{dim3(static_cast<unsigned>(blocks)), dim3(kPackThreads), 0, stream}, jobs);
}

}  // namespace cnnkernels::conv
