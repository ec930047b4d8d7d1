"""depthwise_conv2d's Triton kernels beyond the common exact tests: every configuration and the bits' independence of
it, both widths of arithmetic, ranges of a sum, and what is left to the elementwise kernels."""

from __future__ import annotations

import dataclasses
import itertools
import math
import mmap

import pytest
import torch
import triton
import triton.language as tl
from cnnkernels.triton_kernels.common import geometry
from cnnkernels.triton_kernels.depthwise_conv import select as depthwise_conv_select
from cnnkernels.triton_kernels.depthwise_conv.patch import Axis, lanes
from cnnkernels.triton_kernels.depthwise_conv.select import Configuration, Problem
from torch import Tensor

from cnnkernels import triton_kernels as kernels
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import DEPTHWISE_CONV2D, depthwise
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv import DIRECTIONS, Data, convolve, floats, integers, result_shape
from helpers.device import DEVICE

layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
directions = pytest.mark.parametrize("direction", DIRECTIONS)

SAME = depthwise("3x3 of 16 bytes a row and a pixel", 1, 8, (9, 16), (3, 3), padding=(1, 1))
ODD = depthwise("3x3 of odd channels and widths", 2, 7, (5, 7), (3, 3), padding=(1, 1))
UNEVEN = ConvCase("uneven everything", 2, 3, 11, 8, 6, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1), groups=3)
PHASES = depthwise("stride 6 has more phases than a patch", 1, 2, (9, 8), (3, 2), (6, 6), (1, 1))


def run(
    direction: str,
    case: ConvCase,
    data: Data,
    layout: Layout,
    configuration: Configuration | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    def place(tensor: Tensor) -> Tensor:
        return tensor.to(DEVICE, dtype).to(memory_format=layout.memory_format)

    function = getattr(kernels, f"depthwise_conv_{direction}")
    out = place(torch.full(result_shape(direction, case), math.nan))
    bias = (data.b.to(DEVICE, dtype),) if direction == "forward" else ()
    function(*map(place, data.operands(direction)), *bias, out, case.geometry, layout, configuration)
    return out.cpu()


def expected(direction: str, case: ConvCase, data: Data, dtype: torch.dtype = torch.float32) -> Tensor:
    bias = data.b.view(-1, 1, 1) if direction == "forward" else 0
    return (data.expected(direction, case) + bias).to(dtype)


def problem(direction: str, case: ConvCase, layout: Layout, arch: int = 0, size: int = 4) -> Problem:
    return Problem(direction, size, layout, case.geometry, arch)  # type: ignore[arg-type]


def test_an_axis_knows_what_each_place_reads() -> None:
    """Forward and backward are the same pairs, told from either end, and a patch is like every other."""
    for taps, stride, pad, dilation in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 4), (1, 2, 3)):
        forward = Axis(2, taps, stride, pad, dilation, False)
        backward = Axis(stride, taps, stride, pad, dilation, True)
        pairs = {(o, x, r) for o in range(2) for x, r in forward.meets(o)}
        assert pairs == {(o, o * stride - pad + r * dilation, r) for o in range(2) for r in range(taps)}
        for o in range(stride):
            found = backward.meets(o)
            assert set(found) == {
                (p, r) for p in range(-20, 20) for r in range(taps) if p * stride - pad + r * dilation == o
            }
            steps = {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(found)}
            assert steps <= {backward.distance}
        assert backward.step == 1


@directions
@layouts
def test_every_configuration(direction: str, layout: Layout) -> None:
    """Forward and backward_input have the same bits by all of them; backward_weight's lanes cut the sum differently."""
    case = UNEVEN if direction == "backward_input" else SAME  # strides: patches that are multiples of them
    data = integers(case) if direction == "backward_weight" else floats(case, torch.float32)
    found = depthwise_conv_select.candidates(problem(direction, case, layout))
    configurations = {(c.patch, c.unrolled, c.band): c for c in reversed(found)}.values()  # each in its widest tile
    assert len(configurations) > 3
    chosen = run(direction, case, data, layout)  # what the exact tests compare with PyTorch's
    for c in configurations:
        assert torch.equal(run(direction, case, data, layout, c), chosen), str(c)


@directions
@layouts
def test_many_small_programs(direction: str, layout: Layout) -> None:
    data = integers(ODD)
    c = Configuration(4, 4, (2, 2), True, 1, ODD.r if direction == "backward_weight" else 0)
    assert torch.equal(run(direction, ODD, data, layout, c), expected(direction, ODD, data))


@layouts
def test_any_number_of_ranges_and_bands_gives_the_whole_sum(layout: Layout) -> None:
    data = integers(ODD)
    for band, splits in ((2, 2), (3, 5)):  # bands of 2 leave one of a single row
        c = Configuration(8, 8, (2, 2), True, 4, band, splits)
        assert torch.equal(run("backward_weight", ODD, data, layout, c), expected("backward_weight", ODD, data))


@directions
@layouts
def test_64_bit_arithmetic(monkeypatch: pytest.MonkeyPatch, direction: str, layout: Layout) -> None:
    monkeypatch.setattr(geometry, "LARGEST_INDEX", 0)
    data = integers(UNEVEN)
    assert torch.equal(run(direction, UNEVEN, data, layout), expected(direction, UNEVEN, data))


@pytest.mark.parametrize("taps", [1, 2])
@pytest.mark.parametrize("direction", ["forward", "backward_weight"])
@layouts
def test_offsets_beyond_32_bits(direction: str, layout: Layout, taps: int) -> None:
    """Nine pixels, 23,200 apart in a plane of 2.15e9: almost no memory is touched, most offsets are huge. What lies
    where a sum of 32 bits would wrap to is another number."""
    step, side = 23200, 46401
    case = depthwise("", 1, 1, (side, side), (taps, taps), (step, step), dilation=(step, step))
    before, count = 2**31, side * side
    if DEVICE == "cpu":  # zeros that cost no memory until they are written
        memory = torch.frombuffer(mmap.mmap(-1, (before + count) * 2), dtype=torch.float16)
    else:
        memory = torch.zeros(before + count, dtype=torch.float16, device=DEVICE)
    x = memory[before:].view(case.input_shape)
    seen = torch.arange(1.0, 10, dtype=torch.float64).view(1, 1, 3, 3)
    x[..., ::step, ::step] = seen.to(x)
    small = depthwise("", 1, 1, (3, 3), (taps, taps))
    data = dataclasses.replace(integers(small), x=seen)
    second = (data.w if direction == "forward" else data.dy).half().contiguous().to(DEVICE)
    operands = (x, second, None) if direction == "forward" else (second, x)
    out = torch.full(result_shape(direction, case), math.nan, dtype=torch.float16, device=DEVICE)
    getattr(kernels, f"depthwise_conv_{direction}")(*operands, out, case.geometry, layout)
    assert torch.equal(out.cpu(), data.expected(direction, small).half())


@triton.jit
def lanes_kernel(found, rows, columns, NHWC: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    here = lanes(2, 3, rows, columns, NHWC, A, B, True)
    at = found + (tl.arange(0, A)[:, None] * B + tl.arange(0, B)[None, :])
    for place in tl.static_range(5):
        tl.store(at + place * A * B, tl.broadcast_to(here[place], (A, B)).to(tl.int64))


@layouts
def test_more_patches_than_32_bits_count(layout: Layout) -> None:
    """Of an image of 2^32 of them the first, which a count that wrapped to 0 could not place."""
    found = torch.full((5, 4, 4), -1, device=DEVICE)
    lanes_kernel[(1,)](found, 2**16, 2**16, layout is Layout.NHWC, 4, 4)
    first, second = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    j, flat = (first, second) if layout is Layout.NHWC else (second, first)
    n, c = (0 * flat, flat) if layout is Layout.NHWC else (flat // 3, flat % 3)
    expected = torch.stack([n, 0 * j, j, c, c < 3])
    assert torch.equal(found.cpu(), expected)


@directions
@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_rounding(direction: str, layout: Layout, dtype: torch.dtype) -> None:
    data, g = dataclasses.replace(floats(ODD, dtype), b=torch.zeros(ODD.k)), ODD.geometry
    first, second = data.operands(direction)
    exact = convolve(direction, ODD, first, second)
    theirs = convolve(direction, ODD, first.to(dtype), second.to(dtype))
    length = g.n * g.p * g.q if direction == "backward_weight" else g.r * g.s
    magnitude = convolve(direction, ODD, first.abs(), second.abs())
    bound = rounding_bound(exact, theirs, length, magnitude, dtype)
    assert_within(run(direction, ODD, data, layout, dtype=dtype), exact, bound, direction)


@directions
@layouts
def test_runs_agree_and_a_sample_does_not_depend_on_its_batch(direction: str, layout: Layout) -> None:
    data = floats(ODD, torch.float32)
    together = run(direction, ODD, data, layout)
    assert torch.equal(together, run(direction, ODD, data, layout))
    if direction != "backward_weight":
        alone = dataclasses.replace(data, x=data.x[1:], dy=data.dy[1:])
        assert torch.equal(together[1:], run(direction, dataclasses.replace(ODD, n=1), alone, layout))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@directions
@layouts
def test_an_infinity_stays_where_its_windows_reach(direction: str, layout: Layout) -> None:
    """Nothing is multiplied that the sum does not contain, be it masked, padded or another lane's."""
    given = integers(ODD)
    data = Data(*(torch.where(tensor == 0, 1.0, tensor) for tensor in (given.x, given.w, given.b, given.dy)))
    data.x[0, 3, 2, 5] = data.dy[0, 3, 2, 5] = math.inf
    out, right = run(direction, ODD, data, layout), expected(direction, ODD, data)
    assert torch.equal(out.nan_to_num(1e9), right.nan_to_num(1e9))


@pytest.mark.parametrize("arch", [0, 90])
@layouts
def test_everything_has_a_patch_but_gradients_of_long_strides(arch: int, layout: Layout) -> None:
    for case in (*DEPTHWISE_CONV2D, UNEVEN, PHASES):
        for direction in DIRECTIONS:
            for size in (2, 4, 8):
                found = depthwise_conv_select.choose(problem(direction, case, layout, arch, size))
                assert (found is None) == (case is PHASES and direction == "backward_input"), f"{case} {direction}"
                if found and direction == "backward_weight":
                    weights = torch.Size(case.weight_shape).numel() * max(4, size)
                    assert found[0].splits * weights <= depthwise_conv_select.WORKSPACE_BYTES


@layouts
def test_what_has_no_patch_goes_to_the_elementwise_kernels(layout: Layout) -> None:
    data = integers(PHASES)
    assert torch.equal(run("backward_input", PHASES, data, layout), expected("backward_input", PHASES, data))


def test_rows_are_accessed_as_wide_as_they_allow() -> None:
    """NCHW's loads and stores take what divides the width and the patch, and so start at multiples of it."""
    for width, columns in ((16, 8), (28, 4), (14, 2), (7, 1)):
        case = depthwise("width", 1, 64, (56, width), (3, 3), padding=(1, 1))
        for direction in ("forward", "backward_input"):
            plan = depthwise_conv_select.plan(
                problem(direction, case, Layout.NCHW, 90, 2), Configuration(4, 32, (2, 8), True, 4)
            )
            assert (plan.columns.chunk, plan.store) == (columns, columns)
