"""What rounds floating numbers to bytes."""

import triton
import triton.language as tl

# 1.5 2^23: fp32 numbers of this size are integers, so that adding it rounds a number below 2^22 half to even.
ROUNDING = tl.constexpr(12582912.0)


@triton.jit
def quantized(x, inverse, zero_point, LEAST: tl.constexpr):
    """int32 numbers from LEAST to LEAST + 255; a NaN gives the zero point."""
    low = (LEAST - zero_point).to(tl.float32)
    steps = x * inverse
    steps = tl.where(steps == steps, steps, 0.0)
    steps = tl.minimum(tl.maximum(steps, low), low + 255)
    return ((steps + ROUNDING) - ROUNDING).to(tl.int32) + zero_point
