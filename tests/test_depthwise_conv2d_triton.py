"""depthwise_conv2d's Triton kernels beyond the common exact tests: every configuration and the bits' independence of
it, both widths of arithmetic, ranges of a sum, and what is left to the elementwise kernels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels import depthwise_conv2d, depthwise_conv2d_select
from cnnkernels.triton_kernels.depthwise_conv2d_select import Configuration, Problem
from conftest import DEVICE
from torch import Tensor

from cnnkernels import triton_kernels as kernels
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import Conv2dCase
from cnnkernels.testing.numerics import assert_within, rounding_bound, small_integers

OPS = ("forward", "backward_input", "backward_weight")
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
ops = pytest.mark.parametrize("op", OPS)


def depthwise(
    reason: str,
    n: int,
    c: int,
    h: int,
    w: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    multiplier: int = 1,
) -> Conv2dCase:
    return Conv2dCase(reason, n, c, h, w, c * multiplier, *kernel, stride, padding, dilation, groups=c)


SAME = depthwise("3x3 of 16 bytes a row and a pixel", 2, 16, 9, 16, (3, 3), padding=(1, 1, 1, 1))
ODD = depthwise("3x3 of odd channels and widths", 3, 7, 8, 7, (3, 3), padding=(1, 1, 1, 1))
STRIDED = depthwise("5x5 stride 2", 2, 8, 12, 16, (5, 5), (2, 2), (2, 2, 2, 2))
UNEVEN = depthwise("uneven everything", 2, 5, 11, 8, (2, 5), (3, 2), (1, 0, 4, 2), (2, 1), multiplier=3)
SHARED = depthwise("stride 2 dilation 2 share a factor", 1, 8, 9, 9, (3, 3), (2, 2), (2, 2, 2, 2), (2, 2))
LARGE = depthwise("13x13 on 7x7", 2, 6, 7, 7, (13, 13), padding=(6, 6, 6, 6))
LONG = depthwise("stride 6 has more phases than a patch", 2, 3, 14, 13, (3, 2), (6, 6), (1, 1, 1, 1))
CASES = (
    SAME,
    ODD,
    STRIDED,
    UNEVEN,
    SHARED,
    LARGE,
    LONG,
    depthwise("1x1 stride 2 leaves phases empty", 2, 8, 7, 6, (1, 1), (2, 2)),
    depthwise("stride above kernel skips inputs", 2, 8, 10, 11, (2, 2), (4, 3)),
    depthwise("padding above the kernel", 1, 8, 4, 3, (3, 2), padding=(5, 4, 3, 6)),
    depthwise("stride 3 dilation 2", 1, 8, 14, 13, (3, 3), (3, 3), (2, 2, 2, 2), (2, 2)),
    depthwise("one channel, 31x31", 1, 1, 9, 8, (31, 31), padding=(15, 15, 15, 15)),
    depthwise("100 channels", 1, 100, 5, 4, (3, 3), padding=(1, 1, 1, 1)),
)


def integers(case: Conv2dCase) -> dict[str, Tensor]:
    return {
        "x": small_integers(case.input_shape, torch.float64, seed=1, bound=1),
        "w": small_integers(case.weight_shape, torch.float64, seed=2, bound=1),
        "b": small_integers((case.k,), torch.float64, seed=3),
        "dy": small_integers(case.output_shape, torch.float64, seed=4, bound=1),
    }


def floats(case: Conv2dCase, dtype: torch.dtype) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(t.shape, generator=generator).to(dtype) for name, t in integers(case).items()}


def reference(op: str, case: Conv2dCase, given: dict[str, Tensor]) -> Tensor:
    """By PyTorch, in the type given."""
    x, w = given["x"].detach().requires_grad_(), given["w"].detach().requires_grad_()
    top, bottom, left, right = case.padding
    padded = F.pad(x, (left, right, top, bottom))
    y = F.conv2d(padded, w, given["b"], case.stride, 0, case.dilation, case.groups)
    if op == "forward":
        return y.detach()
    return torch.autograd.grad(y, x if op == "backward_input" else w, given["dy"])[0]


def run(
    op: str,
    case: Conv2dCase,
    given: dict[str, Tensor],
    dtype: torch.dtype,
    layout: Layout,
    configuration: Configuration | None = None,
) -> Tensor:
    def place(tensor: Tensor) -> Tensor:
        return tensor.to(DEVICE, dtype).to(memory_format=layout.memory_format)

    shape = {"forward": case.output_shape, "backward_input": case.input_shape, "backward_weight": case.weight_shape}[op]
    out = place(torch.full(shape, math.nan))
    x, w, dy = (place(given[name]) for name in ("x", "w", "dy"))
    if op == "forward":
        bias = given["b"].to(DEVICE, dtype)
        kernels.depthwise_conv2d_forward(x, w, bias, out, case.geometry, layout, configuration)
    elif op == "backward_input":
        kernels.depthwise_conv2d_backward_input(dy, w, out, case.geometry, layout, configuration)
    else:
        kernels.depthwise_conv2d_backward_weight(dy, x, out, case.geometry, layout, configuration)
    return out.cpu()


def problem(op: str, case: Conv2dCase, dtype: torch.dtype, layout: Layout, arch: int = 0) -> Problem:
    return Problem(op, dtype.itemsize, layout, case.geometry, arch)  # type: ignore[arg-type]


@ops
@layouts
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact(op: str, layout: Layout, case: Conv2dCase) -> None:
    given = integers(case)
    expected = reference(op, case, given)
    for dtype in (torch.float32, torch.bfloat16) if case.r < 13 else (torch.bfloat16,):
        assert torch.equal(run(op, case, given, dtype, layout), expected.to(dtype)), dtype


@ops
@layouts
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=["fp64", "fp16"])
def test_other_types_are_exact(op: str, layout: Layout, dtype: torch.dtype) -> None:
    given = integers(STRIDED)
    assert torch.equal(run(op, STRIDED, given, dtype, layout), reference(op, STRIDED, given).to(dtype))


@ops
@layouts
@pytest.mark.parametrize("case", [SAME, UNEVEN], ids=str)
def test_every_configuration(op: str, layout: Layout, case: Conv2dCase) -> None:
    """Forward and backward_input give the same bits by all of them; backward_weight's lanes cut the sum differently."""
    given = integers(case) if op == "backward_weight" else floats(case, torch.float32)
    found = depthwise_conv2d_select.candidates(problem(op, case, torch.float32, layout))
    configurations = {(c.patch, c.unrolled, c.band): c for c in reversed(found)}.values()  # each in its widest tile
    assert len(configurations) > 3
    expected = run(op, case, given, torch.float32, layout)  # what test_exact compares
    for c in configurations:
        assert torch.equal(run(op, case, given, torch.float32, layout, c), expected), str(c)


@ops
@layouts
def test_many_small_programs(op: str, layout: Layout) -> None:
    given = integers(ODD)
    c = Configuration(2, 4, (2, 2), True, 1, ODD.r if op == "backward_weight" else 0)
    assert torch.equal(run(op, ODD, given, torch.float32, layout, c), reference(op, ODD, given).float())


@ops
@layouts
def test_64_bit_arithmetic(monkeypatch: pytest.MonkeyPatch, op: str, layout: Layout) -> None:
    monkeypatch.setattr(depthwise_conv2d, "LARGEST_INDEX", 0)
    given = integers(UNEVEN)
    assert torch.equal(run(op, UNEVEN, given, torch.float32, layout), reference(op, UNEVEN, given).float())


@layouts
def test_any_number_of_ranges_and_bands_gives_the_whole_sum(layout: Layout) -> None:
    given = integers(ODD)
    expected = reference("backward_weight", ODD, given).float()
    for band, splits in ((1, 1), (2, 2), (3, 5)):  # bands of 2 leave one of a single row
        c = Configuration(8, 8, (2, 2), True, 4, band, splits)
        assert torch.equal(run("backward_weight", ODD, given, torch.float32, layout, c), expected), str(c)


@ops
@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_rounding(op: str, layout: Layout, dtype: torch.dtype) -> None:
    given = floats(SAME, dtype)
    exact = {name: t.double() for name, t in given.items()}
    magnitude = reference(op, SAME, {name: t.abs() for name, t in exact.items()})
    g = SAME.geometry
    length = g.n * g.p * g.q if op == "backward_weight" else g.r * g.s
    expected, theirs = reference(op, SAME, exact), reference(op, SAME, given)
    bound = rounding_bound(expected, theirs, length, magnitude, dtype)
    assert_within(run(op, SAME, given, dtype, layout), expected, bound, op)


@ops
@layouts
def test_runs_agree_and_a_sample_does_not_depend_on_its_batch(op: str, layout: Layout) -> None:
    given = floats(ODD, torch.float32)
    together = run(op, ODD, given, torch.float32, layout)
    assert torch.equal(together, run(op, ODD, given, torch.float32, layout))
    if op != "backward_weight":
        single = depthwise("one sample", 1, ODD.c, ODD.h, ODD.w, (3, 3), padding=ODD.padding)
        for i in range(ODD.n):
            alone = given | {"x": given["x"][i : i + 1], "dy": given["dy"][i : i + 1]}
            assert torch.equal(together[i : i + 1], run(op, single, alone, torch.float32, layout))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@ops
@layouts
def test_an_infinity_stays_where_its_windows_reach(op: str, layout: Layout) -> None:
    """A patch, a tile and a masked tap multiply nothing that the sum does not contain."""
    given = integers(SAME)
    given["w"][given["w"] == 0] = 1
    given["dy"][given["dy"] == 0] = 1
    given["x"][given["x"] == 0] = 1
    given["x"][0, 3, 4, 5] = given["dy"][0, 3, 4, 5] = math.inf
    out, expected = run(op, SAME, given, torch.float32, layout), reference(op, SAME, given).float()
    assert torch.equal(out.nan_to_num(1e9), expected.nan_to_num(1e9))


@pytest.mark.parametrize("arch", [0, 80, 90, 100])
@layouts
def test_what_selection_leaves_to_the_elementwise_kernels(arch: int, layout: Layout) -> None:
    """Gradients of strides that a patch has no room for; everything else has a patch, whatever the type."""
    for case in CASES:
        for op in OPS:
            for dtype in (torch.float64, torch.float32, torch.bfloat16):
                found = depthwise_conv2d_select.choose(problem(op, case, dtype, layout, arch))
                assert (found is None) == (case is LONG and op == "backward_input"), f"{case} {op} {dtype}"
                if found and op == "backward_weight":
                    weights = torch.Size(case.weight_shape).numel() * max(4, dtype.itemsize)
                    assert found[0].splits * weights <= depthwise_conv2d_select.WORKSPACE_BYTES


def test_16_byte_accesses_where_rows_allow_them() -> None:
    """NCHW's loads and stores take what divides the width and the patch, and start there."""
    for width, columns in ((16, 8), (28, 4), (14, 2), (7, 1)):
        case = depthwise("width", 1, 64, 56, width, (3, 3), padding=(1, 1, 1, 1))
        for op in ("forward", "backward_input"):
            p = problem(op, case, torch.bfloat16, Layout.NCHW, 90)
            plan = depthwise_conv2d_select.plan(p, Configuration(4, 32, (2, 8), True, 4))
            assert (plan.columns.chunk, plan.store) == (columns, columns)
