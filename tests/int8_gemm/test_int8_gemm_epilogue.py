"""What int8_gemm's CUDA kernels make of their sums: scales, bias, residual, activation and rounding, bit for bit the
written formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.activation import ACTIVATIONS
from cnnkernels.int8 import reference as int8_reference
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native import NativeKernels
from helpers.device import DEVICE, MODULE
from helpers.int8_gemm import full, integers, residual, run, strided, tiles

M = 77  # rows: some are finished four at a time, some singly


@pytest.fixture(scope="module")
def runner() -> NativeKernels:
    return native.load(MODULE)


def check(runner: NativeKernels, n: int, epilogue: Int8Epilogue, dtype: torch.dtype, plan: Any = None) -> None:
    m, k = M, 80
    a, b = integers(18, m, k).to(DEVICE), strided(integers(19, k, n), "columns")
    expected = torch.empty(m, n, dtype=dtype, device=DEVICE)
    int8_reference.int8_gemm(a, b, expected, epilogue)
    assert_same_bits(run(runner, a, b, epilogue, plan, dtype), expected.cpu())


def assert_same_bits(result: Tensor, expected: Tensor) -> None:
    if result.is_floating_point():
        assert torch.equal(result.isnan(), expected.isnan())
        result, expected = (torch.where(x.isnan(), 0.0, x) for x in (result, expected))
        bits = torch.int32 if result.dtype is torch.float32 else torch.int16
        result, expected = result.view(bits), expected.view(bits)
    assert torch.equal(result, expected)


OUTPUTS = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8]


@pytest.mark.parametrize("n", [36, 35], ids=["whole runs", "odd"])
@pytest.mark.parametrize("dtype", OUTPUTS)
def test_epilogue(runner: NativeKernels, dtype: torch.dtype, n: int) -> None:
    """Scales, bias and a residual of every type, into every type."""
    check(runner, n, full(M, n), dtype)
    for other in OUTPUTS:
        more = full(M, n, residual=residual(other, M, n), residual_scale=0.07, residual_zero_point=9)
        check(runner, n, more, dtype)
    check(runner, n, full(M, n, scale_a=0.37, scale_b=0.011, bias=None), dtype)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_epilogue_activations(runner: NativeKernels, activation: str) -> None:
    epilogue = full(M, 36, activation=activation, negative_slope=0.3)
    if activation not in ("silu", "gelu"):
        check(runner, 36, epilogue, torch.float32)
        check(runner, 36, epilogue, torch.int8, tiles(runner, True, 1, 2))  # in the kernel that adds splits
        return
    a, b = integers(18, M, 80).to(DEVICE), strided(integers(19, 80, 36), "columns")
    expected = torch.empty(M, 36, device=DEVICE)
    int8_reference.int8_gemm(a, b, expected, epilogue)
    torch.testing.assert_close(run(runner, a, b, epilogue, dtype=torch.float32), expected.cpu(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_epilogue_saturates(runner: NativeKernels, dtype: torch.dtype) -> None:
    """Ties to even, infinities and NaN, and what leaves the range on either side, at every zero point's end."""
    limits = torch.iinfo(dtype)
    a = torch.arange(-16, 16, dtype=torch.int8, device=DEVICE).view(32, 1)
    b = torch.ones(1, 4, dtype=torch.int8, device=DEVICE)
    special = torch.tensor([0.0, float("inf"), float("-inf"), float("nan")], device=DEVICE)
    for zero_point in (limits.min, 3, limits.max):
        for out_scale in (2.0, 1e-3, torch.tensor([2.0], device=DEVICE)):
            e = Int8Epilogue(bias=special, out_scale=out_scale, out_zero_point=zero_point)
            result, expected = run(runner, a, b, e, dtype=dtype), torch.empty(32, 4, dtype=dtype, device=DEVICE)
            int8_reference.int8_gemm(a, b, expected, e)
            assert torch.equal(result, expected.cpu())
            assert (result[:, 1] == limits.max).all() and (result[:, 2] == limits.min).all()
            assert (result[:, 3] == zero_point).all()
    halves = Int8Epilogue(out_scale=2.0, out_zero_point=3)
    assert run(runner, a[16:22], b[:, :1], halves, dtype=dtype).view(-1).tolist() == [3, 3, 4, 5, 5, 5]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8], ids=str)
def test_scales_that_nobody_looked_at(runner: NativeKernels, dtype: torch.dtype) -> None:
    """A scale on a device may be 0, infinite or subnormal: 0 inf is NaN and gives the zero point. (That no NaN is
    converted to an integer, which a CPU may answer as it likes, is seen by tests/sanitize.sh.)"""
    limits = torch.iinfo(dtype)
    a = torch.arange(-4, 4, dtype=torch.int8, device=DEVICE).view(8, 1)
    b = torch.ones(1, 4, dtype=torch.int8, device=DEVICE)
    bias = torch.tensor([0.0, float("inf"), float("-inf"), float("nan")], device=DEVICE)
    for zero_point in (limits.min, 5, limits.max):
        low, high, zero = limits.min, limits.max, zero_point
        for scale, of_signs in ((0.0, [low, zero, high]), (1e-45, [low, zero, high]), (float("inf"), [zero] * 3)):
            e = Int8Epilogue(bias=bias, out_scale=torch.tensor([scale], device=DEVICE), out_zero_point=zero_point)
            result, expected = run(runner, a, b, e, dtype=dtype), torch.empty(8, 4, dtype=dtype, device=DEVICE)
            int8_reference.int8_gemm(a, b, expected, e)
            assert torch.equal(result, expected.cpu())
            assert result[[0, 4, 7], 0].tolist() == of_signs
            infinite = scale == float("inf")
            assert result[4].tolist()[1:] == [zero if infinite else high, zero if infinite else low, zero]


def test_a_residual_at_any_address(runner: NativeKernels) -> None:
    """Runs of four outputs are whole, but four of the residual do not lie where a vector may."""
    for dtype in (torch.int8, torch.float16, torch.float32):
        apart = torch.zeros(M * 36 + 1, dtype=dtype, device=DEVICE)[1:].view(M, 36).copy_(residual(dtype, M, 36))
        check(runner, 36, full(M, 36, residual=apart), torch.int8)


def test_a_zero_keeps_its_sign_where_there_is_no_bias(runner: NativeKernels) -> None:
    """-2^-200 is -0 in fp32, and -0 + 0 would be 0."""
    a, b = (torch.full((1, 1), value, dtype=torch.int8, device=DEVICE) for value in (-1, 1))
    zero = run(runner, a, b, Int8Epilogue(scale_a=2.0**-100, scale_b=2.0**-100), dtype=torch.float32)
    assert zero.item() == 0 and zero.signbit().all()


def test_multiplication_and_addition_are_not_fused(runner: NativeKernels) -> None:
    """1 (1 + 2^-12) squared is 1 + 2^-11 in fp32; minus that is 0, or fused 2^-24."""
    scale = 1 + 2.0**-12
    a = b = torch.ones(1, 1, dtype=torch.int8, device=DEVICE)
    bias = torch.tensor([-(1 + 2.0**-11)], device=DEVICE)
    assert run(runner, a, b, Int8Epilogue(scale_a=scale, scale_b=scale, bias=bias), dtype=torch.float32).item() == 0
