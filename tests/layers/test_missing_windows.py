"""The gradient of the input, where taps are not finite, beside PyTorch's own operator: a pixel that lies in fewer
windows than a filter has taps has the products of those alone (docs/conv.md), by every kernel, layout, type, plan and
backend."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels.common import missing_windows
from torch import Tensor

import cnnkernels.functional as ours
from cnnkernels import native, triton_kernels, use_backend
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import depthwise
from helpers.conv import (
    ELEMENTS,
    ConvRunner,
    assert_same,
    convolve,
    floats,
    integers,
    not_finite_anywhere,
    random_case,
    torch_alloc,
)
from helpers.conv_grouped import WIDTHS
from helpers.conv_grouped import plan as grouped_plan
from helpers.conv_sm90 import CLUSTERS, TILES
from helpers.conv_sm90 import plan as hopper_plan
from helpers.depthwise_conv import TYPES, DepthwiseRunner
from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.native import why_no_wgmma

THIS = "backward_input"
NHWC = Layout.NHWC
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
backends = pytest.mark.parametrize("backend", ["cuda", "triton"])
quiet = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter

STRIDE_1 = ConvCase("stride 1", 1, 16, 9, 7, 64, 3, 3, padding=(1, 2, 1, 0))
STRIDED = ConvCase("phases", 2, 16, 9, 8, 64, 3, 3, (3, 2), (2, 2, 1, 1), (2, 1))
FEW = ConvCase("few channels", 2, 8, 5, 6, 16, 3, 3, padding=(0, 1, 1, 0))
SHORT_RUNS = ("256x128", "256x64", "128x64", "128x128 ping-pong")


def beside(flat: Tensor) -> Tensor:
    """In memory that begins at no multiple of 16 bytes."""
    memory = torch.empty(flat.numel() + 1, dtype=flat.dtype, device=flat.device)[1:]
    return memory.copy_(flat)


@pytest.fixture(scope="module")
def module() -> Any:
    return native.load(MODULE).module


def trials(seed: int, count: int, **kind: Any) -> Iterator[tuple[ConvCase, tuple[Tensor, Tensor], random.Random]]:
    """Random cases and operands; most have a pixel where PyTorch's answer is not that of multiplied zeros."""
    chance = random.Random(seed)
    for _ in range(count):
        case = random_case(chance, **kind)
        yield case, not_finite_anywhere(case, chance), chance


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("channels", [1, 8], ids=["any channels", "vectors of channels"])
def test_conv2d(module: Any, seed: int, channels: int) -> None:
    """What selection takes, and the implicit GEMM with tiles and loaders of chance."""
    runner = ConvRunner(module, DEVICE)
    for case, operands, chance in trials(seed, 12, channels=channels):
        expected = convolve(THIS, case, *operands)
        element, layout = chance.choice(list(ELEMENTS)), chance.choice(list(Layout))
        tile = chance.randint(1 if element == "fp64" else 0, 2)
        for plan in (None, runner.plan(element, tile, "elements", "elements")):
            place = chance.choice([torch_alloc, beside])
            found = runner.run(THIS, case, layout, element, operands, plan, place=place)
            assert_same(found, expected, (case, element, layout, tile, place))


@pytest.mark.parametrize("seed", range(2))
def test_depthwise_conv2d(module: Any, seed: int) -> None:
    runner = DepthwiseRunner(module, DEVICE)
    for case, operands, chance in trials(seed, 15, depthwise=True):
        expected = convolve(THIS, case, *operands)
        element, layout = chance.choice(list(TYPES)), chance.choice(list(Layout))
        assert_same(runner.run(THIS, case, layout, element, operands), expected, (case, element, layout))


@pytest.mark.usefixtures("on_a_hopper")
@pytest.mark.skipif(why_no_wgmma() is not None, reason="wgmma is Hopper's")
@pytest.mark.parametrize("tile", TILES + CLUSTERS)
def test_every_tile_of_wgmma(module: Any, tile: str) -> None:
    """Stored by TMA, and by the strides of phases."""
    runner, chance = ConvRunner(module, DEVICE), random.Random(tile)
    for case in (STRIDE_1, STRIDED, FEW) if tile in SHORT_RUNS else (STRIDE_1, STRIDED):
        operands = not_finite_anywhere(case, chance)
        element = chance.choice(["bf16", "fp16"])
        found = runner.run(THIS, case, NHWC, element, operands, hopper_plan(runner, tile))
        assert_same(found, convolve(THIS, case, *operands), (case, element))


@pytest.mark.parametrize("case", WIDTHS, ids=str)
def test_groups_of_few_channels(module: Any, case: ConvCase) -> None:
    runner, chance = ConvRunner(module, DEVICE), random.Random(str(case))
    for stride, dilation in (((1, 1), (1, 1)), ((2, 3), (1, 2))):
        of = ConvCase(case.reason, *case.input_shape, case.k, 3, 3, stride, (1, 2, 3, 0), dilation, case.groups)
        for element in ("bf16", "fp16"):
            operands = not_finite_anywhere(of, chance)
            plan = grouped_plan(runner, blocks=chance.choice([0, 3]), direction=THIS)
            found = runner.run(THIS, of, NHWC, element, operands, plan)
            assert_same(found, convolve(THIS, of, *operands), (of, element))


@layouts
@pytest.mark.parametrize("case", [STRIDE_1, STRIDED, FEW], ids=str)
def test_packed(module: Any, case: ConvCase, layout: Layout) -> None:
    """Odd channels, of which packed copies make whole vectors."""
    runner, chance = ConvRunner(module, DEVICE), random.Random(str(case))
    odd = ConvCase(case.reason, case.n, case.c - 3, case.h, case.w, case.k - 1, *case.weight_shape[2:], case.stride,
                   case.padding, case.dilation)  # fmt: skip
    operands = not_finite_anywhere(odd, chance)
    plan = runner.plan("bf16", 1, "along_depth", "along_side", packing="channels")
    assert_same(runner.run(THIS, odd, layout, "bf16", operands, plan), convolve(THIS, odd, *operands))


@layouts
@pytest.mark.parametrize("groups", [1, 4, 8], ids=["dense", "narrow groups", "depthwise"])
def test_a_neighbour_has_no_part_in_it(layout: Layout, groups: int) -> None:
    """A sample's bits, where another of its tile is NaN, and the bits of every channel without such a tap."""
    case = ConvCase("", 3, 8, 5, 4, 8, 3, 3, (2, 1), (1, 1, 1, 1), groups=groups)
    data = floats(case, torch.float32)
    dy, w = (t.float().to(DEVICE).contiguous(memory_format=layout.memory_format) for t in (data.dy, data.w))

    def gradient(dy: Tensor, w: Tensor) -> Tensor:
        x = torch.zeros(len(dy), *case.input_shape[1:], device=DEVICE).contiguous(memory_format=layout.memory_format)
        with use_backend("cuda"):
            return torch.autograd.grad(ours.conv2d(x.requires_grad_(), w, None, (2, 1), 1, 1, groups), x, dy)[0].cpu()

    clean = gradient(dy, w)
    w[0, 0, 0, 0], dy[1, 0, 2, 1] = math.inf, math.nan
    together = gradient(dy, w)
    assert together[:, 0].isnan().any()
    finite = together[[0, 2], 0].isfinite()
    assert finite.any() and torch.equal(together[[0, 2], 1:], clean[[0, 2], 1:])
    for i in range(case.n):
        assert_same(gradient(dy[i : i + 1], w)[0], together[i])


@quiet
@layouts
@pytest.mark.parametrize(("element", "unit"), [("fp16", 2.0**-10), ("bf16", 2.0**-7), ("tf32", 2.0**-12)])
def test_sums_are_rounded_once(module: Any, element: str, unit: float, layout: Layout) -> None:
    """1 and six eighths of the last place, which additions would lose in 16 bits; of TF32, what it would cut off."""
    case, (dtype, _, tf32) = ConvCase("", 1, 8, 3, 3, 8, 2, 2), ELEMENTS[element]
    dy, w, dx = (torch.zeros(s, dtype=torch.float64) for s in (case.output_shape, case.weight_shape, case.input_shape))
    dy[:, 0], dy[:, 1:7] = (1 + unit, 0) if tf32 else (1, unit / 8)
    w[:], w[0, :, 1, 1] = 1, math.inf
    expected = dy[0, :, 0, 0].sum().to(dtype)  # the first pixel lies in the first window alone
    assert expected > 1
    found = ConvRunner(module, DEVICE).run(THIS, case, layout, element, (dy, w))
    assert (found[:, :, 0, 0] == expected).all()
    dy, w, dx = (t.to(DEVICE, dtype).contiguous(memory_format=layout.memory_format) for t in (dy, w, dx))
    triton_kernels.conv_backward_input(dy, w, dx, case.geometry, layout, tf32)
    assert (dx[:, :, 0, 0].cpu() == expected).all()


@quiet
@pytest.mark.parametrize("kind", [{}, {"channels": 4}, {"depthwise": True}], ids=["conv2d", "vectors", "depthwise"])
def test_triton(kind: dict[str, Any]) -> None:
    """What selection takes: products, narrow groups element by element, patches of depthwise convolutions."""
    for case, operands, chance in trials(3, 12, **kind):
        name, rest = ("conv", (False,)) if case.groups < case.c else ("depthwise_conv", ())
        element, layout = chance.choice(list(TYPES)), chance.choice(list(Layout))
        dy, w, dx = (
            t.to(DEVICE, ELEMENTS[element][0]).contiguous(memory_format=layout.memory_format)
            for t in (*operands, torch.full(case.input_shape, math.nan))
        )
        getattr(triton_kernels, f"{name}_{THIS}")(dy, w, dx, case.geometry, layout, *rest)
        assert_same(dx.cpu(), convolve(THIS, case, *operands), (case, element, layout))


@quiet
@backends
@layouts
@pytest.mark.parametrize("groups", [1, 8], ids=["dense", "depthwise"])
def test_derivatives_beside_pytorch(backend: str, layout: Layout, groups: int) -> None:
    """All gradients of a layer, and the second derivative that is an input's gradient once more."""
    case = ConvCase("", 2, 8, 6, 5, 8, 3, 3, (2, 1), (1, 1, 1, 1), groups=groups)
    data, chance = integers(case), random.Random(groups)
    dy, w = (t.float() for t in not_finite_anywhere(case, chance))
    results = []
    for run, on, conv in (("reference", "cpu", F.conv2d), (backend, DEVICE, ours.conv2d)):
        x, v, b, g, finite = (t.float().to(on, copy=True) for t in (data.x, w, torch.zeros(case.k), dy, data.w))
        x, v, finite = (t.contiguous(memory_format=layout.memory_format) for t in (x, v, finite))
        with use_backend(run), torch.backends.mkldnn.flags(enabled=False):
            inputs = [t.requires_grad_() for t in (x, v, b)]
            first = torch.autograd.grad(conv(x, v, b, (2, 1), 1, 1, groups), inputs, g)
            y = conv(x, finite.requires_grad_(), None, (2, 1), 1, 1, groups)
            of_filter = torch.autograd.grad(y, finite, g, create_graph=True)[0]
            results.append([t.detach().cpu() for t in (*first, torch.autograd.grad(of_filter, x, v.detach())[0])])
    for theirs, mine in zip(*results, strict=True):
        assert_same(mine, theirs)
    assert results[0][0].isfinite().any() and not results[0][0].isfinite().all()


@backends
@layouts
@pytest.mark.parametrize("groups", [1, 4, 8], ids=["dense", "narrow groups", "depthwise"])
@quiet
def test_a_transposed_convolution_finishes_what_is_made_anew(backend: str, layout: Layout, groups: int) -> None:
    """Bias, scale, shift, residual and activation, as of every other sum."""
    generator = torch.Generator().manual_seed(groups)

    def number(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=generator).float().to(DEVICE)

    x, w, residual = number(2, 8, 4, 4), number(8, 8 // groups, 3, 3), number(2, 8, 9, 6)
    w[1, 0, 0, 0], w[5, 0, 2, 1] = math.inf, -math.inf
    bias, scale, shift = (number(8) for _ in range(3))
    scale[scale == 0] = 2
    with torch.backends.mkldnn.flags(enabled=False):
        sums = F.conv_transpose2d(
            x.cpu().double(), w.cpu().double(), bias.cpu().double(), (2, 1), (0, 1), 0, groups, (1, 2)
        )
    true = sums * scale.cpu()[:, None, None] + shift.cpu()[:, None, None] + residual.cpu()
    true = torch.where(true < 0, 0.5 * true, true)
    placed = [t.contiguous(memory_format=layout.memory_format) for t in (x, w, residual)]
    with use_backend(backend):
        found = ours.conv_transpose2d(
            placed[0], placed[1], bias, (2, 1), (0, 1), groups=groups, dilation=(1, 2), activation="leaky_relu",
            negative_slope=0.5, residual=placed[2], scale=scale, shift=shift,
        )  # fmt: skip
    assert true.isfinite().any() and not true.isfinite().all()
    assert_same(found.cpu().double(), true)


@quiet
@backends
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(backend: str, mode: str) -> None:
    """The windows that are missing are those of the padded image, whose border is folded back."""
    results = []
    for run, on in (("reference", "cpu"), (backend, DEVICE)):
        x, w = torch.ones(1, 4, 5, 6, device=on).requires_grad_(), torch.ones(3, 4, 3, 3, device=on)
        w[0, 1, 0, 2] = math.inf
        with use_backend(run), torch.backends.mkldnn.flags(enabled=False):
            if run == "reference":
                y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode), w)
            else:
                y = ours.conv2d(x, w, padding=1, padding_mode=mode)
            results.append(torch.autograd.grad(y.sum(), x)[0].cpu())
    assert_same(results[1], results[0])
    assert results[0].isinf().any() and not results[0].isnan().any()


# A convolution, how many launches make its gradient, and the pixels of an image that miss a window.
LAUNCHES = [
    (ConvCase("1x1", 2, 8, 6, 5, 8, 1, 1), 1, 0),
    (ConvCase("patches", 2, 8, 6, 4, 8, 2, 2, (2, 2)), 4, 0),
    (ConvCase("patches that leave a row", 2, 8, 7, 4, 8, 2, 2, (2, 2)), 4, 4),
    (ConvCase("3x3", 2, 8, 56, 56, 8, 3, 3, padding=(1, 1, 1, 1)), 1, 220),
    (ConvCase("stride 2, of which nothing is missing in front", 2, 8, 8, 6, 8, 3, 3, (2, 2), (1, 1, 1, 1)), 4, 13),
    (ConvCase("padding above the kernel", 2, 8, 4, 3, 8, 3, 2, padding=(5, 4, 3, 6)), 1, 0),
    (ConvCase("no padding", 2, 8, 4, 3, 8, 3, 2), 1, 12),
    (depthwise("depthwise patches", 2, 8, (6, 4), (2, 2), (2, 2)), 1, 0),
    (depthwise("depthwise", 2, 8, (9, 7), (5, 3), padding=(2, 1)), 1, 38),
]


@pytest.mark.parametrize(
    ("case", "launches", "pixels"), LAUNCHES, ids=lambda x: str(x) if isinstance(x, ConvCase) else ""
)
def test_the_border_alone_is_looked_at(
    module: Any, monkeypatch: pytest.MonkeyPatch, case: ConvCase, launches: int, pixels: int
) -> None:
    """One launch more, a thread for each 16 bytes of the border, or each element; none where no window is missing."""
    operands, of_depthwise = integers(case).operands(THIS), case.groups == case.c
    runner: ConvRunner | DepthwiseRunner = (DepthwiseRunner if of_depthwise else ConvRunner)(module, DEVICE)
    for layout, each in () if HAS_GPU else ((NHWC, 8 // 4), (Layout.NCHW, 8)):
        module.set_recording(True)
        try:
            runner.run(THIS, case, layout, "fp32", operands)
            recorded = module.set_recording(True)
        finally:
            module.set_recording(False)
        assert len(recorded) == launches + (pixels > 0)
        if pixels > 0:
            assert recorded[-1][0] == (-(-case.n * pixels * each // 256), 1, 1)

    grids: list[tuple[int, ...]] = []

    class Recorded:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return lambda *_, **__: None

    monkeypatch.setattr(missing_windows, "missing_windows_kernel", Recorded())
    name, rest = ("depthwise_conv", ()) if of_depthwise else ("conv", (False,))
    dy, w = (t.float().to(DEVICE) for t in operands)
    dx = torch.empty(case.input_shape, device=DEVICE)
    getattr(triton_kernels, f"{name}_{THIS}")(dy, w, dx, case.geometry, Layout.NCHW, *rest)
    elements = case.n * pixels * case.c
    assert grids == ([(-(-elements // missing_windows.BLOCK),)] if pixels else [])
