// Which accesses, chunk and block serve a problem: a pure function of it, on the host, the same on every GPU.
//
// What must not depend on the batch is each result's order of summation. In forward and backward_input it
// follows from `vector`, `chunk` and `band` alone, and those from the layer; so the block may be chosen by
// the batch.
#pragma once

#include <algorithm>
#include <stdexcept>

#include "../common/types.h"
#include "correlate.h"
#include "describe.h"
#include "../common/giving_way.h"
#include "select_band.h"
#include "slab.h"
#include "weight_gradient.h"

namespace cnnkernels::depthwise_conv {

inline constexpr int kChunks[] = {3, 5, 7};
inline constexpr std::int64_t kSlabLanes = 64;  // channels of NHWC beside each other in a slab

inline int element_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

inline bool aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes == 0;
}

// NHWC moves 16 bytes of channels at once where result and source have the same channels, in whole vectors.
inline bool can_vectorize(const Problem& problem) {
  const ConvGeometry& g = problem.geometry;
  return problem.layout == Layout::nhwc && g.k == g.c &&
         g.c % (kVectorBytes / element_bytes(problem.dtype)) == 0;
}

// Are a strip's reads known at compile time? Kernels are compiled for the shapes in use: 7 taps at once for
// 16-bit types and a stride of 1, 5 for all but fp64, which is bound by arithmetic whatever is read twice,
// and none for single elements of global memory, the way of few shapes. backward_weight reads as forward
// does.
inline bool can_chunk(int chunk, const Axis& a, DType dtype, const Plan& plan) {
  const int bytes = element_bytes(dtype);
  const bool exists = chunk == 3 || (chunk == 5 && bytes <= 4) || (chunk == 7 && bytes == 2 && a.stride == 1);
  return exists && (plan.vector > 1 || plan.slab) && chunk <= a.taps && a.dilation == 1 &&
         (a.transposed ? a.stride == 2 : a.stride <= 2);
}

inline bool can_chunk_slab(int chunk, const Correlation& c) {
  return slab_columns(chunk) || is_square(c, chunk);
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
inline int chunk_for(const Correlation& c, DType dtype, const Plan& plan) {
  const Axis& a = c.a;
  int best = 0;
  const auto cost = [&](int chunk) {
    return double(reads_of(a, plan.vector, chunk)) / strip_of(plan.vector, chunk, a);
  };
  for (const int chunk : kChunks) {
    if (plan.slab && !can_chunk_slab(chunk, c)) continue;
    if (can_chunk(chunk, a, dtype, plan) && cost(chunk) < cost(best)) best = chunk;
  }
  return best;
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

// Can a block hold such a slab? `limit` is its shared memory.
inline bool can_slab(const Correlation& c, const Plan& plan, DType dtype, std::int64_t limit) {
  const Slab slab = slab_of(c, plan, element_bytes(dtype));
  return slab.source_at <= kBatchBytes && slab.bytes <= limit;
}

// About so many items for each block that some 264 blocks have them, within bounds.
inline std::int64_t items_of_a_block(double items, std::int64_t most) {
  return static_cast<std::int64_t>(std::clamp(items / kWantedBlocks, 64.0, double(most)));
}

// Makes a slab's box smaller until `fits`: rows, then columns, then groups; of NCHW groups first, which come
// only as whole planes. Returns whether it fits.
template <class Fits>
bool shrink(int& groups, int& strips, int& columns, bool planes, Fits&& fits) {
  const auto halve = [](int& extent) { extent = (extent + 1) / 2; };
  while (!fits()) {
    if (planes && groups > 1)
      halve(groups);
    else if (strips > 1)
      halve(strips);
    else if (columns > 8)
      halve(columns);
    else if (groups > 8)
      halve(groups);
    else if (columns > 1)
      halve(columns);
    else if (groups > 1)
      halve(groups);
    else
      return false;
  }
  return true;
}

// NHWC: channels side by side, then columns, then rows. NCHW: whole planes while they are small, else whole
// rows of one. An item is a strip of one unit; each thread has about two. False where no slab can serve.
inline bool choose_slab(Plan& plan, const Problem& problem, const Correlation& c) {
  Plan slab;
  slab.slab = true;
  slab.chunk = chunk_for(c, problem.dtype, slab);
  const ConvGeometry& g = problem.geometry;
  const bool nhwc = c.channels_last;
  const std::int64_t strips = strips_along(c.a, slab), columns = c.b.result_size, each = c.multiplier.divisor;
  const double items = double(strips) * double(columns) * double(g.n) * double(c.channels.divisor);
  std::int64_t room = items_of_a_block(items, (nhwc ? 4 : 2) * kThreads);
  int& groups = nhwc ? slab.lanes : slab.images;
  const auto take = [&](std::int64_t total) {
    const int taken = share(total, room);
    room /= taken;
    return taken;
  };
  if (nhwc) {
    groups = share(g.c, std::min(room, kSlabLanes) / (g.k / g.c));
    room /= groups * each;
    slab.lines = take(columns);
    slab.strips = take(strips);
  } else {
    slab.lines = static_cast<int>(columns);
    room /= columns;
    slab.strips = take(strips);
    if (slab.strips == strips) groups = share(g.n * g.c, room / each);
  }
  for (const std::int64_t limit : {kSlabBytes, kLargeSlabBytes}) {
    Plan smaller = slab;
    if (!shrink(nhwc ? smaller.lanes : smaller.images, smaller.strips, smaller.lines, !nhwc,
                [&] { return can_slab(c, smaller, problem.dtype, limit); }))
      continue;
    const std::int64_t units = (nhwc ? smaller.lanes : smaller.images) * each;
    const std::int64_t threads = ceil_div(units * smaller.strips * smaller.lines, 2);
    smaller.workers = static_cast<int>(std::min<std::int64_t>(ceil_div(threads, 32) * 32, kThreads));
    plan = smaller;
    return true;
  }
  return false;
}

// `along_row` of the views and axes follows from the access.
inline Correlation correlation_of(Direction direction, const Problem& problem, int vector) {
  return direction == Direction::forward ? forward_correlation(problem, vector > 1)
                                         : backward_input_correlation(problem, vector > 1);
}

// The chunk that covers a line of taps with the fewest tiles, the narrowest of those; 0 where none can serve.
inline int weight_chunk_for(const Axis& a, DType dtype, const Plan& plan) {
  int best = 0;
  for (const int chunk : kChunks) {
    if (!can_chunk(chunk, a, dtype, plan)) continue;
    if (best == 0 || ceil_div(a.taps, chunk) < ceil_div(a.taps, best)) best = chunk;
  }
  return best;
}

// As many blocks as fill a GPU twice, each with enough to do, their sums within the workspace's limit.
inline void choose_splits(Plan& plan, const WeightGradient& w, std::int64_t useful) {
  const std::int64_t blocks =
      ceil_div(w.channels, w.threads_lanes(plan) * plan.vector) * ceil_div(w.tiles(plan), plan.tiles);
  const std::int64_t wanted = ceil_div(2 * kWantedBlocks, blocks);
  const std::int64_t affordable = kWorkspaceLimit / (w.channels * w.taps.size * 8);
  plan.splits = static_cast<int>(std::max<std::int64_t>(1, std::min({wanted, useful, affordable})));
}

// Threads for `lanes` beside each other: tiles, but for four workers each, which share `positions`.
inline void choose_workers(Plan& plan, const WeightGradient& w, std::int64_t lanes, std::int64_t positions) {
  plan.tiles = share(w.tiles(plan), kThreads / lanes / 4);
  plan.workers = share(positions, kThreads / lanes / plan.tiles);
}

inline void choose_shares(Plan& plan, const WeightGradient& w) {
  constexpr std::int64_t kLeast = 4;  // strips a thread should have
  plan.lanes = share(ceil_div(w.channels, plan.vector), plan.vector > 1 || !w.channels_last ? 8 : 32);
  choose_workers(plan, w, plan.lanes, w.positions());
  choose_splits(plan, w, ceil_div(w.positions(), plan.workers * kLeast));
}

inline bool can_slab(const WeightGradient& w, const Plan& plan, DType dtype, std::int64_t limit) {
  return w.threads_lanes(plan) <= kThreads && boxes_of(w, plan, element_bytes(dtype)).bytes <= limit;
}

// Can a block hold its sums? What select() plans takes at most 90 KB: 64 lanes and tiles of 4 workers each.
inline bool can_sum(const WeightGradient& w, const Plan& plan, DType dtype) {
  return bytes_of_sums(w, plan, dtype == DType::float64 ? 8 : 4) <= kLargeSlabBytes;
}

// Boxes of about 512 positions and filters; of NCHW several whole planes where they are small.
inline bool choose_boxes(Plan& plan, const Problem& problem, const WeightGradient& w) {
  Plan slab;
  slab.slab = true;
  slab.chunk = weight_chunk_for(w.a, problem.dtype, slab);
  const std::int64_t strips = w.strips.divisor, columns = w.b.result_size, each = w.multiplier.divisor;
  std::int64_t room = 2 * kThreads;
  if (w.channels_last) {
    slab.lanes = share(w.channels / each, 32 / each);
    room /= slab.lanes * each;
    slab.lines = share(columns, std::max<std::int64_t>(room, 8));
    slab.strips = share(strips, room / slab.lines);
  } else {
    slab.lines = static_cast<int>(columns);
    slab.strips = share(strips, room / columns);
    if (slab.strips == strips)
      slab.lanes = share(w.channels / each, std::min<std::int64_t>(32, room / (strips * columns)) / each);
  }
  for (const std::int64_t limit : {kSlabBytes, kLargeSlabBytes}) {
    Plan smaller = slab;
    if (!shrink(smaller.lanes, smaller.strips, smaller.lines, !w.channels_last,
                [&] { return can_slab(w, smaller, problem.dtype, limit); }))
      continue;
    choose_workers(smaller, w, w.threads_lanes(smaller), std::int64_t(smaller.strips) * smaller.lines);
    choose_splits(smaller, w, w.rounds(smaller));
    plan = smaller;
    return true;
  }
  return false;
}

inline Plan select(Direction direction, const Problem& problem, bool may_vectorize) {
  Plan plan;
  const bool bands = !gave_way(Yielding::depthwise_band, static_cast<int>(direction), problem.dtype);
  if (may_vectorize && can_vectorize(problem)) plan.vector = kVectorBytes / element_bytes(problem.dtype);
  if (direction == Direction::backward_weight) {
    if (bands && choose_band(plan, problem, weight_gradient(problem, false))) return plan;
    const WeightGradient w = weight_gradient(problem, plan.vector > 1);
    if (plan.vector == 1 && choose_boxes(plan, problem, w)) return plan;
    plan.chunk = weight_chunk_for(w.a, problem.dtype, plan);
    choose_shares(plan, w);
  } else {
    if (bands && choose_band(plan, problem, correlation_of(direction, problem, 1))) return plan;
    const Correlation c = correlation_of(direction, problem, plan.vector);
    if (plan.vector == 1 && choose_slab(plan, problem, c)) return plan;
    plan.chunk = chunk_for(c, problem.dtype, plan);
    choose_block(plan, problem, c);
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
  if (plan.chunk != 0 && !can_chunk(plan.chunk, a, problem.dtype, plan))
    refuse("a chunk needs as many taps, dilation 1, a stride of 1 or 2, and a kernel for the type");
  const int extents[] = {plan.lanes, plan.strips,  plan.lines, plan.images,
                         plan.tiles, plan.workers, plan.splits};
  for (const int extent : extents)
    if (extent < 1 || extent > (1 << 20)) refuse("its extents must be at least 1");
  if (plan.band) {
    if (!has_bands(problem))
      refuse("bands are of 16-bit types, one filter a channel, strides and dilations of 1");
    const bool can = correlates ? can_band(correlation_of(direction, problem, 1), plan)
                                : can_band(weight_gradient(problem, false), plan);
    if (plan.vector != 1 || plan.chunk != 0 || plan.slab || !can)
      refuse("bands are of 10 to 41 taps, 1, 2, 4 or 7 tiles, 8 warps and 96 KB at most");
    return;
  }
  const std::int64_t threads =
      !correlates ? weight_gradient(problem, plan.vector > 1).threads_lanes(plan) * plan.tiles * plan.workers
      : plan.slab ? plan.workers
                  : std::int64_t(plan.lanes) * plan.strips * plan.lines * plan.images;
  if (threads > kThreads) refuse("a block has at most 256 threads");
  if (!correlates && !can_sum(weight_gradient(problem, plan.vector > 1), plan, problem.dtype))
    refuse("its workers' sums take more than 96 KB of shared memory");
  if (plan.slab) {
    if (plan.vector != 1) refuse("slabs are read element by element");
    if (correlates && !can_chunk_slab(plan.chunk, correlation_of(direction, problem, 1)))
      refuse("a slab has chunks of 5 and 7 for 5 x 5 and 7 x 7 filters alone");
    const bool can =
        correlates ? can_slab(correlation_of(direction, problem, 1), plan, problem.dtype, kLargeSlabBytes)
                   : can_slab(weight_gradient(problem, false), plan, problem.dtype, kLargeSlabBytes);
    if (!can) refuse("a slab has 96 KB at most, with 24 KB of filters");
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
    if constexpr (sizeof(T) == 2) {
      if (plan.band) return launch_band<T>(correlation, plan, pointers, stream);
    }
    plan.slab ? launch_slab<T>(correlation, plan, pointers, stream)
              : launch_correlation<T>(correlation, plan, pointers, stream);
  });
}

}  // namespace cnnkernels::depthwise_conv
