// The epilogue of INT8 products (int8/epilogue.h): four neighbouring columns at a time, of four rows where
// that can be. What to do is data: types, activation and what is absent are looked at once for all of them.
#pragma once

#include <type_traits>

#include "../common/activation.h"
#include "epilogue.h"
#include "../common/types.h"
#include "../common/vector.h"

namespace cnnkernels::int8 {

inline constexpr int kRun = 4;    // columns
inline constexpr int kBatch = 4;  // rows, where runs are whole and the activation takes few instructions

// clamp(rint(x * inverse) + zero_point) in int8, whose least number is `least`, or uint8, ties to even. A
// product that is NaN gives the zero point: of a NaN, or of 0 * inf where the scale that was inverted is 0 or
// subnormal.
CNN_DEVICE std::uint8_t quantized(float x, float inverse, std::int32_t zero_point, std::int32_t least) {
  const std::int32_t rounded = __float2int_rn(__fmul_rn(x, inverse));  // saturates; 0 for a NaN
  const std::int32_t low = least - zero_point;
  return static_cast<std::uint8_t>(min(max(rounded, low), low + 255) + zero_point);
}

// The value of int8 and uint8 numbers.
CNN_DEVICE float dequantized(std::int32_t q, float scale, std::int32_t zero_point) {
  return __fmul_rn(static_cast<float>(q - zero_point), scale);
}

template <class T>
CNN_DEVICE T number_at(const Number<T>& number, std::int64_t index) {
  return number.data == nullptr ? T(number.value) : number.data[index * number.step];
}

// Integers wrap: what is added and subtracted on the way to a sum that fits may not.
CNN_DEVICE std::int32_t wrapping_subtract(std::int32_t from, std::int32_t a, std::int32_t b) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(from) -
                                   static_cast<std::uint32_t>(a) * static_cast<std::uint32_t>(b));
}

// What the epilogue needs of the four columns from `first` on, and of all rows: read and computed once for
// all that a thread finishes.
struct Columns {
  std::int64_t first;
  int count;                      // of the four that exist
  bool vectors;                   // always all four, at multiples of four elements
  float scale[kRun], bias[kRun];  // scale: that of all rows is multiplied in, where they share one
  float inverse;                  // 1 / out_scale

  CNN_DEVICE Columns(const Epilogue& epilogue, std::int64_t first, int count, bool vectors)
      : first(first), count(count), vectors(vectors) {
    inverse = __fdiv_rn(1.0f, number_at(epilogue.out_scale, 0));
    const float of_rows = epilogue.scale_a.step == 0 ? number_at(epilogue.scale_a, 0) : 1.0f;
    const float* of_column =
        epilogue.scale_b.data == nullptr ? nullptr : epilogue.scale_b.data + first * epilogue.scale_b.step;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      scale[i] = epilogue.scale_b.value;
      bias[i] = -0.0f;  // adds nothing: -0 + -0 is -0
      if (i < count) {
        if (of_column != nullptr) scale[i] = of_column[i * epilogue.scale_b.step];
        if (epilogue.bias != nullptr) bias[i] = epilogue.bias[first + i];
      }
      scale[i] = __fmul_rn(of_rows, scale[i]);
    }
  }
};

// Rows of a tile that a thread finishes: `begin`, `begin` + `step` and so on below `end`. Of the first: which
// row of the matrix it is, and where in the output its four columns are; the next are `pitch` elements apart.
struct Rows {
  int begin, end, step;
  std::int64_t row, offset, pitch;

  CNN_DEVICE void skip(int count) {
    begin += count * step;
    row += count * step;
    offset += count * pitch;
  }
};

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

// Below, x[r] and sums[r] are of the r-th of `rows`. More than one: runs are whole.
template <int kRows>
CNN_DEVICE void add_residual(const Epilogue& epilogue, const Columns& columns, const Rows& rows,
                             float (&x)[kRows][kRun]) {
  const auto add = [&]<class T>(T) {
    Vector<T, kRun> residual[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      residual[r] = load_run<T>(epilogue.residual, rows.offset + r * rows.pitch, columns.count,
                                kRows > 1 || columns.vectors);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int e = 0; e < kRun; ++e) {
        float more;
        if constexpr (std::is_integral_v<T>)
          more = dequantized(residual[r][e], epilogue.residual_scale, epilogue.residual_zero_point);
        else
          more = widen(residual[r][e]);
        x[r][e] = __fadd_rn(x[r][e], more);
      }
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

// Stores what rounded(r, e) is in type T.
template <class T, int kRows, class Rounded>
CNN_DEVICE void store_rows(const Columns& columns, const Rows& rows, void* output, Rounded&& rounded) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    Vector<T, kRun> run;
#pragma unroll
    for (int e = 0; e < kRun; ++e) run[e] = rounded(r, e);
    store_run(output, rows.offset + r * rows.pitch, run, columns.count, kRows > 1 || columns.vectors);
  }
}

template <int kRows>
CNN_DEVICE void store_rounded(const Epilogue& epilogue, const Columns& columns, const Rows& rows,
                              void* output, const float (&x)[kRows][kRun]) {
  const auto store_as = [&]<class T>(T) {
    store_rows<T, kRows>(columns, rows, output, [&](int r, int e) { return narrow<T>(x[r][e]); });
  };
  switch (epilogue.out_dtype) {
    case DType::float16:
      return store_as(float16{});
    case DType::bfloat16:
      return store_as(bfloat16{});
    case DType::float32:
      return store_as(float{});
    default: {
      const std::int32_t least = epilogue.out_dtype == DType::int8 ? -128 : 0;
      store_rows<std::uint8_t, kRows>(columns, rows, output, [&](int r, int e) {
        return quantized(x[r][e], columns.inverse, epilogue.out_zero_point, least);
      });
    }
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

// Few instructions each, so that they may be written out for a batch of rows.
CNN_HOST_DEVICE constexpr bool compares(Activation which) {
  return which == Activation::none || which == Activation::relu || which == Activation::relu6 ||
         which == Activation::leaky_relu;
}

// Stores what follows the scales.
template <int kRows>
CNN_DEVICE void finish_scaled(const Epilogue& epilogue, const Columns& columns, const Rows& rows,
                              float (&x)[kRows][kRun], void* output) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int e = 0; e < kRun; ++e) x[r][e] = __fadd_rn(x[r][e], columns.bias[e]);
  }
  if (epilogue.residual != nullptr) add_residual(epilogue, columns, rows, x);
  with_activation(epilogue.activation, [&](auto which) {
    if constexpr (kRows == 1 || compares(decltype(which)::value)) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < kRun; ++e)
          x[r][e] = activate(decltype(which)::value, x[r][e], float(epilogue.slope));
      }
    }
  });
  store_rounded(epilogue, columns, rows, output, x);
}

// Makes sums of (a - zero point) (b - zero point) of sums of a b.
template <int kRows>
CNN_DEVICE void subtract_zero_points(const Epilogue& epilogue, const Columns& columns, const Rows& rows,
                                     Vector<std::int32_t, kRun> (&sums)[kRows]) {
  std::int32_t zero_point[kRun] = {}, sum[kRun] = {};
#pragma unroll
  for (int e = 0; e < kRun; ++e) {
    if (e >= columns.count) continue;
    if (epilogue.sums_a != nullptr) zero_point[e] = number_at(epilogue.zero_point_b, columns.first + e);
    if (epilogue.sums_b != nullptr) sum[e] = epilogue.sums_b[columns.first + e];
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const std::int64_t row = rows.row + r * rows.step;
    const std::int32_t of_row = number_at(epilogue.zero_point_a, row);
    std::int32_t centred = 0;  // sum_k (a - zero point)
    if (epilogue.sums_a != nullptr) centred = wrapping_subtract(epilogue.sums_a[row], epilogue.depth, of_row);
#pragma unroll
    for (int e = 0; e < kRun; ++e)
      sums[r][e] = wrapping_subtract(wrapping_subtract(sums[r][e], of_row, sum[e]), zero_point[e], centred);
  }
}

// Stores what the epilogue makes of sums sum_k a b.
template <int kRows>
CNN_DEVICE void finish_batch(const Epilogue& epilogue, const Columns& columns, const Rows& rows,
                             Vector<std::int32_t, kRun> (&sums)[kRows], void* output) {
  if (epilogue.sums_a != nullptr || epilogue.sums_b != nullptr)
    subtract_zero_points(epilogue, columns, rows, sums);
  if (epilogue.out_dtype == DType::int32)
    return store_rows<std::int32_t, kRows>(columns, rows, output, [&](int r, int e) { return sums[r][e]; });

  float x[kRows][kRun];
  if (epilogue.scale_a.step == 0) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int e = 0; e < kRun; ++e) x[r][e] = __fmul_rn(static_cast<float>(sums[r][e]), columns.scale[e]);
    }
  } else {
    const float* of_row = epilogue.scale_a.data + rows.row * epilogue.scale_a.step;
#pragma unroll
    for (int r = 0; r < kRows; ++r, of_row += rows.step * epilogue.scale_a.step) {
      const float scale = *of_row;
#pragma unroll
      for (int e = 0; e < kRun; ++e)
        x[r][e] = __fmul_rn(static_cast<float>(sums[r][e]), __fmul_rn(scale, columns.scale[e]));
    }
  }
  finish_scaled(epilogue, columns, rows, x, output);
}

// The same of all of a thread's rows; sums_of(i) are those of row i of the tile.
template <class SumsOf>
CNN_DEVICE void finish(const Epilogue& epilogue, const Columns& columns, Rows rows, void* output,
                       SumsOf&& sums_of) {
  if (columns.vectors && compares(epilogue.activation)) {
#pragma unroll 1
    for (; rows.begin + (kBatch - 1) * rows.step < rows.end; rows.skip(kBatch)) {
      Vector<std::int32_t, kRun> sums[kBatch];
#pragma unroll
      for (int r = 0; r < kBatch; ++r) sums[r] = sums_of(rows.begin + r * rows.step);
      finish_batch(epilogue, columns, rows, sums, output);
    }
  }
#pragma unroll 1
  for (; rows.begin < rows.end; rows.skip(1)) {
    Vector<std::int32_t, kRun> sums[1] = {sums_of(rows.begin)};
    finish_batch(epilogue, columns, rows, sums, output);
  }
}

}  // namespace cnnkernels::int8
