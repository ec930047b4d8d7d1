"""int8_gemm's Triton kernels: sums exact and the epilogue equal to the written formula bit by bit, for any operands,
every configuration, and each way that a launch takes."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch
from cnnkernels.triton_kernels.int8 import pack as int8_pack
from cnnkernels.triton_kernels.int8_gemm import select as int8_gemm_select
from cnnkernels.triton_kernels.int8_gemm.select import Configuration, Problem
from torch import Tensor

from cnnkernels import triton_kernels as kernels
from cnnkernels.int8 import reference as int8_reference
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.testing.guarded import guarded
from cnnkernels.testing.numerics import UNIT_ROUNDOFF
from helpers.device import DEVICE, HAS_GPU
from helpers.int8 import product
from helpers.int8_formula import EXACT_ACTIVATIONS, bytes_of, finished, floats

# Ends of tiles, single rows and columns, reductions of several steps.
SIZES = [(1, 1, 1), (1, 5, 17), (5, 1, 3), (2, 3, 300), (16, 48, 64), (17, 33, 129), (130, 150, 40)]
UINT8, INT8, INT32 = torch.uint8, torch.int8, torch.int32
SMALL = Configuration(16, 32, 32, 4, 1)
int8_gemm = importlib.import_module(
    "cnnkernels.triton_kernels.int8_gemm.launch"
)  # the name is its function's in the package


def place(tensor: Tensor) -> Tensor:
    """On the device with its strides and offset."""
    whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
    return whole.to(DEVICE).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def run(
    a: Tensor, b: Tensor, e: Int8Epilogue, dtype: torch.dtype, configuration: Configuration | None = None
) -> Tensor:
    """The kernels' output; what they do not write is 77."""
    output = place(torch.full((a.shape[0], b.shape[1]), 77).to(dtype))
    there = e._replace(**{name: v.to(DEVICE) for name, v in e._asdict().items() if isinstance(v, Tensor)})
    kernels.int8_gemm(place(a), place(b), output, there, configuration)
    return output.cpu()


def check(a: Tensor, b: Tensor, e: Int8Epilogue = Int8Epilogue(), dtype: torch.dtype = INT32, **kwargs: Any) -> None:  # noqa: B008
    sums = product(a, b, e.zero_point_a, e.zero_point_b)
    assert torch.equal(run(a, b, e, dtype, **kwargs), finished(sums, e, dtype, e.residual))


def zero_points(kind: str, m: int, n: int, dtype: torch.dtype) -> Int8Epilogue:
    if kind == "none":
        return Int8Epilogue()
    if kind == "numbers":
        return Int8Epilogue(zero_point_a=3, zero_point_b=-128)
    return Int8Epilogue(zero_point_a=bytes_of((m,), dtype, 5).int(), zero_point_b=bytes_of((n,), INT8, 6).int())


def everything(m: int, n: int, residual: Tensor | None = None) -> Int8Epilogue:
    """Each part has its own numbers, so that none can be left out, doubled, or taken from another place."""
    return Int8Epilogue(
        scale_a=floats(m, 1, 0.001, 0.003), scale_b=floats(n, 2, 0.1, 1.0), zero_point_a=5, bias=floats(n, 3),
        residual=bytes_of((m, n), INT8, 4) if residual is None else residual, residual_scale=0.013,
        residual_zero_point=-7, negative_slope=0.3, out_scale=0.05, out_zero_point=11,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["none", "numbers", "tensors"])
@pytest.mark.parametrize("dtype", [INT8, UINT8], ids=str)
def test_sums_are_exact(dtype: torch.dtype, kind: str) -> None:
    for index, (m, n, k) in enumerate(SIZES):
        a, b = bytes_of((m, k), dtype, index), bytes_of((n, k), INT8, 50 + index)
        # in memory the rows of one or both stand as columns
        a = a if index % 2 else a.t().contiguous().t()
        b = b.t() if index % 3 else b.t().contiguous()
        check(a, b, zero_points(kind, m, n, dtype))


def test_operands_of_any_strides() -> None:
    whole, other = bytes_of((40, 70), INT8, 1), bytes_of((70, 37), INT8, 2)
    e = Int8Epilogue(zero_point_a=-3, zero_point_b=9)
    strided = whole[3::2, 1:65:3]
    for b in (other[:22], other[5:27, 1:], other[::3][:22, ::5], other[:, :1][:22].expand(22, 9)):
        check(strided, b, e)
    check(whole[:1].expand(9, 70), other, e)
    check(bytes_of((40 * 70 + 3,), UINT8, 3)[3:].view(40, 70), other, e)


def test_the_longest_reductions() -> None:
    c = Configuration(16, 16, 2048, 4, 1)
    lowest = torch.full((1, 131071), -128, dtype=INT8)
    check(lowest, lowest.t(), configuration=c)
    highest = torch.full((2, 33025), 255, dtype=UINT8)
    check(highest, lowest[:, :33025].t(), Int8Epilogue(zero_point_b=127), configuration=c)
    check(highest - 255, lowest[:, :33025].t(), Int8Epilogue(zero_point_a=255, zero_point_b=127), configuration=c)


@pytest.mark.parametrize("activation", EXACT_ACTIVATIONS)
def test_the_epilogue_is_the_written_formula(activation: str) -> None:
    m, n, k = 19, 35, 70
    a, b = bytes_of((m, k), INT8, 8), bytes_of((n, k), INT8, 9).t()
    for dtype in (torch.float32, torch.float16, torch.bfloat16, INT8, UINT8):
        check(a, b, everything(m, n)._replace(activation=activation), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, INT8, UINT8], ids=str)
def test_residuals_of_every_type(dtype: torch.dtype) -> None:
    a, b = bytes_of((7, 33), UINT8, 8), bytes_of((18, 33), INT8, 9).t()
    residual = floats(7 * 18, 4).view(7, 18).to(dtype) if dtype.is_floating_point else bytes_of((7, 18), dtype, 4)
    check(a, b, everything(7, 18, residual), INT8)


def test_each_part_may_be_missing_and_a_tensor_may_have_one_element() -> None:
    a, b = bytes_of((7, 33), INT8, 8), bytes_of((18, 33), INT8, 9).t()
    whole = everything(7, 18)
    for part in ({"scale_a": 0.0021}, {"scale_b": 0.37}, {"scale_a": 0.1, "scale_b": 0.0321}, {"bias": None},
                 {"residual": None}, {"out_scale": torch.tensor([0.05])}, {"scale_a": torch.tensor([0.0021])},
                 {"zero_point_a": torch.tensor([5], dtype=INT32)}):  # fmt: skip
        check(a, b, whole._replace(**part), INT8)
        check(a, b, whole._replace(**part), torch.float32)
    given = whole._replace(sums_b=b.sum(0, dtype=INT32))
    check(a, b, given, INT8)
    assert not torch.equal(run(a, b, given._replace(sums_b=given.sums_b + 1), INT32), run(a, b, whole, INT32))


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_activations_with_an_exponential(activation: str) -> None:
    """Within a few roundings: the platforms' exp and erf differ."""
    a, b = bytes_of((7, 33), INT8, 8), bytes_of((18, 33), INT8, 9).t()
    e = everything(7, 18)._replace(activation=activation)
    right = torch.empty(7, 18)
    int8_reference.int8_gemm(a, b, right, e)
    assert ((run(a, b, e, torch.float32) - right).abs() <= 32 * UNIT_ROUNDOFF[torch.float32] * right.abs()).all()


@pytest.mark.filterwarnings("ignore:.* encountered in")  # Triton's interpreter computes in numpy
@pytest.mark.parametrize("dtype", [INT8, UINT8], ids=str)
def test_rounding_half_to_even_saturation_and_nan(dtype: torch.dtype) -> None:
    a, b = torch.arange(-128, 128).to(INT8)[:, None], torch.ones(1, 6, dtype=INT8)
    bias = torch.tensor([0.0, 0.25, float("nan"), float("inf"), -float("inf"), 1e30])
    for zero_point in (0, 3, 100):
        check(a, b, Int8Epilogue(scale_a=0.5, bias=bias, out_zero_point=zero_point), dtype)
    for scale in (0.0, 1e-45, float("inf")):  # nobody looks at scales on a device: 0 inf gives the zero point
        out_scale = torch.tensor([scale])
        check(a, b, Int8Epilogue(scale_a=0.5, bias=bias, out_scale=out_scale, out_zero_point=3), dtype)


def every_configuration() -> list[Configuration]:
    problems = [Problem(4096, 4096, 4096, 1, 1, 16, False, arch) for arch in (0, 80, 90, 100)]
    return list(dict.fromkeys(c for p in problems for c in int8_gemm_select.candidates(p)))


@pytest.mark.parametrize("configuration", every_configuration(), ids=str)
def test_every_configuration(configuration: Configuration) -> None:
    m, n, k = configuration.block_m + 3, configuration.block_n + 5, configuration.block_k + 7
    a, b = bytes_of((m, k), UINT8, 1), bytes_of((n, k), INT8, 2).t()
    check(a, b, everything(m, n)._replace(activation="relu"), INT8, configuration=configuration)


def test_any_number_of_ranges_gives_the_whole_sum() -> None:
    a, b = bytes_of((20, 200), UINT8, 1), bytes_of((40, 200), INT8, 2).t()
    for splits in (1, 2, 3, 5, 7, 50):
        check(a, b, everything(20, 40)._replace(zero_point_b=2), INT8, configuration=SMALL._replace(splits=splits))


@pytest.mark.skipif(HAS_GPU, reason="guard pages are a CPU's")
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
def test_nothing_beside_the_tensors_is_touched(monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Rows, columns and steps that are not there; ranges of which the last has a step less. (A kernel that reads on
    ends the process.)"""
    monkeypatch.setattr(sys.modules[__name__], "place", lambda tensor: guarded(tensor, after))
    whole = SMALL.block_k * 5
    for m, n, k, splits in ((19, 35, 37, None), (17, 33, 64, None), (17, 33, whole, 2), (17, 33, whole + 3, 4)):
        configuration = None if splits is None else SMALL._replace(splits=splits)
        a, b = bytes_of((m, k), UINT8, 1), bytes_of((n, k), INT8, 2).t()
        for columns in (b, b.contiguous()):
            e = Int8Epilogue(zero_point_a=3, zero_point_b=-7)
            check(a, columns, e, configuration=configuration)


@pytest.mark.parametrize("dtype", [INT8, UINT8], ids=str)
def test_copied_operands(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Their rows are longer than the reduction, which the zero points' correction must not count."""
    monkeypatch.setattr(int8_gemm_select, "PACKED_USES", 1)
    monkeypatch.setattr(int8_gemm_select, "PACKED_BYTES", range(2**29))
    copies = []
    pack = int8_pack.pack

    def recorded(rows: Tensor, copy: bool, sum_up: bool) -> tuple[Tensor, Tensor | None]:
        copies.append(copy)
        return pack(rows, copy, sum_up)

    monkeypatch.setattr(int8_gemm, "pack", recorded)
    for m, n, k in ((7, 18, 33), (300, 4, 3), (33, 20, 270)):
        a, b = bytes_of((k, m), dtype, 1).t(), bytes_of((k, n), INT8, 2)
        check(a, b, Int8Epilogue(zero_point_a=3, zero_point_b=-7))
        check(a, b, Int8Epilogue(zero_point_a=3), configuration=SMALL._replace(splits=2))
    assert all(copies)


def test_64_bit_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (int8_gemm, int8_pack):
        monkeypatch.setattr(module, "LARGEST_INDEX", 0)
    a, b = bytes_of((20, 70), UINT8, 1), bytes_of((40, 70), INT8, 2)
    for operand in (b.t(), b.t().contiguous()):
        for splits in (1, 2):
            check(
                a,
                operand,
                everything(20, 40)._replace(zero_point_b=2),
                INT8,
                configuration=SMALL._replace(splits=splits),
            )


@pytest.mark.parametrize("arch", [0, 80, 86, 90, 100, 120])
def test_every_problem_has_a_configuration(arch: int) -> None:
    for m in (1, 16, 100, 4096):
        for n in (1, 40, 4096):
            for k in (1, 100, 4096, 131071):
                for width in (1, 4, 16):
                    c = int8_gemm_select.choose(Problem(m, n, k, 1, 1, width, False, arch))
                    assert (c.splits - 1) * c.each * c.block_k < k <= c.splits * c.each * c.block_k
                    assert c.splits == 1 or 4 * c.splits * m * n <= int8_gemm_select.WORKSPACE_BYTES


def test_few_rows_stream_the_weights_on_a_whole_machine() -> None:
    """At batch 1 what counts is that every processor reads: tiles of few rows, and ranges where columns are few."""
    for n, k in ((4096, 4096), (256, 16384)):
        c = int8_gemm_select.choose(Problem(1, n, k, 1, 1, 16, False, 90))
        assert c.block_m == 16
        assert -(-n // c.block_n) * c.splits >= 100
    assert int8_gemm_select.choose(Problem(4096, 4096, 4096, 1, 1, 16, False, 90))[:3] == (128, 256, 128)
