// The epilogue of INT8 products (int8/epilogue.h): four neighbouring columns of a row at a time. What to do
// is data: types, activation and what is absent are looked at once a run, beside thousands of multiply-adds.
#pragma once

#include <type_traits>

#include "../common/activation.h"
#include "epilogue.h"
#include "../common/types.h"
#include "../common/vector.h"

namespace cnnkernels::int8 {

inline constexpr int kRun = 4;  // columns

// clamp(rint(x * inverse) + zero_point) in int8 or uint8, ties to even. A product that is NaN gives the zero
// point: of a NaN, or of 0 * inf where the scale that was inverted is 0 or subnormal.
template <class T>
CNN_DEVICE T quantized(float x, float inverse, std::int32_t zero_point) {
  constexpr int kLow = std::is_same_v<T, std::int8_t> ? -128 : 0;
  const float rounded = rintf(__fmul_rn(x, inverse));
  const auto low = static_cast<float>(kLow - zero_point), high = static_cast<float>(kLow + 255 - zero_point);
  const float inside = rounded < low ? low : rounded > high ? high : rounded;  // infinities, too
  return static_cast<T>((rounded == rounded ? static_cast<std::int32_t>(inside) : 0) + zero_point);
}

// The value of int8 and uint8 numbers.
CNN_DEVICE float dequantized(std::int32_t q, float scale, std::int32_t zero_point) {
  return __fmul_rn(static_cast<float>(q - zero_point), scale);
}

template <class T>
CNN_DEVICE T number_at(const Number<T>& number, std::int64_t index) {
  return number.data == nullptr ? T(number.value) : number.data[index * number.step];
}

// What the epilogue needs of a row, ...
struct Row {
  float scale;
  std::int32_t zero_point;
  std::int32_t centred_sum;  // sum_k (a - zero_point_a)
};

// ... and of four columns.
struct Columns {
  float scale[kRun], bias[kRun];
  std::int32_t zero_point[kRun], sum[kRun];
};

// Integers wrap: what is added and subtracted on the way to a sum that fits may not.
CNN_DEVICE std::int32_t wrapping_subtract(std::int32_t from, std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(from) -
                                   static_cast<std::uint32_t>(a) * static_cast<std::uint32_t>(b));
}

CNN_DEVICE Row row_at(const Epilogue& epilogue, std::int64_t row) {
  Row at{number_at(epilogue.scale_a, row), number_at(epilogue.zero_point_a, row), 0};
  if (epilogue.sums_a != nullptr)
    at.centred_sum = wrapping_subtract(epilogue.sums_a[row], epilogue.depth, at.zero_point);
  return at;
}

// `count` of the four columns from `first` on exist.
CNN_DEVICE Columns columns_at(const Epilogue& epilogue, std::int64_t first, int count) {
  Columns at{};
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    if (i >= count) continue;
    at.scale[i] = number_at(epilogue.scale_b, first + i);
    if (epilogue.bias != nullptr) at.bias[i] = epilogue.bias[first + i];
    if (epilogue.sums_a != nullptr) at.zero_point[i] = number_at(epilogue.zero_point_b, first + i);
    if (epilogue.sums_b != nullptr) at.sum[i] = epilogue.sums_b[first + i];
  }
  return at;
}

// A store of a whole run. The compiler takes a Vector's apart, since another branch stores its elements one
// by one.
#if defined(CNN_INTERPRETER)
template <class T>
void store_whole(T* to, const Vector<T, kRun>& run CNN_SITE) {
  store(to, run, site);
}
#else
template <class T>
CNN_DEVICE void store_whole(T* to, const Vector<T, kRun>& run) {
  using Word =
      std::conditional_t<sizeof(T) == 4, uint4, std::conditional_t<sizeof(T) == 2, uint2, unsigned> >;
  Word word;
  memcpy(&word, &run, sizeof(word));
  __stwb(reinterpret_cast<Word*>(to), word);
}
#endif

// A run of the output or the residual. `vectors`: runs are whole and aligned to their size.
template <class T>
CNN_DEVICE Vector<T, kRun> load_run(const void* from, std::int64_t offset, int count, bool vectors) {
  const T* first = static_cast<const T*>(from) + offset;
  if (vectors) return load<kRun>(first);
  Vector<T, kRun> run{};
#pragma unroll
  for (int i = 0; i < kRun; ++i)
    if (i < count) run[i] = first[i];
  return run;
}

template <class T>
CNN_DEVICE void store_run(void* to, std::int64_t offset, const Vector<T, kRun>& run, int count,
                          bool vectors) {
  T* first = static_cast<T*>(to) + offset;
  if (vectors) return store_whole(first, run);
#pragma unroll
  for (int i = 0; i < kRun; ++i)
    if (i < count) first[i] = run[i];
}

CNN_DEVICE void add_residual(const Epilogue& epilogue, std::int64_t offset, int count, bool vectors,
                             float (&x)[kRun]) {
  const auto add = [&]<class T>(T) {
    const Vector<T, kRun> residual = load_run<T>(epilogue.residual, offset, count, vectors);
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      if constexpr (std::is_integral_v<T>)
        x[i] =
            __fadd_rn(x[i], dequantized(residual[i], epilogue.residual_scale, epilogue.residual_zero_point));
      else
        x[i] = __fadd_rn(x[i], widen(residual[i]));
    }
  };
  switch (epilogue.residual_dtype) {
    case DType::float16:
      return add(float16{});
    case DType::bfloat16:
      return add(bfloat16{});
    case DType::int8:
      return add(std::int8_t{});
    case DType::uint8:
      return add(std::uint8_t{});
    default:
      return add(float{});
  }
}

CNN_DEVICE void store_rounded(const Epilogue& epilogue, void* output, std::int64_t offset, int count,
                              bool vectors, const float (&x)[kRun]) {
  const auto store_as = [&]<class T>(T) {
    Vector<T, kRun> run;
    if constexpr (std::is_integral_v<T>) {
      const float inverse = __fdiv_rn(1.0f, number_at(epilogue.out_scale, 0));
#pragma unroll
      for (int i = 0; i < kRun; ++i) run[i] = quantized<T>(x[i], inverse, epilogue.out_zero_point);
    } else {
#pragma unroll
      for (int i = 0; i < kRun; ++i) run[i] = narrow<T>(x[i]);
    }
    store_run(output, offset, run, count, vectors);
  };
  switch (epilogue.out_dtype) {
    case DType::float16:
      return store_as(float16{});
    case DType::bfloat16:
      return store_as(bfloat16{});
    case DType::int8:
      return store_as(std::int8_t{});
    case DType::uint8:
      return store_as(std::uint8_t{});
    default:
      return store_as(float{});
  }
}

// Are runs of four outputs whole, and aligned in the output and the residual? `columns`: of each group.
inline bool whole_runs(const Epilogue& epilogue, const void* output, std::int64_t columns) {
  const auto aligned = [](const void* pointer, DType dtype) {
    const bool byte = dtype == DType::int8 || dtype == DType::uint8;
    const bool half = dtype == DType::float16 || dtype == DType::bfloat16;
    return reinterpret_cast<std::uintptr_t>(pointer) % (kRun * (byte ? 1 : half ? 2 : 4)) == 0;
  };
  return columns % kRun == 0 && aligned(output, epilogue.out_dtype) &&
         (epilogue.residual == nullptr || aligned(epilogue.residual, epilogue.residual_dtype));
}

// Stores what follows the scales at output + offset, where the residual, too, has its offset. `count` of the
// four exist; `vectors`: always all four, at multiples of four elements.
CNN_DEVICE void finish_scaled(const Epilogue& epilogue, const Columns& columns, float (&x)[kRun],
                              void* output, std::int64_t offset, int count, bool vectors) {
  if (epilogue.bias != nullptr) {  // not where it is absent: -0 + 0 is +0
#pragma unroll
    for (int i = 0; i < kRun; ++i) x[i] = __fadd_rn(x[i], columns.bias[i]);
  }
  if (epilogue.residual != nullptr) add_residual(epilogue, offset, count, vectors, x);
  with_activation(epilogue.activation, [&](auto which) {
#pragma unroll
    for (int i = 0; i < kRun; ++i) x[i] = activate(decltype(which)::value, x[i], float(epilogue.slope));
  });
  store_rounded(epilogue, output, offset, count, vectors, x);
}

// Stores what the epilogue makes of four sums of products sum_k a b.
CNN_DEVICE void finish(const Epilogue& epilogue, const Row& row, const Columns& columns,
                       Vector<std::int32_t, kRun> sums, void* output, std::int64_t offset, int count,
                       bool vectors) {
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    sums[i] = wrapping_subtract(sums[i], row.zero_point, columns.sum[i]);
    sums[i] = wrapping_subtract(sums[i], columns.zero_point[i], row.centred_sum);
  }
  if (epilogue.out_dtype == DType::int32) return store_run(output, offset, sums, count, vectors);

  float x[kRun];
#pragma unroll
  for (int i = 0; i < kRun; ++i)
    x[i] = __fmul_rn(static_cast<float>(sums[i]), __fmul_rn(row.scale, columns.scale[i]));
  finish_scaled(epilogue, columns, x, output, offset, count, vectors);
}

}  // namespace cnnkernels::int8
