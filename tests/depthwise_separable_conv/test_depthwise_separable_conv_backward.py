"""The fused backward kernel: exact on small integers, rounded where two layers round, the same bits whatever the
schedule, the parts, the reader and the batch, and no byte touched beside its tensors."""

from __future__ import annotations

import pytest
import torch

import cnnkernels
from cnnkernels import activation as activations
from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import DEPTHWISE_SEPARABLE_CONV2D, DepthwiseSeparableCase
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import UNIT_ROUNDOFF
from helpers.conv import ELEMENTS
from helpers.depthwise_separable_conv import (
    ACTIVATIONS,
    LARGE,
    NCHW,
    NHWC,
    SAME,
    SLOPE,
    Backward,
    derivative,
    error,
    expected,
    floats,
    pair_case,
    reference,
    schedules,
)
from helpers.device import HAS_GPU, MODULE

EXISTING = [(e, r) for e in ("fp16", "bf16") for r in ("rows_of_three", "vectors", "elements")]
EXISTING += [("fp32", "elements"), ("fp64", "elements")]
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())


@pytest.fixture(scope="module")
def runner() -> Backward:
    return Backward()


@pytest.fixture
def scheduled(runner: Backward, request: pytest.FixtureRequest):
    if HAS_GPU:
        yield runner
        return
    before = runner.module.schedule()
    runner.module.set_schedule(**request.param)
    yield runner
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


@pytest.mark.parametrize("case", DEPTHWISE_SEPARABLE_CONV2D, ids=str)
@layouts
def test_exact(runner: Backward, case: DepthwiseSeparableCase, layout: Layout) -> None:
    """The types and the activations take turns; z is made anew, then read."""
    turn = DEPTHWISE_SEPARABLE_CONV2D.index(case) + layout
    tensors, grad = operands(case), error(case)
    for element in (("fp64", "fp32")[turn % 2], ("fp16", "bf16")[turn // 2 % 2]):
        activation = ACTIVATIONS[(turn + (element == "fp16")) % len(ACTIVATIONS)][0]
        z, *results = expected(case, activation, tensors, grad)
        assert z.abs().max() <= 128 and results[0].abs().max() <= 128, "not exact in bfloat16"
        for saved in (None, z):
            ours = runner.backward(case, layout, element, tensors, grad, activation, saved=saved)
            for mine, true in zip(ours, results, strict=True):
                assert torch.equal(mine, true.to(mine.dtype)), (element, activation)


@pytest.mark.parametrize(("element", "reader"), EXISTING)
def test_every_configuration(runner: Backward, element: str, reader: str) -> None:
    """More pixels, channels and filters than a block has, none a multiple; in two parts; either result alone."""
    tensors, grad = operands(LARGE), error(LARGE)
    _, *results = expected(LARGE, "relu6", tensors, grad)
    for wants in ((True, True), (True, False), (False, True)):
        ours = runner.backward(LARGE, NHWC, element, tensors, grad, "relu6", wants=wants, reader=reader, parts=2)
        for mine, true, wanted in zip(ours, results, wants, strict=True):
            assert (mine is not None) == wanted
            assert mine is None or torch.equal(mine, true.to(mine.dtype))


@schedules
@pytest.mark.parametrize(("element", "taps"), [("fp32", 3), ("bf16", 8)])
def test_every_schedule(scheduled: Backward, element: str, taps: int) -> None:
    """A missing barrier or wait shows as poison or as wrong numbers in one of these orders. Several patches a part and
    several tiles of filters; 8 x 8 taps take turns in shared memory."""
    case = pair_case(1, 8, 15, 16, 136 if element == "bf16" else 72, taps, taps, padding=(1, 1, 1, 1))
    tensors, grad = operands(case), error(case)
    _, *results = expected(case, "relu", tensors, grad)
    ours = scheduled.backward(case, NHWC, element, tensors, grad, "relu", parts=1)
    for mine, true in zip(ours, results, strict=True):
        assert torch.equal(mine, true.to(mine.dtype))


@pytest.mark.counted
def test_ldmatrix_meets_no_bank_twice(runner: Backward) -> None:
    runner.module.reset_statistics()
    runner.backward(LARGE, NHWC, "fp16", operands(LARGE), error(LARGE))
    trips = runner.module.statistics()
    assert trips["ldmatrix trips"] == trips["ldmatrix trips needed"] > 0


@pytest.mark.parametrize("element", ["fp64", "fp32", "fp16", "bf16"])
def test_bits(runner: Backward, element: str) -> None:
    """z's error depends on neither reader nor layout nor parts nor batch, and nothing on whether z was saved."""
    case = pair_case(6, 40, 6, 7, 40, **SAME)
    tensors = floats(case, element)
    grad = torch.randn(case.output_shape, generator=torch.Generator().manual_seed(9)).to(ELEMENTS[element][0]).double()
    machine_z = runner.run(case, NCHW, element, tensors)[1].double()
    whole, gradient = runner.backward(case, NCHW, element, tensors, grad, "silu", parts=2)
    for saved in (None, machine_z):
        again = runner.backward(case, NCHW, element, tensors, grad, "silu", parts=2, saved=saved)
        assert torch.equal(again[0], whole) and torch.equal(again[1], gradient)
    for reader in (r for e, r in EXISTING if e == element):
        other, _ = runner.backward(case, NHWC, element, tensors, grad, "silu", reader=reader, parts=1)
        assert torch.equal(other, whole)
    alone = pair_case(1, 40, 6, 7, 40, **SAME)
    single, _ = runner.backward(alone, NHWC, element, (tensors[0][4:5], *tensors[1:]), grad[4:5], "silu")
    assert torch.equal(single[0], whole[4])


def test_a_saved_intermediate_is_read(runner: Backward) -> None:
    """Not made anew: with another one in its place the results are another's."""
    tensors, grad = operands(LARGE), error(LARGE)
    z = expected(LARGE, "relu", tensors, grad)[0].roll(1, 0).flip(2, 3)
    results = runner.backward(LARGE, NHWC, "fp64", tensors, grad, "relu", saved=z)
    gradient = torch.einsum("nkpq,nmpq->km", grad, z.relu())
    assert torch.equal(results[1][:, :, 0, 0], gradient) and not results[0][z <= 0].any()


@pytest.mark.parametrize(("element", "activation"), [("fp32", "gelu"), ("fp16", "hardswish"), ("bf16", "none")])
def test_rounding(runner: Backward, element: str, activation: str) -> None:
    """At most twice the error of PyTorch's two layers in the same type, and what the sums' lengths allow."""
    dtype = ELEMENTS[element][0]
    case = pair_case(2, 24, 9, 8, 20, 3, 5, stride=(2, 1), padding=(1, 1, 2, 2))
    tensors = floats(case, element)
    grad = torch.randn(case.output_shape, generator=torch.Generator().manual_seed(9)).to(dtype).double()
    _, *exact = expected(case, activation, tensors, grad)
    leaves = [t.to(dtype) for t in tensors]
    z = reference(case, ("none", "none"), *leaves)[1]
    product = torch.nn.functional.conv_transpose2d(grad.to(dtype), leaves[2])
    theirs = [product if activation == "none" else derivative(activation, z, product)]
    middle, filters = activations.activate(z, activation, SLOPE), leaves[2].clone().requires_grad_()
    theirs += torch.autograd.grad(torch.nn.functional.conv2d(middle, filters), filters, grad.to(dtype))
    for mine, their, true in zip(
        runner.backward(case, NHWC, element, tensors, grad, activation), theirs, exact, strict=True
    ):
        bound = 2 * (their - true).abs().max() + 4 * UNIT_ROUNDOFF[dtype] * true.abs().max()
        assert (mine - true).abs().max() <= bound


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("case", DEPTHWISE_SEPARABLE_CONV2D, ids=str)
def test_nothing_outside_the_tensors_is_touched(runner: Backward, case: DepthwiseSeparableCase) -> None:
    """Flush against a page behind, and before: where pointers are not aligned, elements are read one by one."""
    tensors, grad, turn = operands(case), error(case), DEPTHWISE_SEPARABLE_CONV2D.index(case)
    z, *results = expected(case, "relu", tensors, grad)
    for after in (True, False):
        ours = runner.backward(
            case, (NHWC, NCHW)[turn % 2], ("bf16", "fp32")[turn // 2 % 2], tensors, grad, "relu",
            saved=z if turn % 3 == 0 else None, place=lambda t, after=after: guarded(t, after),
        )  # fmt: skip
        for mine, true in zip(ours, results, strict=True):
            assert torch.equal(mine, true.to(mine.dtype))


def test_what_does_not_exist_is_refused(runner: Backward) -> None:
    case = pair_case(1, 8, 4, 4, 8)
    for layout, element, reader in ((NHWC, "fp32", "vectors"), (NCHW, "bf16", "vectors")):
        with pytest.raises(ValueError, match="no backward kernel with that reader serves"):
            runner.backward(case, layout, element, operands(case), error(case), reader=reader)


def test_when_it_serves() -> None:
    """By type and filters alone; never where somebody differentiates further."""
    kernels = cnnkernels.native.load(MODULE)

    def fuses(dtype: torch.dtype, filters: int, tf32: bool = False) -> bool:
        return kernels.depthwise_separable_conv_fuses_backward(dtype, filters, tf32)

    assert fuses(torch.float64, 5000) and fuses(torch.bfloat16, 512) and not fuses(torch.float16, 513)
    assert fuses(torch.float32, 64) and not fuses(torch.float32, 65) and not fuses(torch.float32, 8, True)
