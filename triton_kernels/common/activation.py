"""csrc/common/activation.h in Triton: the activations and their derivatives at the pre-activation.

The name is a compile-time constant: Triton compiles a kernel for each set of constants anyway, at the first call that
needs it. NaN and the infinities come out as PyTorch's.
"""

import triton
import triton.language as tl


@triton.jit
def divide(x, y):
    """x / y rounded once; for fp32 Triton's own operator is not that on a GPU."""
    if x.dtype == tl.float32:
        return tl.math.div_rn(x, y)
    else:
        return x / y


@triton.jit
def exp(x):
    """e to the x within 12 roundoffs. Triton's own, 2 to the rounded product x log2(e), errs by |x| of them.

    x and log2(e) are split into 12 bits and a rest, so that the product of the former is exact and what is rounded is
    small. 2 to the first is made 2^64 times larger where it is small, as subnormal numbers are flushed.
    """
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        high = (x.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
        low = tl.where(x == high, 0.0, x - high)  # of an infinity, too
        first = high * 1.4423828125
        rest = high * 0.0003122283889634074 + low * 1.4426950408889634
        small = first < -64
        power = tl.exp2(tl.where(small, first + 64, first)) * tl.exp2(rest)
        return power * tl.where(small, 5.421010862427522e-20, 1.0)


@triton.jit
def activate(x, slope, ACTIVATION: tl.constexpr):
    """The activation of a block of fp32 or fp64; slope is leaky_relu's factor below zero."""
    if ACTIVATION == "relu":
        return tl.where(x < 0, 0.0, x)  # tl.maximum would drop NaN
    elif ACTIVATION == "relu6":
        return tl.where(x < 0, 0.0, tl.where(x > 6, 6.0, x))
    elif ACTIVATION == "leaky_relu":
        return tl.where(x > 0, x, x * slope)
    elif ACTIVATION == "silu":
        return divide(x, 1.0 + exp(-x))
    elif ACTIVATION == "gelu":
        return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "hardswish":
        moved = x + 3.0
        return divide(x * tl.where(moved < 0, 0.0, tl.where(moved > 6, 6.0, moved)), 6.0)
    else:
        tl.static_assert(ACTIVATION == "none", "no such activation")
        return x


@triton.jit
def activate_derivative(x, slope, ACTIVATION: tl.constexpr):
    """The derivative at the pre-activation; at a corner (0, 6, -3, 3) the one PyTorch takes."""
    one = tl.full(x.shape, 1.0, x.dtype)
    if ACTIVATION == "relu":
        return tl.where(x <= 0, 0.0, one)
    elif ACTIVATION == "relu6":
        return tl.where((x <= 0) | (x >= 6), 0.0, one)
    elif ACTIVATION == "leaky_relu":
        return tl.where(x > 0, one, slope)
    elif ACTIVATION == "silu":
        sigmoid = 1.0 / (1.0 + exp(-x))
        return sigmoid * (1.0 + x * (1.0 - sigmoid))
    elif ACTIVATION == "gelu":
        cdf = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
        return cdf + x * 0.3989422804014327 * exp(-0.5 * x * x)
    elif ACTIVATION == "hardswish":
        return tl.where(x <= -3, 0.0, tl.where(x < 3, x / 3.0 + 0.5, one))
    else:
        tl.static_assert(ACTIVATION == "none", "no such activation")
        return one
