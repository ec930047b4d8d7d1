// quantize and dequantize: element by element where scales are known, and the ways to find them.
#include <numeric>

#include "../common/geometry.h"
#include "../common/launch.h"
#include "../common/gpu.h"
#include "rows.cuh"

namespace cnnkernels::quantize {
namespace {

// A thread takes a chunk.
template <class T>
CNN_KERNEL(kThreads, 4)
quantize_kernel(const Groups groups, std::int64_t count, std::int32_t low, const Quantization by,
                const T* __restrict__ input, const Written<std::uint8_t> output) {
  const std::int64_t chunk = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t first = output.first_of(chunk);
  if (first >= count) return;
  Kept<T> x[kChunk];
  read_chunk(input, count, first, x);
  auto at = groups.at(first);
  Quantizer quantizer = quantizer_of(scale_at(by, at.group), zero_point_at(by, at.group), low);
  std::uint8_t q[kChunk];
#pragma unroll
  for (int j = 0; j < kChunk; ++j) {
    if (j > 0 && groups.enters(at, j))
      quantizer = quantizer_of(scale_at(by, at.group), zero_point_at(by, at.group), low);
    q[j] = quantizer(value_of(x[j]));
  }
  write_chunk(output, {0, count}, chunk, q);
}

// `shift`: 128 for uint8, which is read as the int8 number 128 below.
template <class T>
CNN_KERNEL(kThreads, 3)
dequantize_kernel(const Groups groups, std::int64_t count, std::int32_t shift, const Quantization by,
                  const std::uint8_t* __restrict__ input, const Written<T> output) {
  const std::int64_t chunk = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t first = output.first_of(chunk);
  if (first >= count) return;
  std::uint8_t q[kChunk];
  read_chunk(input, count, first, q);
  auto at = groups.at(first);
  float scale = scale_at(by, at.group);
  std::int32_t zero_point = zero_point_at(by, at.group) - shift;
  T x[kChunk];
#pragma unroll
  for (int j = 0; j < kChunk; ++j) {
    if (j > 0 && groups.enters(at, j)) {
      scale = scale_at(by, at.group);
      zero_point = zero_point_at(by, at.group) - shift;
    }
    const int number = static_cast<std::int8_t>(q[j] ^ shift);
    x[j] = narrow<T>(__fmul_rn(static_cast<float>(number - zero_point), scale));
  }
  write_chunk(output, {0, count}, chunk, x);
}

Launch blocks(std::int64_t count, unsigned threads, std::uintptr_t stream) {
  if (count > INT32_MAX) throw_invalid_argument("quantize: a tensor of more than 2^31 - 1 blocks");
  return Launch{dim3(static_cast<unsigned>(count)), dim3(threads), 0, stream};
}
Launch a_thread_for_each(std::int64_t count, std::uintptr_t stream) {
  return blocks(ceil_div(count, kThreads), kThreads, stream);
}

std::int64_t count_of(const Grouped& shape) { return shape.outer * shape.groups * shape.inner; }

// One group is one run of memory, however it was cut.
Grouped merged(const Grouped& shape) {
  return shape.groups == 1 ? Grouped{1, 1, shape.outer * shape.inner} : shape;
}

// The most chunks that a run of memory lies in, wherever it begins.
std::int64_t chunks_of_run(std::int64_t length) { return (length + 2 * (kChunk - 1)) / kChunk; }

bool fits_registers(const Grouped& shape) {
  return shape.outer == 1 && chunks_of_run(shape.inner) <= kRowThreads * kRowChunks;
}

template <class T>
void quantize_rows(const Grouped& shape, const T* input, const Written<std::uint8_t>& output, float* scales,
                   std::uintptr_t stream) {
  const bool aligned = output.head == 0 && shape.inner % kChunk == 0;
  const std::int64_t chunks = aligned ? shape.inner / kChunk : chunks_of_run(shape.inner);
  int team = 1;
  while (team * kRowChunks < chunks) team *= 2;
  const int threads = team > kThreads ? team : kThreads;
  launch(&quantize_rows_kernel<T>,
         blocks(ceil_div(shape.groups, threads / team), static_cast<unsigned>(threads), stream), shape.groups,
         shape.inner, team, input, output, scales);
}

// Runs of memory at least as long as a block has chunks leave few of its threads without work.
constexpr std::int64_t kLongRun = kChunk * kThreads / 4;

template <class T>
void find_scales(const Grouped& shape, const Groups& groups, int head, const T* input, float* scales,
                 std::uint32_t* workspace, std::uintptr_t stream) {
  const std::int64_t count = count_of(shape);
  const Maxima maxima{workspace, workspace + shape.groups};
  if (shape.outer == 1 || shape.inner >= kLongRun) {
    const bool whole = shape.outer * shape.groups == 1;
    const std::int64_t chunks = whole ? chunks_of(count, head) : chunks_of_run(shape.inner);
    const std::int64_t pieces = ceil_div(chunks, kPieceChunks);
    launch(&absmax_runs_kernel<T>, blocks(shape.outer * shape.groups * pieces, kThreads, stream), shape.inner,
           groups.count, FastDivide(pieces), FastDivide(shape.groups), count, head, input, maxima, scales);
    return;
  }
  // As many threads as fill the GPU, if so many come round to the same groups, and at least 16 chunks each.
  const std::int64_t round = groups.period() / std::gcd(groups.period(), std::int64_t(kChunk));
  const std::int64_t chunks = chunks_of(count, head);
  const std::int64_t fill = std::int64_t(this_gpu().processors) * 3 * kThreads;
  const std::int64_t wanted = chunks / 16 < fill ? chunks / 16 : fill;
  const std::int64_t step = ceil_div(wanted > 0 ? wanted : 1, round) * round;
  launch(&absmax_columns_kernel<T>, a_thread_for_each(step < chunks ? step : chunks, stream), groups, step,
         count, head, input, maxima, scales);
}

std::int32_t lowest_of(DType to) {
  if (to != DType::int8 && to != DType::uint8) throw_invalid_argument("expected int8 or uint8");
  return to == DType::int8 ? kLowestInt8 : 0;
}

template <class T>
void quantize_by(const Groups& groups, std::int64_t count, std::int32_t low, const Quantization& by,
                 const T* input, const Written<std::uint8_t>& output, std::uintptr_t stream) {
  launch(&quantize_kernel<T>, a_thread_for_each(chunks_of(count, output.head), stream), groups, count, low,
         by, input, output);
}

}  // namespace

void quantize(DType from, DType to, const Grouped& shape, const void* input, void* output,
              const Quantization& by, std::uintptr_t stream, std::int64_t largest_index) {
  const Groups groups(merged(shape), largest_index);
  const std::int32_t low = lowest_of(to);
  dispatch_floating(from, [&](auto t) {
    quantize_by(groups, count_of(shape), low, by, static_cast<const decltype(t)*>(input),
                Written(static_cast<std::uint8_t*>(output)), stream);
  });
}

std::int64_t quantize_dynamic_workspace(const Grouped& shape) {
  const bool rows = fits_registers(merged(shape));
  return rows ? 0 : (shape.groups + 1) * static_cast<std::int64_t>(sizeof(std::uint32_t));
}

void quantize_dynamic(DType from, const Grouped& given, const void* input, void* output, float* scales,
                      void* workspace, std::uintptr_t stream, std::int64_t largest_index) {
  const Grouped shape = merged(given);
  const Written bytes(static_cast<std::uint8_t*>(output));
  dispatch_floating(from, [&](auto t) {
    const auto* x = static_cast<const decltype(t)*>(input);
    if (fits_registers(shape)) return quantize_rows(shape, x, bytes, scales, stream);
    const Groups groups(shape, largest_index);
    find_scales(shape, groups, bytes.head, x, scales, static_cast<std::uint32_t*>(workspace), stream);
    quantize_by(groups, count_of(shape), kLowestInt8, {1, 0, scales, nullptr}, x, bytes, stream);
  });
}

void dequantize(DType from, DType to, const Grouped& shape, const void* input, void* output,
                const Quantization& by, std::uintptr_t stream, std::int64_t largest_index) {
  const Groups groups(merged(shape), largest_index);
  const std::int64_t count = count_of(shape);
  const std::int32_t shift = lowest_of(from) == 0 ? 128 : 0;
  dispatch_floating(to, [&](auto t) {
    const Written y(static_cast<decltype(t)*>(output));
    launch(&dequantize_kernel<decltype(t)>, a_thread_for_each(chunks_of(count, y.head), stream), groups,
           count, shift, by, static_cast<const std::uint8_t*>(input), y);
  });
}

}  // namespace cnnkernels::quantize
