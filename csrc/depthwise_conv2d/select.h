// Which accesses, chunk and block serve a problem: a pure function of it, on the host, the same on every GPU.
//
// What must not depend on the batch is each result's order of summation. In forward and backward_input it
// follows from `vector` and `chunk` alone, and those from the layer; so the block may be chosen by the batch.
#pragma once

#include <algorithm>

#include "../common/types.h"
#include "correlate.h"
#include "weight_gradient.h"

namespace cnnkernels::depthwise_conv2d {

inline constexpr int kChunks[] = {3, 5, 7};
inline constexpr std::int64_t kWantedBlocks = 264;  // two for each SM of about one GPU of the H200's size
inline constexpr std::int64_t kWorkspaceLimit = std::int64_t(256) << 20;

inline int element_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

inline bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes == 0;
}

// NHWC moves 16 bytes of channels at once where result and source have the same channels, in whole vectors.
inline bool can_vectorize(const Problem& problem) {
  const Conv2dGeometry& g = problem.geometry;
  return problem.layout == Layout::nhwc && g.k == g.c &&
         g.c % (kVectorBytes / element_bytes(problem.dtype)) == 0;
}

// Kernels are compiled for the shapes in use: 7 taps at once for 16-bit types and a stride of 1, 5 for all
// but fp64, which is bound by arithmetic whatever is read twice. A kind of kernels goes to `widest`.
inline bool chunk_exists(int chunk, const Axis& a, DType dtype, int widest) {
  const int bytes = element_bytes(dtype);
  return chunk <= widest &&
         (chunk == 3 || (chunk == 5 && bytes <= 4) || (chunk == 7 && bytes == 2 && a.stride == 1));
}

// Single elements of global memory have the narrowest chunk alone: they are the way of few shapes.
inline int widest_chunk(Direction direction, const Plan& plan) {
  return direction == Direction::backward_weight || plan.vector > 1 || plan.slab ? 7 : 3;
}

// Are a strip's reads known at compile time? backward_weight reads as forward does.
inline bool can_chunk(int chunk, const Axis& a, DType dtype, int widest) {
  return chunk_exists(chunk, a, dtype, widest) && chunk <= a.taps && a.dilation == 1 &&
         (a.transposed ? a.stride == 2 : a.stride <= 2);
}

// The elements that a strip reads for one line of taps, by the kernel with a chunk.
inline int reads_of(const Axis& a, int vector, int chunk) {
  const int strip = strip_of(vector, chunk, a);
  if (chunk == 0) return a.taps * strip;
  const int window = a.transposed ? BackwardByTwo::window(strip, chunk) : (strip - 1) * a.stride + chunk;
  const int whole = a.transposed ? 1 : a.taps / chunk;
  return whole * window + (a.taps - whole * chunk) * strip;
}

// The chunk with which a result's line of taps reads least, 0 where none can serve.
inline int chunk_for(const Axis& a, int vector, DType dtype, int widest) {
  int best = 0;
  for (const int chunk : kChunks) {
    if (can_chunk(chunk, a, dtype, widest) && reads_of(a, vector, chunk) * strip_of(vector, best, a) <
                                                  reads_of(a, vector, best) * strip_of(vector, chunk, a))
      best = chunk;
  }
  return best;
}

// At most `most` of `total`, in parts as equal as can be.
inline int share(std::int64_t total, std::int64_t most) {
  const std::int64_t part = std::clamp<std::int64_t>(total, 1, std::max<std::int64_t>(most, 1));
  return static_cast<int>(ceil_div(total, ceil_div(total, part)));
}

// Blocks near to square, so that little is read twice, and small enough to fill a GPU.
inline void choose_block(Plan& plan, const Problem& problem, const Correlation& c) {
  const std::int64_t channels = c.channels.divisor;
  const bool nhwc = problem.layout == Layout::nhwc;
  const std::int64_t lanes = nhwc ? ceil_div(channels, plan.vector) : 1;
  const std::int64_t images = nhwc ? problem.geometry.n : problem.geometry.n * channels;
  const std::int64_t strips = strips_along(c.a, plan), lines = c.b.result_size;
  const double threads = double(lanes) * double(images) * double(strips) * double(lines);
  std::int64_t room = threads >= double(kWantedBlocks * kThreads) ? kThreads
                      : threads >= kWantedBlocks * 128.0          ? 128
                                                                  : 64;
  const auto take = [&](std::int64_t total, std::int64_t most) {
    const int taken = share(total, std::min(most, room));
    room /= taken;
    return taken;
  };
  if (plan.vector > 1) {
    const int strip = strip_of(plan.vector, plan.chunk, c.a);
    plan.lanes = take(lanes, strip);  // 64 or 128 bytes of a pixel: whole sectors, and room for pixels beside
    plan.strips = take(strips, 16 / strip);
    plan.lines = take(lines, kThreads);
  } else {
    plan.lanes = take(lanes, 32);
    plan.lines = take(lines, nhwc ? 8 : kThreads);
    plan.strips = take(strips, kThreads);
  }
  plan.images = take(images, kThreads);
}

// NCHW goes through shared memory in slabs where each channel has one filter and a strip of rows fits.
inline bool can_slab(const Problem& problem, const Correlation& c, const Plan& plan) {
  return problem.layout == Layout::nchw && problem.geometry.k == problem.geometry.c &&
         std::int64_t(plan.images) * c.a.taps * c.b.taps * 8 <= kBatchBytes &&
         slab_memory(c, plan, element_bytes(problem.dtype)).bytes <= kSlabBytes;
}

// Whole planes while they are small, else whole rows of one: two items for each thread where that fills a
// GPU.
inline void choose_slab(Plan& plan, const Problem& problem, const Correlation& c) {
  Plan slab;
  slab.slab = true;
  slab.chunk = chunk_for(c.a, 1, problem.dtype, 7);
  const std::int64_t planes = problem.geometry.n * problem.geometry.k, strips = strips_along(c.a, slab);
  const std::int64_t items = strips * c.b.result_size;  // of a plane
  const std::int64_t wanted = std::clamp<std::int64_t>(planes * items / kWantedBlocks, 64, 2 * kThreads);
  slab.images = items <= wanted ? share(planes, wanted / items) : 1;
  slab.strips = items <= wanted ? static_cast<int>(strips) : share(strips, wanted / c.b.result_size);
  while (slab.images > 1 && !can_slab(problem, c, slab)) slab.images = (slab.images + 1) / 2;
  while (slab.strips > 1 && !can_slab(problem, c, slab)) slab.strips = (slab.strips + 1) / 2;
  if (!can_slab(problem, c, slab)) return;
  const std::int64_t threads = ceil_div(std::int64_t(slab.strips) * slab.images * c.b.result_size, 2);
  slab.workers = static_cast<int>(std::min<std::int64_t>(ceil_div(threads, 32) * 32, kThreads));
  plan = slab;
}

// `along_row` of the views and axes follows from the access.
inline Correlation correlation_of(Direction direction, const Problem& problem, int vector) {
  return direction == Direction::forward ? forward_correlation(problem, vector > 1)
                                         : backward_input_correlation(problem, vector > 1);
}

// As many blocks as fill a GPU twice, each with enough to do, their sums within the workspace's limit.
inline void choose_splits(Plan& plan, const Problem& problem, const WeightGradient& w) {
  constexpr std::int64_t kLeast = 4;  // strips a thread should have
  const bool nhwc = problem.layout == Layout::nhwc;
  const std::int64_t positions = w.positions(), tiles = w.tiles(plan),
                     lanes = ceil_div(w.channels, plan.vector);
  if (nhwc) {
    plan.lanes = share(lanes, plan.vector > 1 ? 8 : 32);
    plan.tiles = share(tiles, kThreads / plan.lanes / 4);
    plan.workers = share(positions, kThreads / plan.lanes / plan.tiles);
  } else {
    plan.workers = share(ceil_div(positions, kLeast), kThreads);
    plan.lanes = share(lanes, std::min(32, kThreads / plan.workers));
    plan.tiles = share(tiles, kThreads / plan.workers / plan.lanes);
  }
  const std::int64_t blocks = ceil_div(lanes, plan.lanes) * ceil_div(tiles, plan.tiles);
  const std::int64_t wanted = ceil_div(2 * kWantedBlocks, blocks);
  const std::int64_t useful = ceil_div(positions, plan.workers * kLeast);
  const std::int64_t affordable = kWorkspaceLimit / (w.channels * w.taps.size * 8);
  plan.splits = static_cast<int>(std::max<std::int64_t>(1, std::min({wanted, useful, affordable})));
}

// The chunk that covers a line of taps with the fewest tiles, the narrowest of those; 0 where none can serve.
inline int weight_chunk_for(const Axis& a, DType dtype) {
  int best = 0;
  for (const int chunk : kChunks) {
    if (!can_chunk(chunk, a, dtype, 7)) continue;
    if (best == 0 || ceil_div(a.taps, chunk) < ceil_div(a.taps, best)) best = chunk;
  }
  return best;
}

inline Plan select(Direction direction, const Problem& problem, bool may_vectorize) {
  Plan plan;
  if (may_vectorize && can_vectorize(problem)) plan.vector = kVectorBytes / element_bytes(problem.dtype);
  if (direction == Direction::backward_weight) {
    const WeightGradient w = weight_gradient(problem, plan.vector > 1);
    plan.chunk = weight_chunk_for(w.a, problem.dtype);
    choose_splits(plan, problem, w);
  } else {
    const Correlation c = correlation_of(direction, problem, plan.vector);
    plan.chunk = chunk_for(c.a, plan.vector, problem.dtype, widest_chunk(direction, plan));
    choose_block(plan, problem, c);
    if (may_vectorize) choose_slab(plan, problem, c);
  }
  return plan;
}

// A plan that came from outside is refused, with the reason, where it cannot serve.
inline void validate(Direction direction, const Plan& plan, const Problem& problem, bool may_vectorize) {
  const auto refuse = [&](const char* why) {
    throw std::invalid_argument("depthwise_conv2d: the plan '" + describe(plan) +
                                "' cannot serve this problem: " + why);
  };
  const int vector = kVectorBytes / element_bytes(problem.dtype);
  if (plan.vector != 1 && plan.vector != vector) refuse("vector is 1 or 16 bytes");
  if (plan.vector != 1 && !(may_vectorize && can_vectorize(problem)))
    refuse("its tensors cannot be accessed 16 bytes of channels at a time");
  const bool correlates = direction != Direction::backward_weight;
  const Axis a = correlates ? correlation_of(direction, problem, plan.vector).a
                            : weight_gradient(problem, plan.vector > 1).a;
  if (plan.chunk != 0 && !can_chunk(plan.chunk, a, problem.dtype, widest_chunk(direction, plan)))
    refuse("a chunk needs as many taps, dilation 1, a stride of 1 or 2, and a kernel for the type");
  const int extents[] = {plan.lanes, plan.strips,  plan.lines, plan.images,
                         plan.tiles, plan.workers, plan.splits};
  for (const int extent : extents)
    if (extent < 1 || extent > (1 << 20)) refuse("its extents must be at least 1");
  const std::int64_t threads = plan.slab ? plan.workers
                               : correlates
                                   ? std::int64_t(plan.lanes) * plan.strips * plan.lines * plan.images
                                   : std::int64_t(plan.lanes) * plan.tiles * plan.workers;
  if (threads > kThreads) refuse("a block has at most 256 threads");
  if (plan.slab) {
    if (!correlates || !may_vectorize) refuse("a slab is copied 16 bytes at a time, forward or to the input");
    const Correlation c = correlation_of(direction, problem, plan.vector);
    if (!can_slab(problem, c, plan)) refuse("a slab is NCHW's, of one filter a channel, and 48 KB at most");
    if (plan.images > 1 && plan.strips < strips_along(c.a, plan)) refuse("only whole planes lie together");
  }
  if (problem.layout == Layout::nchw && correlates && plan.lanes != 1)
    refuse("planes are images: lanes must be 1");
}

inline Plan decide(Direction direction, const Problem& problem, bool may_vectorize, const Plan* asked) {
  if (asked == nullptr) return select(direction, problem, may_vectorize);
  validate(direction, *asked, problem, may_vectorize);
  return *asked;
}

// Runs forward or backward_input; `asked` null: by the selection's plan.
inline void correlate(Direction direction, const Problem& problem, const CorrelationPointers& pointers,
                      std::uintptr_t stream, const Plan* asked) {
  const bool may_vectorize = aligned(pointers.source) && aligned(pointers.result);
  const Plan plan = decide(direction, problem, may_vectorize, asked);
  const Correlation correlation = correlation_of(direction, problem, plan.vector);
  dispatch_floating(problem.dtype, [&](auto zero) {
    using T = decltype(zero);
    plan.slab ? launch_slab<T>(correlation, plan, pointers, stream)
              : launch_correlation<T>(correlation, plan, pointers, stream);
  });
}

}  // namespace cnnkernels::depthwise_conv2d
