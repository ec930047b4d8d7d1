// The operand formats of tensor cores, as the Python side of the tests numbers them.
#pragma once

namespace cnnkernels::tests {

enum class Format : int { float16, bfloat16, tf32, int8, float64, uint8 };

}  // namespace cnnkernels::tests
