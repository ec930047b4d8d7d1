"""Numbers of channels in kernels."""

import triton
import triton.language as tl

from ..common.activation import divide


@triton.jit
def number(numbers, channel, exists, otherwise, element: tl.constexpr):
    """One a channel, of any type; `otherwise` where there are none."""
    if numbers is None:
        return tl.full(channel.shape, otherwise, element)
    else:
        return tl.load(numbers + channel, mask=exists, other=0.0).to(element)


@triton.jit
def inverse_deviation(var, channel, exists, EPS: tl.constexpr, element: tl.constexpr):
    """1 / sqrt(var + eps), each step rounded once; Triton's own root does not for fp32."""
    spread = number(var, channel, exists, 1.0, element) + tl.full(channel.shape, EPS, element)
    one = tl.full(channel.shape, 1.0, element)
    if element == tl.float32:
        return divide(one, tl.sqrt_rn(spread))
    else:
        return divide(one, tl.sqrt(spread))


@triton.jit
def scaling(mean, var, weight, bias, channel, exists, EPS: tl.constexpr, element: tl.constexpr):
    """What channels are normalized by: mean, scale and bias."""
    scale = number(weight, channel, exists, 1.0, element) * inverse_deviation(var, channel, exists, EPS, element)
    return number(mean, channel, exists, 0.0, element), scale, number(bias, channel, exists, 0.0, element)
