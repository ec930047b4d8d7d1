"""int8_gemm, int_mm and int8_linear: exact integers, and the epilogue's bits, on every backend."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnkernels import functional as F
from cnnkernels import use_backend
from cnnkernels.testing.int8_cases import INT8_GEMM, Int8GemmCase
from helpers.int8 import floats, formula, integers, product

SIZES = range(1, 34)
HAS_GPU = torch.cuda.is_available()


@pytest.fixture(scope="module")
def operands() -> tuple[Tensor, Tensor]:
    return integers((33, 33), 1), integers((33, 33), 2)


def test_every_size_to_33_on_the_reference(operands: tuple[Tensor, Tensor]) -> None:
    """The leading rows and columns of one product a K; operands are views with strides of their own."""
    a, b = operands
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # or waiting for the others takes most of the time
    with use_backend("reference"):
        for k in SIZES:
            sums = torch.from_numpy(product(a[:, :k], b[:k]).astype(np.int32))
            for m, n in itertools.product(SIZES, SIZES):
                assert torch.equal(F.int_mm(a[:m, :k], b[:k, :n]), sums[:m, :n]), (m, n, k)
    torch.set_num_threads(threads)


def sizes_for(backend: str) -> list[tuple[int, int, int]]:
    """All of them on a GPU, else those around a warp's tile and a sample: Triton's interpreter is the slower one."""
    every = list(itertools.product(SIZES, SIZES, SIZES))
    if HAS_GPU:
        return every
    some = random.Random(5).sample(every, 300 if backend == "cuda" else 12)
    return [(1, 1, 33), (16, 8, 32), (17, 9, 31), (33, 33, 33), *some]


@pytest.mark.parametrize("transposed", [True, False], ids=["weight.t()", "[K, N]"])
def test_these_sizes_on_the_kernels(
    kernel_backend: str, device: str, operands: tuple[Tensor, Tensor], transposed: bool
) -> None:
    a, b = (tensor.to(device) for tensor in operands)
    with use_backend(kernel_backend):
        for m, n, k in sizes_for(kernel_backend):
            left = a[:m, :k].contiguous()
            right = b[:k, :n].t().contiguous().t() if transposed else b[:k, :n].contiguous()
            assert torch.equal(F.int_mm(left, right).cpu().long(), torch.from_numpy(product(left, right))), (m, n, k)


@pytest.mark.parametrize("case", INT8_GEMM, ids=str)
def test_each_case_is_exact(backend: str, device: str, case: Int8GemmCase) -> None:
    a, b = integers((case.m, case.k), 1).to(device), integers((case.n, case.k), 2).to(device).t()
    with use_backend(backend):
        c = F.int8_gemm(a, b)
    assert c.dtype is torch.int32 and c.is_contiguous()
    assert torch.equal(c.cpu().long(), torch.from_numpy(product(a, b)))


def test_the_longest_sums_are_exact_and_longer_ones_refused(backend: str, device: str) -> None:
    a = torch.full((2, 131072), -128, dtype=torch.int8, device=device)
    a[1] = integers((131072,), 3)
    b = torch.full((1, 131072), -128, dtype=torch.int8, device=device).t()
    with use_backend(backend):
        c = F.int8_gemm(a[:, :-1], b[:-1])
        assert torch.equal(c.cpu().long(), torch.from_numpy(product(a[:, :-1], b[:-1])))
        assert c[0, 0].item() == 131071 * 2**14 > 2**31 - 2**15
        with pytest.raises(ValueError, match=r"K=131072 .* at most 131071"):
            F.int8_gemm(a, b)


@pytest.mark.parametrize(
    ("dtype", "zero_points", "most"),
    [(torch.uint8, (0, 0), 65793), (torch.int8, (127, 0), 65793), (torch.uint8, (255, 127), 33025)],
    ids=["uint8", "zero point", "both"],
)
def test_the_longest_sums_of_wider_operands(
    device: str, dtype: torch.dtype, zero_points: tuple[int, int], most: int
) -> None:
    """Extremes on either side of the zero point; one K further is refused."""
    limits = torch.iinfo(dtype)
    a = torch.full((1, most + 1), limits.max if zero_points[0] == 0 else limits.min, dtype=dtype, device=device)
    b = torch.full((most + 1, 1), -128, dtype=torch.int8, device=device)
    given: dict[str, Any] = {"zero_point_a": zero_points[0], "zero_point_b": zero_points[1]}
    with use_backend("reference"):
        c = F.int8_gemm(a[:, :-1], b[:-1], **given)
        with pytest.raises(ValueError, match=f"K={most + 1} .* at most {most}"):
            F.int8_gemm(a, b, **given)
    assert c.item() == product(a[:, :-1], b[:-1], *zero_points).item()
    assert abs(c.item()) <= 2**31 - 1 < abs(c.item()) // most * (most + 1)


M, N, K = 19, 21, 45
# Every argument of the epilogue, in company that shows whether the order of operations is the formula's.
EPILOGUES: dict[str, dict[str, Any]] = {
    "zero points": {"zero_point_a": -3, "zero_point_b": 7},
    "zero points by row and column": {
        "zero_point_a": integers((M,), 4).int(),
        "zero_point_b": integers((1, N), 5).int(),
    },
    "numbers": {"scale_a": 0.037, "scale_b": 0.11, "bias": floats((N,), 6, -500, 500)},
    "rows and columns": {"scale_a": floats((M, 1), 7, 0.01, 0.1), "scale_b": floats((N,), 8, 0.01, 0.1)},
    "one element": {
        "scale_a": floats((1,), 9, 0.01, 0.1),
        "scale_b": floats((), 10, 1e-3, 2e-3),
        "activation": "relu6",
    },
    "fp16": {
        "scale_b": floats((1, N), 11, 1e-4, 0.02),
        "bias": floats((N,), 12),
        "activation": "leaky_relu",
        "negative_slope": 0.3,
        "residual": floats((M, N), 13, -9, 9).half(),
        "out_dtype": torch.float16,
    },
    "bf16": {
        "scale_a": 0.003,
        "bias": floats((N,), 14, -5, 5),
        "activation": "hardswish",
        "residual": floats((N, M), 15, -9, 9).bfloat16().t(),
        "out_dtype": torch.bfloat16,
    },
    "fp32 residual": {"scale_a": 0.7, "bias": floats((N,), 22, -9e3, 9e3), "residual": floats((M, N), 16, -9e4, 9e4)},
    "requantized": {
        "scale_a": floats((M,), 17, 0.01, 0.1),
        "scale_b": floats((N,), 18, 0.01, 0.1),
        "zero_point_a": 11,
        "bias": floats((N,), 19, -50, 50),
        "residual": integers((M, N), 20),
        "residual_scale": 0.37,
        "residual_zero_point": -5,
        "activation": "leaky_relu",
        "out_scale": 1.3,
        "out_zero_point": 9,
    },
    "requantized to uint8": {
        "scale_b": 0.011,
        "residual": integers((M, N), 21, torch.uint8),
        "residual_scale": 0.5,
        "residual_zero_point": 200,
        "out_dtype": torch.uint8,
        "out_scale": torch.tensor([0.9]),
        "out_zero_point": 128,
    },
}


def on(device: str, given: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in given.items()}


@pytest.mark.parametrize("name", EPILOGUES)
def test_the_epilogue_is_the_formula_bit_for_bit(backend: str, device: str, name: str) -> None:
    given = EPILOGUES[name]
    dtype = torch.uint8 if "uint8" in name else torch.int8
    a, b = integers((M, K), 1, dtype), integers((N, K), 2).t()
    zero_points = given.get("zero_point_a", 0), given.get("zero_point_b", 0)
    sums = product(a, b, *zero_points)
    rest = {key: value for key, value in given.items() if not key.startswith("zero_point")}
    with use_backend(backend):
        c = F.int8_gemm(a.to(device), b.to(device), **on(device, given)).cpu()
    if not rest:
        assert c.dtype is torch.int32 and torch.equal(c.long(), torch.from_numpy(sums))
        return
    expected = formula(sums, **{"out_dtype": torch.int8 if "out_scale" in rest else torch.float32, **rest})
    assert c.dtype is expected.dtype and torch.equal(c, expected)
    assert c.unique().numel() > 20  # nothing has saturated everywhere


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # Triton's interpreter is numpy
def test_rounding_is_half_to_even_and_saturates(backend: str, device: str) -> None:
    """Each int8 as a product with 1, halved and doubled; and what no integer stands for."""
    a = torch.arange(-128, 128, device=device).to(torch.int8)[:, None]
    one = torch.ones(1, 1, dtype=torch.int8, device=device)
    v = np.arange(-128, 128)[:, None]
    with use_backend(backend):
        halves = F.int8_gemm(a, one, out_scale=2.0).cpu().numpy()
        doubled = F.int8_gemm(a, one, scale_a=2.0, out_scale=1.0, out_zero_point=-3).cpu().numpy()
        unsigned = (
            F.int8_gemm(a, one, scale_a=2.0, out_dtype=torch.uint8, out_scale=1.0, out_zero_point=7).cpu().numpy()
        )
        bias = torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38, 0.5, 1.5, 2.5, -0.5], device=device)
        special = F.int8_gemm(a[128:129], one.expand(1, 8), bias=bias, out_scale=1.0, out_zero_point=5).cpu()
        tiny = F.int8_gemm(a[130:131], one.expand(1, 8), bias=bias, out_scale=2.0**-126).cpu()
    even = np.where(v % 2 == 0, v // 2, (v + 1) // 2 // 2 * 2)
    assert np.array_equal(halves, even)
    assert np.array_equal(doubled, np.clip(2 * v - 3, -128, 127))
    assert np.array_equal(unsigned, np.clip(2 * v + 7, 0, 255))
    assert special.tolist() == [[127, -128, 5, 127, 5, 7, 7, 5]]
    assert tiny.tolist() == [[127, -128, 0, 127, 127, 127, 127, 127]]


def test_silu_and_gelu_are_close(backend: str, device: str) -> None:
    """Their exp and erf are the platform's: a few roundings apart."""
    a, b = integers((M, K), 1), integers((K, N), 2)
    x = torch.from_numpy(product(a, b).astype(np.float32)) * np.float32(0.0001)
    with use_backend(backend):
        for name in ("silu", "gelu"):
            c = F.int8_gemm(a.to(device), b.to(device), scale_a=0.0001, activation=name).cpu()
            expected = getattr(torch.nn.functional, name)(x.double())
            torch.testing.assert_close(c.double(), expected, rtol=2e-6, atol=2e-6)


def test_any_strides(backend: str, device: str) -> None:
    """Transposed, offset, strided, expanded and overlapping operands, residuals and scales."""
    memory = integers((4000,), 1).to(device)
    views = {
        "transposed": memory[:600].view(30, 20).t(),
        "offset by one": memory[1:601].view(20, 30),
        "every other": memory[:2400].view(40, 60)[::2, ::2],
        "rows apart": memory[:800].view(20, 40)[:, 3:33],
        "expanded rows": memory[:30].expand(20, 30),
        "expanded columns": memory[:20, None].expand(20, 30),
        "overlapping": memory.as_strided((20, 30), (1, 1)),
    }
    b = integers((30, 9), 2).to(device)
    residual, scale = floats((9, 20), 3).to(device).t(), floats((1,), 4, 0.1, 1).to(device)
    with use_backend(backend):
        for name, a in views.items():
            assert torch.equal(F.int_mm(a, b).cpu().long(), torch.from_numpy(product(a, b))), name
            sums = product(b.t(), a.t())
            assert torch.equal(F.int_mm(b.t(), a.t()).cpu().long(), torch.from_numpy(sums)), name
        c = F.int8_gemm(views["transposed"], b, scale_a=scale.expand(20), residual=residual)
    expected = formula(product(views["transposed"], b), scale_a=scale, residual=residual)
    assert torch.equal(c.cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_empty_sizes(backend: str, device: str, dtype: torch.dtype) -> None:
    rest: dict[str, Any] = {"out_dtype": dtype}
    if dtype is not torch.int32:
        rest["bias"] = torch.tensor([1.0, -2.0, 3.0], device=device)
    if dtype is torch.int8:
        rest |= {"out_scale": 0.5, "out_zero_point": 1}

    def multiply(m: int, n: int, k: int) -> Tensor:
        a, b = (torch.ones(shape, dtype=torch.int8, device=device) for shape in ((m, k), (k, n)))
        given = {**rest, "bias": rest["bias"][:n]} if "bias" in rest else rest
        return F.int8_gemm(a, b, zero_point_a=5, **given)

    with use_backend(backend):
        assert multiply(0, 3, 4).shape == (0, 3) and multiply(4, 0, 4).shape == (4, 0)
        assert multiply(0, 0, 0).shape == (0, 0) and multiply(0, 3, 4).dtype is dtype
        row = {torch.int32: [0, 0, 0], torch.int8: [3, -3, 7]}.get(dtype, [1, -2, 3])
        assert multiply(2, 3, 0).tolist() == [row, row]


def test_int_mm_is_pytorchs_where_pytorch_has_one(backend: str, device: str) -> None:
    a, b = integers((24, 16), 1).to(device), integers((8, 16), 2).to(device).t()
    with use_backend(backend):
        ours = F.int_mm(a, b)
        out = torch.empty(8, 24, dtype=torch.int32, device=device).t()
        assert F.int_mm(a, b, out=out) is out and torch.equal(out, ours)
    theirs = torch._int_mm(a, b)
    assert torch.equal(ours, theirs) and ours.dtype is theirs.dtype and ours.stride() == theirs.stride()


@pytest.mark.parametrize("shape", [(K,), (7, K), (2, 3, K), (0, K), (2, 0, 3, K)], ids=str)
def test_linear_is_the_product_by_rows(backend: str, device: str, shape: tuple[int, ...]) -> None:
    x, w = integers(shape, 1).to(device), integers((N, K), 2).to(device)
    scales = floats((*shape[:-1], 1), 3, 0.01, 0.1).to(device), floats((N, 1), 4, 0.01, 0.1).to(device)
    bias, residual = floats((N,), 5).to(device), floats((*shape[:-1], N), 6).to(device)
    with use_backend(backend):
        y = F.int8_linear(x, w, *scales, bias, residual=residual, activation="relu")
    assert y.shape == (*shape[:-1], N)
    flat = product(x.reshape(-1, K) if x.numel() else x.new_empty(0, K), w.t())
    expected = formula(
        flat, scale_a=scales[0], scale_b=scales[1], bias=bias, residual=residual.reshape(-1, N), activation="relu"
    )
    assert torch.equal(y.cpu().reshape(-1, N), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_linear_quantizes_a_floating_input(backend: str, device: str, dtype: torch.dtype) -> None:
    x, w = floats((5, K), 1, -3, 3).to(dtype).to(device), integers((N, K), 2).to(device)
    wanted = torch.float32 if dtype is torch.float64 else dtype
    with use_backend(backend):
        static = F.int8_linear(x, w, 0.02, 0.01, input_zero_point=7)
        dynamic = F.int8_linear(x, w, None, 0.01)
    f = np.float32
    rows = x.cpu().float().numpy()
    q = np.clip(np.rint(rows * (f(1) / f(0.02))) + 7, -128, 127)
    sums = (q.astype(np.int64) - 7) @ product(torch.eye(K).to(torch.int8), w.t())
    assert torch.equal(static.cpu(), formula(sums, scale_a=0.02, scale_b=0.01, out_dtype=wanted))
    scale = np.abs(rows).max(1, keepdims=True) / f(127)
    sums = np.rint(rows * (f(1) / scale)).astype(np.int64) @ product(torch.eye(K).to(torch.int8), w.t())
    assert torch.equal(dynamic.cpu(), formula(sums, scale_a=torch.from_numpy(scale), scale_b=0.01, out_dtype=wanted))
