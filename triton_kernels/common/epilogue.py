"""What becomes of a convolution's sums before they are stored: activation(scale (sum + bias) + shift + residual), in
the sums' precision. What is None is compiled away.
"""

import triton
import triton.language as tl

from .activation import activate


@triton.jit
def of_filter(numbers, k, k_exists, total):
    """One number a filter, laid along the filters' axis of a tile."""
    return tl.load(numbers + k, mask=k_exists, other=0.0).to(total.dtype)


@triton.jit
def finish(
    total, bias, scale, shift, residual, k, at_output, k_exists, exists, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr
):  # fmt: skip
    """The outputs that a tile of sums becomes, not yet rounded. `at_output`: where they, and a residual's, lie."""
    if bias is not None:
        total += of_filter(bias, k, k_exists, total)
    if scale is not None:
        total *= of_filter(scale, k, k_exists, total)
    if shift is not None:
        total += of_filter(shift, k, k_exists, total)
    if residual is not None:
        total += tl.load(residual + at_output, mask=exists, other=0.0).to(total.dtype)
    return activate(total, SLOPE, ACTIVATION)
