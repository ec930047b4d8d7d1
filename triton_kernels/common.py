"""What the kernels of several operators share."""

import triton
import triton.language as tl


@triton.constexpr_function
def accumulator(element):
    """The type sums are kept in: fp32 for 16-bit elements, else the element's own."""
    return tl.float64 if element == tl.float64 else tl.float32
