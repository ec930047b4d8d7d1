"""depthwise_conv2d in Triton: launches the kernels of depthwise_conv/sweep.py and depthwise_conv/backward_weight.py
with the patches that depthwise_conv/select.py chooses.

A convolution whose groups are single channels: input [N, C, H, W], filters [K, 1, R, S] with K a multiple of C, output
[N, K, P, Q], dense in the layout given. fp64, fp32, fp16 and bf16; 16-bit elements are summed in fp32 and rounded once.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...geometry import ConvGeometry, Layout
from ..common.geometry import is_wide
from ..common.missing_windows import leave_out_missing_windows
from ..common.partials import partials, sum_partials
from ..common.target import MOST_REGISTERS, on, target
from ..conv.launch import conv_backward_input, conv_backward_weight, conv_forward
from .backward_weight import backward_weight_kernel
from .patch import Axis
from .select import Configuration, Op, Plan, Problem, choose, plan
from .sweep import sweep_kernel


def _chosen(
    op: Op, tensor: Tensor, geometry: ConvGeometry, layout: Layout, configuration: Configuration | None
) -> tuple[Configuration, Plan] | None:
    problem = Problem(op, tensor.element_size(), layout, geometry, target(tensor).arch)
    return (configuration, plan(problem, configuration)) if configuration else choose(problem)


def _last(size: int, patch: int) -> int:
    """What the last of the patches has of an axis."""
    return (size - 1) % patch + 1


def _constants(g: ConvGeometry, c: Configuration, p: Plan, layout: Layout) -> dict[str, Any]:
    """The compile-time arguments that both kernels take."""
    return {
        "ROWS": p.rows,
        "COLUMNS": p.columns,
        "MULTIPLIER": g.k // g.c,
        "UNIT": p.unit,
        "NHWC": layout is Layout.NHWC,
        "WIDE": is_wide(g),
        "A": c.a,
        "B": c.b,
        "num_warps": c.warps,
        "num_stages": 1,
    }


def depthwise_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
    configuration: Configuration | None = None,
) -> None:
    """Writes output [N, K, P, Q]; the configuration is chosen unless given."""
    g = geometry
    with on(input):
        chosen = _chosen("forward", input, g, layout, configuration)
        if chosen is None:
            conv_forward(input, weight, bias, output, g, layout, tf32=False)
            return
        c, p = chosen
        sweep_kernel[(p.tiles,)](
            input, weight, bias, output, p.sizes(g),
            UNROLLED=c.unrolled, STORE=p.store, **_constants(g, c, p, layout),
        )  # fmt: skip


def depthwise_conv_backward_input(
    grad_output: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
    configuration: Configuration | None = None,
    bias: Tensor | None = None,
) -> None:
    """Writes grad_input [N, C, H, W]; the configuration is chosen unless given. bias: [C], as a transposed convolution
    has it."""
    g = geometry
    with on(grad_output):
        chosen = _chosen("backward_input", grad_output, g, layout, configuration)
        if chosen is None:
            conv_backward_input(grad_output, weight, grad_input, g, layout, tf32=False, bias=bias)
            return
        c, p = chosen
        sweep_kernel[(p.tiles,)](
            grad_output, weight, bias, grad_input, p.sizes(g),
            UNROLLED=c.unrolled, STORE=p.store, **_constants(g, c, p, layout),
        )  # fmt: skip
        leave_out_missing_windows(grad_output, weight, grad_input, g, layout, bias)


def depthwise_conv_backward_weight(
    grad_output: Tensor,
    input: Tensor,
    grad_weight: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
    configuration: Configuration | None = None,
) -> None:
    """Writes grad_weight [K, 1, R, S], through a workspace of at most 256 MB; the configuration is chosen unless
    given."""
    g = geometry
    with on(input):
        chosen = _chosen("backward_weight", input, g, layout, configuration)
        if chosen is None:
            conv_backward_weight(grad_output, input, grad_weight, g, layout, tf32=False)
            return
        c, p = chosen
        bands, steps = -(-g.r // c.band), -(-p.steps // c.splits)
        parts = partials(grad_weight, c.splits)
        backward_weight_kernel[(bands * p.tiles, c.splits)](
            grad_output, input, parts, p.sizes(g), steps, grad_weight.numel(),
            R=g.r, LEFT_ROWS=_last(g.p, c.patch[0]), LEFT_COLUMNS=_last(g.q, c.patch[1]),
            GRAD_COLUMNS=Axis(c.patch[1], 1, 1, 0, 1, False, p.store), maxnreg=MOST_REGISTERS,
            **_constants(g, c, p, layout),
        )  # fmt: skip
        sum_partials(parts, grad_weight, c.splits)
