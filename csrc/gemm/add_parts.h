// The second pass of a reduction that was cut into parts: adds them in order, so the bits never change.
#pragma once

#include "../common/types.h"

namespace cnnkernels::gemm {

// sum[i] = parts[0][i] + parts[1][i] + ..., rounded once. sum is of type dtype, parts of its accumulator.
void add_parts(DType dtype, const void* parts, void* sum, std::int64_t count, int splits,
               std::uintptr_t stream);

}  // namespace cnnkernels::gemm
