"""conv2d's padding modes reflect, replicate and circular: read through the index where the kernels can, else copied.

Whatever the way, the result is that of PyTorch's F.pad and a convolution without padding, exactly on small integers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import cnnkernels.functional as ours
from cnnkernels import backends, native, nn, use_backend
from cnnkernels.geometry import Layout, PaddingMode
from cnnkernels.ops import border, conv_kernel
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import small_integers
from helpers.conv import ELEMENTS, ConvRunner, Data, integers
from helpers.device import DEVICE, HAS_GPU, MODULE

MODES = ("reflect", "replicate", "circular")
modes = pytest.mark.parametrize("mode", MODES)
NHWC = Layout.NHWC

# Padding as (top, bottom, left, right). Sizes of an axis differ from the other's and from the padding, so that rows
# taken for columns show.
UNEVEN = ConvCase("uneven sides", 2, 16, 5, 8, 24, 3, 2, padding=(1, 2, 3, 0))
MOST = ConvCase("the most that reflect takes", 1, 8, 4, 7, 8, 3, 4, padding=(3, 3, 6, 6))
STRIDED = ConvCase("stride and dilation 2", 2, 8, 9, 6, 8, 3, 3, (2, 2), (4, 3, 2, 5), (2, 2))
GROUPS = ConvCase("two groups", 2, 32, 6, 5, 48, 3, 3, padding=(2, 2, 1, 1), groups=2)
LARGE = ConvCase("several tiles, all stages", 2, 72, 9, 10, 136, 3, 3, padding=(1, 1, 2, 1))
ODD = ConvCase("odd channels", 2, 5, 6, 7, 3, 3, 3, padding=(1, 2, 2, 1))
WHOLE = ConvCase("a whole image around", 1, 8, 3, 5, 8, 3, 3, padding=(3, 3, 5, 5))
CASES = (UNEVEN, MOST, STRIDED, GROUPS)


class Bordered(ConvRunner):
    """conv2d's launchers under a padding mode."""

    mode = "zeros"

    def geometry(self, case: ConvCase) -> Any:
        return self.module.ConvGeometry(*case.geometry._replace(padding_mode=PaddingMode[self.mode.upper()]))

    def why_copy(self, direction: str, case: ConvCase, layout: Layout, element: str, gpu: str = "a100") -> str:
        _, dtype, tf32 = ELEMENTS[element]
        which = getattr(self.module.ConvDirection, direction)
        named = self.module.gpu_named(gpu)
        return self.module.conv_why_copy_border(which, dtype, int(layout), tf32, self.geometry(case), gpu=named)


@pytest.fixture
def runner() -> Bordered:
    return Bordered(native.load(MODULE).module, DEVICE)


def padded(x: Tensor, case: ConvCase, mode: str) -> Tensor:
    top, bottom, left, right = case.padding
    return F.pad(x, (left, right, top, bottom), mode)


def convolution(x: Tensor, w: Tensor, case: ConvCase, mode: str) -> Tensor:
    return F.conv2d(padded(x, case, mode), w, stride=case.stride, dilation=case.dilation, groups=case.groups)


def expected(direction: str, data: Data, case: ConvCase, mode: str) -> Tensor:
    if direction == "forward":
        return convolution(data.x, data.w, case, mode)
    w = torch.zeros_like(data.w).requires_grad_()
    return torch.autograd.grad(convolution(data.x, w, case, mode), w, data.dy)[0]


@modes
@pytest.mark.parametrize("direction", ["forward", "backward_weight"])
@pytest.mark.parametrize(
    ("case", "element"),
    [(UNEVEN, "fp16"), (MOST, "bf16"), (STRIDED, "tf32"), (GROUPS, "fp16"), (UNEVEN, "fp32"), (STRIDED, "fp64")],
    ids=str,
)
def test_the_kernels_read_the_border(runner: Bordered, mode: str, direction: str, case: ConvCase, element: str) -> None:
    runner.mode = mode
    assert runner.why_copy(direction, case, NHWC, element) == ""
    data = integers(case)
    result = runner.run(direction, case, NHWC, element, data.operands(direction))
    assert torch.equal(result.double(), expected(direction, data, case, mode))


@pytest.mark.parametrize("tile", range(3))
@pytest.mark.parametrize(
    ("direction", "loader"), [("forward", "along_depth"), ("backward_weight", "along_side")], ids=lambda name: name
)
def test_every_tile(runner: Bordered, direction: str, loader: str, tile: int) -> None:
    """With more rows, columns and depth than a tile and the ring of stages hold."""
    runner.mode = MODES[tile]
    data = integers(LARGE)
    plan = runner.plan("fp16", tile, loader, loader, splits=2 if direction == "backward_weight" else 1)
    result = runner.run(direction, LARGE, NHWC, "fp16", data.operands(direction), plan)
    assert torch.equal(result.double(), expected(direction, data, LARGE, runner.mode))


@pytest.mark.skipif(HAS_GPU, reason="guards memory of the interpreter")
@pytest.mark.parametrize(("case", "mode"), [(MOST, "reflect"), (STRIDED, "replicate"), (WHOLE, "circular")], ids=str)
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@pytest.mark.parametrize("direction", ["forward", "backward_weight"])
def test_nothing_outside_the_tensors_is_touched(
    runner: Bordered, direction: str, after: bool, case: ConvCase, mode: str
) -> None:
    runner.mode = mode
    data = integers(case)
    result = runner.run(
        direction, case, NHWC, "fp16", data.operands(direction), place=lambda flat: guarded(flat, after)
    )
    assert torch.equal(result.double(), expected(direction, data, case, mode))


def test_where_the_border_is_copied_and_why(runner: Bordered) -> None:
    runner.mode = "reflect"

    def why(case: ConvCase, direction: str = "forward", layout: Layout = NHWC, gpu: str = "a100") -> str:
        return runner.why_copy(direction, case, layout, "fp16", gpu)

    assert why(UNEVEN) == why(UNEVEN, "backward_weight") == ""
    assert "no 16 bytes" in why(UNEVEN, layout=Layout.NCHW)
    assert "no 16 bytes" in why(ODD)
    assert "no 16 bytes" in why(dataclasses.replace(UNEVEN, k=5), "backward_weight")  # the error's are odd
    narrow = dataclasses.replace(GROUPS, k=32, groups=4)
    assert "groups of few channels" in why(narrow) and "groups of few channels" in why(narrow, "backward_weight")
    assert "rows and columns" in why(dataclasses.replace(UNEVEN, h=2048, w=2048))
    assert "2^31" in why(dataclasses.replace(UNEVEN, c=1024, h=2000, w=1500))
    assert "larger than the image" in why(dataclasses.replace(UNEVEN, padding=(5, 0, 0, 0)))
    runner.mode = "circular"
    assert why(dataclasses.replace(UNEVEN, padding=(5, 0, 0, 0))) == ""


@pytest.mark.parametrize("direction", ["forward", "backward_weight"])
def test_on_hopper_the_layer_decides(runner: Bordered, direction: str) -> None:
    """A border is copied for wgmma where more is multiplied by each pixel than mma.sync does in the time of a copy: by
    this model 791 TFLOP/s and 4.32 TB/s, 0.62 of the rate by mma.sync, 598 multiply-adds by an element in 16 bits."""
    runner.mode = "reflect"

    def why(k: int, n: int = 32, element: str = "bf16", **options: Any) -> str:
        case = ConvCase("", n, 128, 56, 56, k, 3, 3, padding=(1, 1, 1, 1), **options)
        return runner.why_copy(direction, case, NHWC, element, "h200")

    assert why(64) == "" and 9 * 64 < 598 < 9 * 72  # 64 filters: mma.sync, through the index
    assert "TMA" in why(72)
    assert [why(k, n=n) == "" for n in (1, 4096) for k in (64, 72)] == [True, False] * 2
    assert why(256, groups=4) == "" and why(256, stride=(2, 2)) == ""  # less by each pixel
    assert "TMA" in why(320, stride=(2, 2))
    assert why(256, element="fp32") == ""  # not served by wgmma
    assert (why(256, element="tf32") == "") == (direction == "backward_weight")


@pytest.mark.usefixtures("on_a_hopper")
def test_refusals(runner: Bordered) -> None:
    runner.mode, data = "circular", integers(UNEVEN)
    with pytest.raises(ValueError, match="16 bytes alone"):
        gather = runner.plan("fp16", 1, "elements", "along_depth")
        runner.run("forward", UNEVEN, NHWC, "fp16", data.operands("forward"), gather)
    with pytest.raises(ValueError, match="TMA pads with zeros"):
        wgmma = runner.module.ConvPlan()
        wgmma.engine = runner.module.ConvEngine.wgmma
        runner.run("forward", UNEVEN, NHWC, "fp16", data.operands("forward"), wgmma)
    with pytest.raises(ValueError, match="folded back"):
        runner.run("backward_input", UNEVEN, NHWC, "fp16", data.operands("backward_input"))
    with pytest.raises(ValueError, match="larger than the image"):
        runner.run("forward", dataclasses.replace(UNEVEN, padding=(6, 0, 0, 0)), NHWC, "fp16", (data.x, data.w))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of the images that were given a border."""
    seen: list[tuple[int, ...]] = []

    def spied(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def spy(image: Tensor, *rest: Any, **named: Any) -> Tensor:
            seen.append(tuple(image.shape))
            return run(image, *rest, **named)

        return spy

    monkeypatch.setattr(border.pad_border, "run", spied(border.pad_border.run))
    return seen


def layers(case: ConvCase, mode: str, **options: Any) -> tuple[torch.nn.Conv2d, torch.nn.Conv2d]:
    """Ours and PyTorch's, with small integers for parameters, in channels_last."""
    numbers = (case.c, case.k, (case.r, case.s), case.stride, case.padding[::2], case.dilation, case.groups)
    both = tuple(
        kind(*numbers, padding_mode=mode, dtype=torch.float64, device=DEVICE).to(memory_format=torch.channels_last)
        for kind in (nn.Conv2d, torch.nn.Conv2d)
    )
    for layer in both:
        for seed, parameter in enumerate(layer.parameters()):
            parameter.data.copy_(small_integers(tuple(parameter.shape), torch.float64, seed))
    return both


SYMMETRIC = ConvCase("symmetric sides", 2, 8, 5, 7, 8, 3, 2, (1, 2), (2, 2, 3, 3), (2, 1), groups=2)


@modes
@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
def test_the_layer_and_its_gradients(copies: list, kernel_backend: str, mode: str, odd: bool) -> None:
    """fp64: two channels are 16 bytes. The odd layer's images are copied, once for the forward, once for the filter."""
    case = dataclasses.replace(SYMMETRIC, c=3, groups=1, k=5) if odd else SYMMETRIC
    layer, theirs = layers(case, mode)
    layer.backend = kernel_backend
    x = small_integers(case.input_shape, torch.float64, 1).to(DEVICE).contiguous(memory_format=torch.channels_last)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = layer(a)
    expected = theirs(b)
    assert torch.equal(y, expected) and y.is_contiguous(memory_format=torch.channels_last)
    dy = small_integers(tuple(y.shape), torch.float64, 2).to(DEVICE)
    y.backward(dy)
    expected.backward(dy)
    assert copies == [case.input_shape] * (2 if odd and kernel_backend == "cuda" else 0)
    for mine, other in zip((a, *layer.parameters()), (b, *theirs.parameters()), strict=True):
        assert torch.equal(mine.grad, other.grad) and mine.grad.stride() == mine.stride()


@modes
def test_the_way_does_not_show_in_the_bits(copies: list, mode: str) -> None:
    x = torch.randn(2, 16, 9, 6, device=DEVICE).half().contiguous(memory_format=torch.channels_last)
    w = torch.randn(8, 16, 3, 3, device=DEVICE).half()
    image = F.pad(x, (2, 2, 1, 1), mode).contiguous(memory_format=torch.channels_last)
    with use_backend("cuda"):
        assert torch.equal(ours.conv2d(x, w, padding=(1, 2), padding_mode=mode), ours.conv2d(image, w))
    assert copies == []


def test_what_follows_the_sum(copies: list, kernel_backend: str) -> None:
    """conv_epilogue_forward reads the border as well, and recomputes with it for the derivative."""
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, device=DEVICE, requires_grad=True)
    w = torch.randn(4, 2, 3, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    images = x.to(memory_format=torch.channels_last)
    with use_backend(kernel_backend):
        y = ours.conv2d(images, w, padding=1, padding_mode="circular", activation="silu")
        mine = torch.autograd.grad(y.square().sum(), (x, w))
    assert copies == []
    expected = F.silu(F.conv2d(F.pad(x, (1, 1, 1, 1), "circular"), w))
    for a, b in zip((y, *mine), (expected, *torch.autograd.grad(expected.square().sum(), (x, w))), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@modes
def test_what_is_packed_is_copied_with_its_border(copies: list, mode: str) -> None:
    """Odd channels in 16 bits, which conv2d packs: after the border was made."""
    data = integers(ODD)
    case = dataclasses.replace(ODD, padding=(2, 2, 1, 1))
    x, w = (t.half().to(DEVICE).contiguous(memory_format=torch.channels_last) for t in (data.x, data.w))
    with use_backend("cuda"):
        y = ours.conv2d(x, w, padding=(2, 1), padding_mode=mode)
    assert len(copies) == 1
    assert torch.equal(y.double().cpu(), convolution(data.x, data.w, case, mode))


def test_depthwise(mode: str = "reflect") -> None:
    layer, theirs = layers(dataclasses.replace(SYMMETRIC, groups=8), mode)
    x = small_integers(SYMMETRIC.input_shape, torch.float64, 1).to(DEVICE)
    assert torch.equal(layer(x), theirs(x))


@modes
def test_derivatives_of_every_order(mode: str) -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(2, 2, 2, 2, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()

    def f(x: Tensor, w: Tensor) -> Tensor:
        return ours.conv2d(x, w, padding=(1, 2), stride=(1, 2), padding_mode=mode)

    with use_backend("cuda"):
        assert gradcheck(f, (x, w), check_forward_ad=True, fast_mode=True)
        assert gradgradcheck(f, (x, w), fast_mode=True)


def test_traced_and_batched(mode: str = "reflect") -> None:
    layer, theirs = layers(dataclasses.replace(SYMMETRIC, dilation=(1, 1)), mode)
    x = small_integers((3, 2, 8, 5, 7), torch.float64, 1)
    with use_backend("cuda"):
        batched = torch.func.vmap(layer)(x.to(DEVICE)).cpu()
        assert torch.equal(batched.flatten(0, 1), theirs(x.flatten(0, 1).to(DEVICE)).cpu())
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        a, b = (x[0].to(DEVICE).requires_grad_() for _ in range(2))
        compiled(a).sum().backward()
        theirs(b).sum().backward()
        assert torch.equal(a.grad, b.grad)
        arguments = ([1, 2], [2, 2, 3, 3], [1, 1], 2, "cuda", mode)
        torch.library.opcheck(torch.ops.cnnkernels.conv_forward.default, (a, layer.weight, None, *arguments))


@pytest.mark.parametrize(("mode", "padding"), [("reflect", (0, 5)), ("reflect", (4, 0)), ("circular", (5, 0))])
def test_errors_are_pytorchs(kernel_backend: str, mode: str, padding: tuple[int, int]) -> None:
    theirs = torch.nn.Conv2d(2, 2, 3, padding=padding, padding_mode=mode)
    x = torch.randn(1, 2, 4, 5)
    with pytest.raises(RuntimeError) as expected:
        theirs(x)
    with use_backend(kernel_backend), pytest.raises(RuntimeError) as mine:
        ours.conv2d(x.to(DEVICE), theirs.weight.to(DEVICE), padding=padding, padding_mode=mode)
    assert str(mine.value) == str(expected.value)
    with pytest.raises(ValueError, match=r"padding_mode must be one of .* but got padding_mode='wrap'"):
        ours.conv2d(x, theirs.weight, padding_mode="wrap")


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_call_looks_its_kernel_up_once(
    monkeypatch: pytest.MonkeyPatch, device: str, groups: int, activation: str | None
) -> None:
    """Kernels, and whether their products may be TF32: for the border, too."""
    asked: list[str] = []
    real = backends.kernels, conv_kernel.tf32_allowed
    monkeypatch.setattr(backends, "kernels", lambda *which: asked.append("kernels") or real[0](*which))
    monkeypatch.setattr(conv_kernel, "tf32_allowed", lambda dtype: asked.append("tf32") or real[1](dtype))
    x, w = torch.ones(1, 4, 5, 5, device=device), torch.ones(4, 4 // groups, 3, 3, device=device)
    with use_backend("cuda"):
        ours.conv2d(x, w, padding=1, groups=groups, activation=activation, padding_mode="reflect")
    assert asked == (["kernels", "tf32"] if groups == 1 else ["kernels"])
