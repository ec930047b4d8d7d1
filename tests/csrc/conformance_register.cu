// Conformance of the primitives that work on registers: conversions, mma.sync, ldmatrix, stmatrix.
#include <stdexcept>

#include "common/launch.h"
#include "ptx/convert.cuh"
#include "ptx/ldmatrix.cuh"
#include "ptx/mma.cuh"
#include "format.h"
#include "registry.h"

namespace cnnkernels {
namespace {

enum class Conversion : int {
  float16_to_float,
  float_to_float16,
  bfloat16_to_float,
  float_to_bfloat16,
  float_to_tf32
};

// 32-bit words; a 16-bit value is the low half of one.
CNN_KERNEL(128, 1) convert_kernel(int conversion, const void* in, void* out, std::int64_t count) {
  const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float* from = static_cast<const float*>(in);
  const auto half = static_cast<std::uint16_t>(static_cast<const std::uint32_t*>(in)[i]);
  auto* bits = static_cast<std::uint32_t*>(out);
  auto* value = static_cast<float*>(out);
  switch (static_cast<Conversion>(conversion)) {
    case Conversion::float16_to_float:
      value[i] = float16_to_float({half});
      break;
    case Conversion::float_to_float16:
      bits[i] = float_to_float16(from[i]).bits;
      break;
    case Conversion::bfloat16_to_float:
      value[i] = bfloat16_to_float({half});
      break;
    case Conversion::float_to_bfloat16:
      bits[i] = float_to_bfloat16(from[i]).bits;
      break;
    case Conversion::float_to_tf32:
      bits[i] = float_to_tf32(from[i]);
      break;
  }
}

template <class In, int MT, int NT>
CNN_KERNEL(32, 1)
mma_kernel(const typename Mma<In>::Operand* a, const typename Mma<In>::Operand* b,
           typename Mma<In>::Accumulator* d) {
  using M = Mma<In>;
  typename M::Operand left[MT][M::a], right[NT][M::b];
  typename M::Accumulator sum[MT][NT][M::d];
#pragma unroll
  for (int i = 0; i < MT * M::a; ++i)
    left[i / M::a][i % M::a] = a[(i / M::a * 32 + threadIdx.x) * M::a + i % M::a];
#pragma unroll
  for (int i = 0; i < NT * M::b; ++i)
    right[i / M::b][i % M::b] = b[(i / M::b * 32 + threadIdx.x) * M::b + i % M::b];
#pragma unroll
  for (int i = 0; i < MT * NT * M::d; ++i) {
    sum[i / M::d / NT][i / M::d % NT][i % M::d] = d[(i / M::d * 32 + threadIdx.x) * M::d + i % M::d];
  }
  mma_tile<In>(sum, left, right);
#pragma unroll
  for (int i = 0; i < MT * NT * M::d; ++i) {
    d[(i / M::d * 32 + threadIdx.x) * M::d + i % M::d] = sum[i / M::d / NT][i / M::d % NT][i % M::d];
  }
}

template <class In, int MT, int NT>
void launch_mma(const tests::Arguments& arguments) {
  using M = Mma<In>;
  launch(mma_kernel<In, MT, NT>, Launch{dim3(1), dim3(32), 0, arguments.stream},
         arguments.pointer<const typename M::Operand>(3), arguments.pointer<const typename M::Operand>(4),
         arguments.pointer<typename M::Accumulator>(5));
}

template <class In>
void launch_mma(const tests::Arguments& arguments) {
  const auto mt = arguments.number(1), nt = arguments.number(2);
  if (mt == 1 && nt == 1) return launch_mma<In, 1, 1>(arguments);
  if (mt == 2 && nt == 3) return launch_mma<In, 2, 3>(arguments);
  if (mt == 4 && nt == 4) return launch_mma<In, 4, 4>(arguments);
  throw std::invalid_argument("no such tile");
}

constexpr int kImage = 4096;

template <int Count, bool Transposed>
CNN_KERNEL(32, 1)
ldmatrix_kernel(const std::uint32_t* image, const int* offsets, std::uint32_t* registers) {
  CNN_DYNAMIC_SHARED(shared);
  for (int i = threadIdx.x; i < kImage / 4; i += 32) reinterpret_cast<std::uint32_t*>(shared)[i] = image[i];
  __syncthreads();
  std::uint32_t held[Count];
  const unsigned char* row = shared + offsets[threadIdx.x];
  if constexpr (Count == 1 && !Transposed) ldmatrix_x1(held, row);
  if constexpr (Count == 2 && !Transposed) ldmatrix_x2(held, row);
  if constexpr (Count == 4 && !Transposed) ldmatrix_x4(held, row);
  if constexpr (Count == 1 && Transposed) ldmatrix_x1_trans(held, row);
  if constexpr (Count == 2 && Transposed) ldmatrix_x2_trans(held, row);
  if constexpr (Count == 4 && Transposed) ldmatrix_x4_trans(held, row);
  for (int i = 0; i < Count; ++i) registers[threadIdx.x * Count + i] = held[i];
}

template <int Count, bool Transposed>
CNN_KERNEL(32, 1)
stmatrix_kernel(std::uint32_t* image, const int* offsets, const std::uint32_t* registers) {
#if CNN_SM90A
  CNN_DYNAMIC_SHARED(shared);
  for (int i = threadIdx.x; i < kImage / 4; i += 32) reinterpret_cast<std::uint32_t*>(shared)[i] = image[i];
  __syncthreads();
  std::uint32_t held[Count];
  for (int i = 0; i < Count; ++i) held[i] = registers[threadIdx.x * Count + i];
  unsigned char* row = shared + offsets[threadIdx.x];
  if constexpr (Count == 1 && !Transposed) stmatrix_x1(row, held);
  if constexpr (Count == 2 && !Transposed) stmatrix_x2(row, held);
  if constexpr (Count == 4 && !Transposed) stmatrix_x4(row, held);
  if constexpr (Count == 1 && Transposed) stmatrix_x1_trans(row, held);
  if constexpr (Count == 2 && Transposed) stmatrix_x2_trans(row, held);
  if constexpr (Count == 4 && Transposed) stmatrix_x4_trans(row, held);
  __syncthreads();
  for (int i = threadIdx.x; i < kImage / 4; i += 32) image[i] = reinterpret_cast<std::uint32_t*>(shared)[i];
#else
  left_out();
#endif
}

// body(integral constants Count and Transposed)
template <class Body>
void with_matrices(std::int64_t count, bool transposed, Body body) {
  const auto either = [&](auto c) {
    return transposed ? body(c, std::true_type{}) : body(c, std::false_type{});
  };
  if (count == 1) return either(std::integral_constant<int, 1>{});
  if (count == 2) return either(std::integral_constant<int, 2>{});
  if (count == 4) return either(std::integral_constant<int, 4>{});
  throw std::invalid_argument("ldmatrix moves 1, 2 or 4 matrices");
}

}  // namespace

// conversion, in, out, count
CNN_TEST(convert) {
  const auto count = arguments.number(3);
  launch(convert_kernel, Launch{dim3(unsigned((count + 127) / 128)), dim3(128), 0, arguments.stream},
         int(arguments.number(0)), arguments.pointer<const void>(1), arguments.pointer<void>(2), count);
}

// format, mt, nt, a, b, d: d [mt][nt][32 lanes][..] += a [mt][32][..] * b
// [nt][32][..], fragments in, fragments out
CNN_TEST(mma) {
  switch (static_cast<tests::Format>(arguments.number(0))) {
    case tests::Format::float16:
      return launch_mma<float16>(arguments);
    case tests::Format::bfloat16:
      return launch_mma<bfloat16>(arguments);
    case tests::Format::tf32:
      return launch_mma<tf32>(arguments);
    case tests::Format::int8:
      return launch_mma<std::int8_t>(arguments);
    case tests::Format::uint8:
      return launch_mma<std::uint8_t>(arguments);
    case tests::Format::float64:
      return launch_mma<double>(arguments);
  }
}

// count, transposed, image, offsets, registers: lane i names the row at byte offsets[i] of the image
CNN_TEST(ldmatrix) {
  with_matrices(arguments.number(0), arguments.number(1) != 0, [&](auto c, auto t) {
    launch(ldmatrix_kernel<decltype(c)::value, decltype(t)::value>,
           Launch{dim3(1), dim3(32), kImage, arguments.stream}, arguments.pointer<const std::uint32_t>(2),
           arguments.pointer<const int>(3), arguments.pointer<std::uint32_t>(4));
  });
}

CNN_TEST(stmatrix) {
  with_matrices(arguments.number(0), arguments.number(1) != 0, [&](auto c, auto t) {
    launch(stmatrix_kernel<decltype(c)::value, decltype(t)::value>,
           Launch{dim3(1), dim3(32), kImage, arguments.stream}, arguments.pointer<std::uint32_t>(2),
           arguments.pointer<const int>(3), arguments.pointer<const std::uint32_t>(4));
  });
}

}  // namespace cnnkernels
