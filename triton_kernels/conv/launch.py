"""conv2d in Triton: launches the kernels of conv/forward.py, conv/backward_input.py, conv/backward_weight.py and,
for narrow groups, conv/direct.py, with the tiles that conv/select.py chooses.

Tensors are dense in the layout given, filters [K, C / groups, R, S] likewise (KRSC in memory beside NHWC, KCRS beside
NCHW). fp64, fp32, fp16 and bf16; 16-bit elements are summed in fp32 and rounded once. tf32 lets tensor cores round
fp32 operands to 10 bits of mantissa.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ...dtypes import dtype_name
from ...epilogue import Epilogue
from ...geometry import ConvGeometry, Layout
from ..common.geometry import arguments, in_slices, is_wide
from ..common.missing_windows import leave_out_missing_windows
from ..common.partials import partials, sum_partials
from ..common.target import gpu_of, on, target
from ..common.types import LARGEST_INDEX
from .backward_input import backward_input_kernel
from .backward_weight import backward_bias_kernel, backward_weight_kernel
from .direct import direct_backward_input_kernel, direct_backward_weight_kernel, direct_forward_kernel
from .forward import forward_kernel
from .select import Configuration, Op, Problem, choose

# backward_bias: elements of a tile, and of the filters' axis of one.
BIAS_TILE = 4096
BIAS_FILTERS = {Layout.NHWC: 128, Layout.NCHW: 4}


def plain(g: ConvGeometry) -> ConvGeometry:
    """A 1x1 convolution that touches each pixel once, as one on images of a single row: neighbours have then the same
    distance everywhere, and vectors may cross from row to row."""
    if (g.r, g.s, g.stride_h, g.stride_w, g.pad_h, g.pad_w) == (1, 1, 1, 1, 0, 0) and (g.p, g.q) == (g.h, g.w):
        return g._replace(h=1, w=g.h * g.w, p=1, q=g.p * g.q)
    return g


def problem_of(op: Op, tensor: Tensor, geometry: ConvGeometry, layout: Layout, tf32: bool) -> Problem:
    """What the choice of tiles depends on."""
    g = geometry if op == "backward_weight" else geometry._replace(n=1)
    return Problem(op, dtype_name(tensor.dtype, tf32), layout, g, *target(tensor))


def _constants(g: ConvGeometry, c: Configuration, layout: Layout, tf32: bool) -> dict[str, Any]:
    """The compile-time arguments that all of the kernels take."""
    constants: dict[str, Any] = {
        "R": g.r,
        "S": g.s,
        "NHWC": layout is Layout.NHWC,
        "WIDE": is_wide(g),
        "BLOCK_M": c.block_m,
        "BLOCK_N": c.block_n,
        "num_warps": c.warps,
        "num_stages": c.stages,
    }
    if not c.direct:
        constants |= {"UNIT": _unit(g), "BLOCK_K": c.block_k, "PRECISION": "tf32" if tf32 else "ieee"}
    return constants


def _unit(g: ConvGeometry) -> int:
    """What all counts of channels are multiples of, up to 8: it tells the compiler how wide loads may be."""
    return math.gcd(g.c // g.groups, g.k // g.groups, 8)


def _phases(g: ConvGeometry) -> tuple[int, ...]:
    """What backward_input's kernels take of the phases of rows and columns (backward_input.py)."""
    steps = ((g.stride_h, g.dilation_h), (g.stride_w, g.dilation_w))
    common = [math.gcd(stride, dilation) for stride, dilation in steps]
    inverse = [pow(dilation // d, -1, stride // d) for (stride, dilation), d in zip(steps, common, strict=True)]
    return (*common, *inverse, min(g.stride_h, g.h), min(g.stride_w, g.w))


def conv_why_copy_border(
    direction: str, first: Tensor, second: Tensor, geometry: ConvGeometry, layout: Layout, tf32: bool
) -> str:
    """Why the border of a padding mode is copied before forward or backward_weight of these operands; empty where
    it is read through the index."""
    return why_copy_border(problem_of(direction, first, plain(geometry), layout, tf32))  # type: ignore[arg-type]


def why_copy_border(problem: Problem) -> str:
    return "the kernels for narrow groups pad with zeros alone" if choose(problem).direct else ""


def conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
    tf32: bool,
    configuration: Configuration | None = None,
    epilogue: Epilogue | None = None,
) -> None:
    """Writes output [N, K, P, Q]; the configuration is chosen unless given."""
    scale, shift, residual, activation, slope = epilogue or Epilogue()
    images = (input, output) if residual is None else (input, output, residual)
    with on(input):
        asked = problem_of("forward", input, plain(geometry), layout, tf32)
        c = configuration or choose(asked, epilogue is not None)
        for g, x, y, *more in in_slices(plain(geometry), *images):
            constants = _constants(g, c, layout, tf32)
            constants |= {"ACTIVATION": activation, "SLOPE": slope if activation == "leaky_relu" else 0.0}
            finish = (bias, scale, shift, *(more or [None]))
            tiles_m = math.ceil(g.n * g.p * g.q / c.block_m)
            if c.direct:
                programs = tiles_m * math.ceil(g.k / c.block_n)
                direct_forward_kernel[(programs,)](x, weight, *finish, y, arguments(g), **constants)
                continue
            unit, filters = constants["UNIT"], g.k // g.groups
            programs = tiles_m * math.ceil(filters / c.block_n) * g.groups
            forward_kernel[(programs,)](
                x, weight, *finish, y, arguments(g, unit, unit),
                FLAT=c.flat, MODE=int(g.padding_mode), **constants,
            )  # fmt: skip


def conv_backward_input(
    grad_output: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
    tf32: bool,
    configuration: Configuration | None = None,
    bias: Tensor | None = None,
    epilogue: Epilogue | None = None,
) -> None:
    """Writes grad_input [N, C, H, W]; the configuration is chosen unless given. With bias and epilogue, of numbers of
    each channel, it is a transposed convolution."""
    scale, shift, residual, activation, slope = epilogue or Epilogue()
    images = (grad_output, grad_input) if residual is None else (grad_output, grad_input, residual)
    with on(grad_output):
        asked = problem_of("backward_input", grad_output, plain(geometry), layout, tf32)
        c = configuration or choose(asked, epilogue is not None)
        for g, dy, dx, *more in in_slices(plain(geometry), *images):
            constants = _constants(g, c, layout, tf32)
            constants |= {"ACTIVATION": activation, "SLOPE": slope if activation == "leaky_relu" else 0.0}
            finish = (bias, scale, shift, *(more or [None]))
            phases = _phases(g)
            rows = g.n * math.ceil(g.h / g.stride_h) * math.ceil(g.w / g.stride_w)
            programs = math.ceil(rows / c.block_m) * math.prod(phases[4:])
            if c.direct:
                programs *= math.ceil(g.c / c.block_n)
                direct_backward_input_kernel[(programs,)](dy, weight, *finish, dx, arguments(g), phases, **constants)
            else:
                unit = constants["UNIT"]
                programs *= math.ceil(g.c // g.groups / c.block_n) * g.groups
                numbers = arguments(g, unit, unit), phases
                backward_input_kernel[(programs,)](dy, weight, *finish, dx, *numbers, **constants)
            leave_out_missing_windows(dy, weight, dx, g, layout, *finish, activation, slope)


def conv_backward_weight(
    grad_output: Tensor,
    input: Tensor,
    grad_weight: Tensor,
    geometry: ConvGeometry,
    layout: Layout,
    tf32: bool,
    configuration: Configuration | None = None,
) -> None:
    """Writes grad_weight [K, C / groups, R, S], through a workspace of at most 256 MB; the configuration is chosen
    unless given."""
    with on(input):
        g = plain(geometry)
        c = configuration or choose(problem_of("backward_weight", input, g, layout, tf32))
        constants = _constants(g, c, layout, tf32)
        channels, filters, elements = g.c // g.groups, g.k // g.groups, grad_weight.numel()
        pixels_block = c.block_m if c.direct else c.block_k
        steps = math.ceil(math.ceil(g.n * g.p * g.q / pixels_block) / c.splits)
        parts = partials(grad_weight, c.splits)
        if c.direct:
            programs = math.ceil(g.k / c.block_n) * channels * g.r * g.s * c.splits
            direct_backward_weight_kernel[(programs,)](
                grad_output, input, parts, arguments(g), steps, elements, **constants
            )
        else:
            unit, taps = constants["UNIT"], g.r * g.s
            tiles_n = math.ceil(channels * taps / c.block_n) if c.flat else math.ceil(channels / c.block_n) * taps
            programs = tiles_n * math.ceil(filters / c.block_m) * g.groups * c.splits
            backward_weight_kernel[(programs,)](
                grad_output, input, parts, arguments(g, unit, unit), g.groups, steps, elements,
                FLAT=c.flat, MODE=int(g.padding_mode), **constants,
            )  # fmt: skip
        sum_partials(parts, grad_weight, c.splits)


def conv_backward_bias(grad_output: Tensor, grad_bias: Tensor, geometry: ConvGeometry, layout: Layout) -> None:
    """Writes grad_bias [K], the sum of grad_output over all pixels."""
    with on(grad_output):
        g, nhwc = geometry, layout is Layout.NHWC
        images, pixels = (g.n * g.p * g.q, 1) if nhwc else (g.n, g.p * g.q)
        block_n = min(BIAS_FILTERS[layout], 2 ** math.ceil(math.log2(g.k)))
        block_m = BIAS_TILE // block_n
        tiles, steps = math.ceil(g.k / block_n), math.ceil(images * pixels / block_m)
        wanted = max(1, 4 * gpu_of(target(grad_output).arch).processors // tiles)
        each = math.ceil(steps / min(wanted, steps))
        splits = math.ceil(steps / each)
        parts = partials(grad_bias, splits)
        backward_bias_kernel[(tiles * splits,)](
            grad_output, parts, images, g.k, pixels, each,
            NHWC=nhwc, WIDE=grad_output.numel() > LARGEST_INDEX, BLOCK_M=block_m, BLOCK_N=block_n,
        )  # fmt: skip
        sum_partials(parts, grad_bias, splits)
