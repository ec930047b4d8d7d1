"""depthwise_separable_conv2d in Triton: launches the kernel of forward.py with the tiles that select.py
chooses.

Input [N, C, H, W], depthwise filters [M, 1, R, S] with M a multiple of C, pointwise filters [K, M, 1, 1], output
[N, K, P, Q], intermediate [N, M, P, Q], dense in the layout given. fp64, fp32, fp16 and bf16; 16-bit elements are
summed in fp32. tf32 lets tensor cores round the 1x1's fp32 operands to 10 bits of mantissa.
"""

from __future__ import annotations

import math

from torch import Tensor

from ...dtypes import dtype_name
from ...geometry import ConvGeometry, Layout
from ..common.target import on, target
from ..depthwise_conv.launch import depthwise_conv_forward
from .forward import fused_kernel
from .select import Configuration, Problem, arguments, choose


def depthwise_separable_conv_forward(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_bias: Tensor | None,
    output: Tensor,
    intermediate: Tensor | None,
    geometry: ConvGeometry,
    layout: Layout,
    tf32: bool,
    depthwise_activation: str,
    pointwise_activation: str,
    negative_slope: float,
    configuration: Configuration | None = None,
) -> None:
    """Writes output [N, K, P, Q] and, where it is given, intermediate: the depthwise sums before their activation.

    `geometry` is the depthwise convolution's, groups = c and k = c multiplier. The configuration is chosen unless
    given.
    """
    g, filters = geometry, pointwise_weight.shape[0]
    with on(input):
        dtype = dtype_name(input.dtype, tf32)
        problem = Problem(dtype, layout, g._replace(n=1), filters, target(input).arch)
        c = configuration or choose(problem)
        patches = math.ceil(g.p / c.patch[0]) * math.ceil(g.q / c.patch[1])
        programs = math.ceil(g.n * patches / c.lanes) * math.ceil(filters / c.filters)
        sizes, constants = arguments(problem, c, g.n, stores=True)
        fused_kernel[(programs,)](
            input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, output, intermediate, sizes,
            FIRST=depthwise_activation, SECOND=pointwise_activation, SLOPE=negative_slope,
            PRECISION="tf32" if tf32 else "ieee", **constants,
        )  # fmt: skip


def depthwise_separable_conv_intermediate(
    input: Tensor,
    depthwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    intermediate: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
) -> None:
    """Writes what the forward saves, bit for bit: the depthwise sums before their activation."""
    depthwise_conv_forward(input, depthwise_weight, depthwise_bias, intermediate, geometry, layout)
