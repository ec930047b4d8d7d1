"""How pooling's kernels take an element."""

import triton
import triton.language as tl

from ..common.types import accumulator


@triton.jit
def widen(x):
    """Exactly, to the accumulator's type. bfloat16 by its bits: Triton's interpreter loses its subnormals."""
    if x.dtype == tl.bfloat16:
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(accumulator(x.dtype))
