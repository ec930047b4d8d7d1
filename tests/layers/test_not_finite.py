"""An infinity or a NaN at an image's border: what lies outside is zeros, by which taps are multiplied, and 0 x inf is
NaN; what lies outside of the error is windows that do not exist, by which nothing is (docs/conv.md). One rule for every
operator, direction, kernel, layout, type and backend."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cnnkernels.functional as ours
from cnnkernels import native, nn, triton_kernels, use_backend
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import depthwise
from helpers.conv import (
    DIRECTIONS,
    ELEMENTS,
    ConvRunner,
    assert_same,
    convolve,
    not_finite,
    not_finite_result,
    over_existing_windows,
    result_shape,
)
from helpers.conv_grouped import KINDS as GROUPED
from helpers.conv_grouped import plan as grouped_plan
from helpers.conv_sm90 import plan as hopper_plan
from helpers.conv_sm90 import serves
from helpers.depthwise_conv import TYPES, DepthwiseRunner
from helpers.depthwise_separable_conv import CONFIGURATIONS, SAME, PairRunner, pair_case
from helpers.device import DEVICE, HAS_GPU, MODULE

NCHW, NHWC = Layout.NCHW, Layout.NHWC
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
directions = pytest.mark.parametrize("direction", DIRECTIONS)
whichs = pytest.mark.parametrize("which", [0, 1], ids=["first", "second"])  # operand
backends = pytest.mark.parametrize("backend", ["cuda", "triton"])

DENSE = [
    ConvCase("3x3", 2, 8, 5, 7, 16, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("uneven everything", 2, 9, 11, 8, 10, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1)),
    ConvCase("stride 2 dilation 2 share a factor", 1, 8, 9, 9, 8, 3, 3, (2, 2), (2, 2, 2, 2), (2, 2)),
    ConvCase("padding above the kernel", 1, 8, 4, 3, 8, 3, 2, padding=(5, 4, 3, 6)),
    ConvCase("two groups of odd width", 1, 10, 5, 6, 14, 3, 3, padding=(1, 1, 1, 1), groups=2),
]


@pytest.fixture(scope="module")
def module() -> Any:
    return native.load(MODULE).module


@directions
@whichs
def test_pytorch_has_the_rule(direction: str, which: int) -> None:
    """Its operator without oneDNN, in every type and layout."""
    case = ConvCase("", 2, 6, 7, 6, 9, 3, 3, (2, 1), (1, 1, 1, 1), groups=3)
    first, second = not_finite(case, direction, which)
    expected = convolve(direction, case, first, second)
    if direction == "backward_input":
        assert_same(over_existing_windows(case, first, second), expected)
    for element, layout in [(e, m) for e in ("fp64", "fp32", "bf16") for m in Layout]:
        a, b = (t.to(ELEMENTS[element][0]).contiguous(memory_format=layout.memory_format) for t in (first, second))
        with torch.backends.mkldnn.flags(enabled=False):
            if direction == "forward":
                theirs = F.conv2d(a, b, None, case.stride, 1, 1, case.groups)
            else:
                wanted, shape = direction == "backward_input", result_shape(direction, case)
                x, w = (a.new_empty(shape), b) if wanted else (b, a.new_empty(shape))
                theirs = torch.ops.aten.convolution_backward(
                    a, x, w, None, case.stride, [1, 1], [1, 1], False, [0, 0], case.groups, [wanted, not wanted, False]
                )[0 if wanted else 1]
        assert_same(theirs, expected, (element, layout))


@directions
@whichs
@pytest.mark.parametrize("case", DENSE, ids=str)
def test_conv2d(module: Any, direction: str, which: int, case: ConvCase) -> None:
    runner, operands = ConvRunner(module, DEVICE), not_finite(case, direction, which)
    expected = not_finite_result(case, direction, which)
    for element, layout in [(e, layout) for e in ELEMENTS for layout in Layout]:
        assert_same(runner.run(direction, case, layout, element, operands), expected, (element, layout))


@pytest.mark.usefixtures("on_a_hopper")
@directions
@whichs
def test_conv_by_plan(module: Any, direction: str, which: int) -> None:
    """The kernels for Hopper and for groups of few channels, and what an A100 would take."""
    runner = ConvRunner(module, DEVICE)
    few = ConvCase("stride and dilation", 1, 16, 12, 11, 24, 3, 3, (2, 1), (2, 2, 1, 1), (2, 1))
    plans: list[tuple[ConvCase, Any]] = [(case, grouped_plan(runner, direction=direction)) for case in GROUPED]
    plans += [(DENSE[0], runner.tiled_plan(direction, DENSE[0], NHWC, "bf16"))]
    if not HAS_GPU or torch.cuda.get_device_capability() == (9, 0):
        plans += [(case, hopper_plan(runner)) for case in (DENSE[0], few) if serves(direction, case)]
    for case, plan in plans:
        operands = not_finite(case, direction, which)
        expected = not_finite_result(case, direction, which)
        assert_same(runner.run(direction, case, NHWC, "bf16", operands, plan), expected, plan)


# Every kernel of depthwise_conv2d, by stride, dilation and chunk; 0 takes taps one at a time.
WALKS = [(1, 1, 3), (1, 1, 5), (1, 1, 7), (2, 1, 3), (2, 1, 5), (1, 1, 0), (2, 1, 0), (3, 2, 0), (2, 2, 0)]


@directions
@whichs
@pytest.mark.parametrize("access", ["vector", "slab", "element"])
@pytest.mark.parametrize(("stride", "dilation", "chunk"), WALKS)
def test_depthwise_conv2d(
    module: Any, direction: str, which: int, access: str, stride: int, dilation: int, chunk: int
) -> None:
    """Filters wider than a chunk and, of slabs, as wide: those have a kernel of their own."""
    runner, layout = DepthwiseRunner(module, DEVICE), NCHW if access == "slab" else NHWC
    if (access == "element" and chunk > 0) or (access == "slab" and direction != "forward" and stride == 2):
        chunk = min(chunk, 0 if access == "element" else 3)
    for taps in (chunk,) if access == "slab" and chunk > 3 else (chunk or 2, chunk + 1):
        case = depthwise("", 1, 8, (9, 10), (taps, taps), (stride,) * 2, (2, 3), (dilation,) * 2)
        operands = not_finite(case, direction, which)
        expected = not_finite_result(case, direction, which)
        elements = ["bf16"] if chunk == 7 else ["fp32", "fp16"] if chunk == 5 else list(TYPES)
        for element in elements:
            plan = runner.plan(direction, case, layout, element, chunk=chunk)
            if access == "element":
                plan.vector, plan.lanes, plan.workers = 1, 2, 16
            assert plan.slab == (access == "slab")
            assert_same(runner.run(direction, case, layout, element, operands, plan), expected, (element, plan))


OTHERWISE = [
    depthwise("several filters a channel", 2, 3, (7, 6), (3, 3), (2, 1), (1, 1), multiplier=2),
    depthwise("batches of taps", 1, 8, (4, 5), (97, 9), padding=(48, 4)),
    depthwise("bands", 2, 8, (5, 7), (13, 13), padding=(6, 6)),
    ConvCase("steps beyond the image, which are cut", 1, 8, 3, 4, 8, 2, 2, (9, 7), (1, 6, 1, 9), (8, 11), groups=8),
]


@directions
@whichs
@layouts
@pytest.mark.parametrize("case", OTHERWISE, ids=str)
def test_depthwise_conv_otherwise(module: Any, direction: str, which: int, layout: Layout, case: ConvCase) -> None:
    operands = not_finite(case, direction, which)
    expected = not_finite_result(case, direction, which)
    assert_same(DepthwiseRunner(module, DEVICE).run(direction, case, layout, "bf16", operands), expected)


TRITON = [
    ConvCase("conv2d", 1, 4, 5, 7, 5, 3, 2, (2, 1), (1, 1, 1, 0)),
    depthwise("3x3 whose patches end beyond the image", 1, 7, (7, 6), (3, 3), padding=(1, 1)),
    depthwise("5x3 stride 2", 1, 4, (8, 9), (5, 3), (2, 2), (2, 1)),
    depthwise("stride 6 has no patch", 1, 2, (4, 3), (3, 2), (6, 6), (1, 1)),
    ConvCase("narrow groups", 1, 2, 3, 4, 4, 2, 2, (1, 2), (1, 1, 0, 1), groups=2),
]


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@directions
@whichs
@pytest.mark.parametrize("case", TRITON, ids=str)
def test_triton(direction: str, which: int, case: ConvCase) -> None:
    operands = not_finite(case, direction, which)
    expected = not_finite_result(case, direction, which)
    name, rest = ("conv", {"tf32": False}) if case.groups < case.c else ("depthwise_conv", {})
    for layout, dtype in ((NCHW, torch.float32), (NHWC, torch.bfloat16)):
        shape = result_shape(direction, case)
        a, b, out = (
            t.to(DEVICE, dtype).contiguous(memory_format=layout.memory_format)
            for t in (*operands, torch.full(shape, math.nan))
        )
        bias = (None,) if direction == "forward" else ()
        getattr(triton_kernels, f"{name}_{direction}")(a, b, *bias, out, case.geometry, layout, **rest)
        assert_same(out.cpu(), expected, layout)


PAIRS = [pair_case(1, 16, 5, 6, 8, **SAME), pair_case(1, 8, 6, 9, 8, stride=(2, 1), padding=(1, 1, 1, 1))]


def pair_operands(case: Any, which: int) -> tuple[Tensor, ...]:
    """Input, filters and biases, and what is expected of the intermediate."""
    x, w = not_finite(case.depthwise, "forward", which)
    z = convolve("forward", case.depthwise, x, w)
    return x, w, torch.ones(case.pointwise_shape).double(), torch.zeros(z.shape[1]), torch.zeros(case.filters), z


@whichs
@pytest.mark.usefixtures("on_a_hopper")
def test_every_pair(which: int) -> None:
    """The intermediate, which the kernels can save, in every kernel that makes one."""
    runner = PairRunner()
    hopper = not HAS_GPU or torch.cuda.get_device_capability() == (9, 0)
    for case in PAIRS:
        *tensors, z = pair_operands(case, which)
        for element, tile, reader in CONFIGURATIONS:
            if reader == "rows_of_three" and case is not PAIRS[0]:
                continue
            for wgmma in (False, True) if hopper and element == "bf16" and tile > 0 and reader != "elements" else (0,):
                plan = runner.plan(tile, reader, wgmma=bool(wgmma))
                assert_same(runner.run(case, NHWC, element, tuple(tensors), plan)[1], z, (element, plan))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@backends
@layouts
def test_the_layers_of_a_pair(backend: str, layout: Layout) -> None:
    """One channel has the infinite tap: the output is finite where no window multiplies it."""
    with use_backend(backend):
        x, w = (torch.ones(1, 8, 4, 5), torch.ones(8, 1, 3, 3))
        w[3, 0, 0, 2] = math.inf
        x, w = (t.to(DEVICE).contiguous(memory_format=layout.memory_format).requires_grad_() for t in (x, w))
        y = ours.depthwise_separable_conv2d(x, w, torch.ones(8, 8, 1, 1, device=DEVICE), padding=1)
        expected = F.conv2d(F.pad(torch.ones(1, 1, 4, 5), (1, 1, 1, 1)), w[3:4].detach().cpu())
        assert expected.isnan().any() and expected.isinf().any()
        assert torch.equal(y[:, :1].isnan().cpu(), expected.isnan())
        dx, dw = torch.autograd.grad(y, (x, w), torch.ones_like(y))
        case = depthwise("", 1, 8, (4, 5), (3, 3), padding=(1, 1))
        error = torch.full(case.output_shape, 8.0)
        assert_same(dx.cpu(), convolve("backward_input", case, error, w.detach().cpu()))
        assert_same(dw.cpu(), convolve("backward_weight", case, error, x.detach().cpu()))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@backends
@layouts
@pytest.mark.parametrize("groups", [1, 4], ids=["dense", "depthwise"])
def test_padding_modes(backend: str, layout: Layout, groups: int) -> None:
    """Zeros are padded by none of the others; "same" of an even filter pads one side more."""
    x, w = torch.ones(1, 4, 5, 6), torch.ones(4, 4 // groups, 4, 3)
    w[..., 0, 0] = math.inf
    sides = (1, 1, 1, 2)  # left, right, top, bottom
    on_device = [t.to(DEVICE).contiguous(memory_format=layout.memory_format) for t in (x, w)]
    with use_backend(backend):
        same = ours.conv2d(*on_device, padding="same", groups=groups)
        assert_same(same.cpu(), F.conv2d(F.pad(x, sides), w, groups=groups))
        for mode in ("reflect", "replicate", "circular"):
            y = border_layer(mode, groups, w, layout)(on_device[0])
            assert_same(y.detach().cpu(), F.conv2d(F.pad(x, (1, 1, 1, 1), mode), w, groups=groups), mode)
            assert y.isinf().all()


def border_layer(mode: str, groups: int, weight: Tensor, layout: Layout) -> torch.nn.Module:
    layer = nn.Conv2d(4, 4, tuple(weight.shape[2:]), padding=1, groups=groups, bias=False, padding_mode=mode)
    layer.weight.data = weight.contiguous(memory_format=layout.memory_format)
    return layer.to(DEVICE)


@backends
@layouts
def test_pooling(backend: str, layout: Layout) -> None:
    """Padding is -inf there, which no window takes: PyTorch's values, places and gradient."""
    x = torch.arange(2 * 3 * 7 * 6.0).view(2, 3, 7, 6) % 11
    for i, value in enumerate((math.nan, math.inf, -math.inf)):
        x[:, i, 0, :2] = x[:, i, -1, -1] = x[:, i, 3:5, 0] = value
    x[1, 2] = -math.inf
    results = []
    for run in (F.max_pool2d, ours.max_pool2d):
        of = x.to(DEVICE if run is ours.max_pool2d else "cpu").contiguous(memory_format=layout.memory_format)
        of.requires_grad_()
        with use_backend(backend):
            y, places = run(of, 3, 2, 1, return_indices=True)
            results.append([t.cpu() for t in (y.detach(), places, torch.autograd.grad(y, of, torch.ones_like(y))[0])])
    for theirs, mine in zip(*results, strict=True):
        assert_same(mine, theirs)
