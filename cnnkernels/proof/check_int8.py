"""What `cnnkernels check` runs of the INT8 kernels. All of it is exact: the reference's bits are the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..dtypes import ELEMENTS, FLOATING, INT8_DTYPES, ROUNDED, dtype_name
from ..int8 import reference as int8_reference
from ..int8.epilogue import Int8Epilogue
from ..ops.int8_pool import Reference as pool_reference
from ..ops.quantize import Reference as quantize_reference
from ..testing.cases import MAX_POOL2D, ConvCase, PoolCase
from ..testing.int8_cases import INT8_CONV2D, INT8_GEMM, Int8GemmCase

INT8_POOL2D = MAX_POOL2D[1:10]


class Int8Check(NamedTuple):
    """One call: `run(kernels, device)` gives its result, whoever computes it."""

    kernel: str
    type: str
    reference: Any
    run: Callable[[Any, str], Tensor]


def _integers(shape: Sequence[int], seed: int, device: str, dtype: torch.dtype = torch.int8) -> Tensor:
    limits = torch.iinfo(dtype)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(limits.min, limits.max + 1, tuple(shape), generator=generator).to(dtype).to(device)


def _floats(shape: Sequence[int], seed: int, device: str) -> Tensor:
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed)).to(device)


def _epilogue(kind: str, columns: int, device: str, residual: Tensor) -> Int8Epilogue:
    """The sums alone, what a last layer has, and what a layer between two others has."""
    if kind == "int32":
        return Int8Epilogue(zero_point_a=3)
    scales, bias = _floats((columns,), 3, device) / 100, _floats((columns,), 4, device) - 0.5
    if kind == "fp16":
        return Int8Epilogue(0.02, scales, bias=bias, activation="leaky_relu", negative_slope=0.3)
    return Int8Epilogue(
        0.02, scales, 3, bias=bias, residual=residual, residual_scale=0.05, residual_zero_point=-4, activation="relu",
        out_scale=0.07, out_zero_point=-20,
    )  # fmt: skip


_OUTPUTS = ("int32", "fp16", "int8")


def _gemm(case: Int8GemmCase, kind: str) -> Callable[[Any, str], Tensor]:
    def run(kernels: Any, device: str) -> Tensor:
        a, b = _integers((case.m, case.k), 1, device), _integers((case.n, case.k), 2, device).t()
        output = torch.empty((case.m, case.n), dtype=ELEMENTS[kind].dtype, device=device)
        residual = _integers(output.shape, 5, device)
        kernels.int8_gemm(a, b, output, _epilogue(kind, case.n, device, residual))
        return output

    return run


def _conv2d(case: ConvCase, kind: str) -> Callable[[Any, str], Tensor]:
    def last(tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=torch.channels_last)

    def run(kernels: Any, device: str) -> Tensor:
        x, w = (last(_integers(shape, 1, device)) for shape in (case.input_shape, case.weight_shape))
        output = last(torch.empty(case.output_shape, dtype=ELEMENTS[kind].dtype, device=device))
        residual = last(_integers(output.shape, 5, device))
        kernels.int8_conv(x, w, output, case.geometry, _epilogue(kind, case.k, device, residual))
        return output

    return run


def _weight_only(case: Int8GemmCase, dtype: torch.dtype) -> Callable[[Any, str], Tensor]:
    """Of small integers and powers of two, whose sums are exact in any order."""

    def run(kernels: Any, device: str) -> Tensor:
        x = _integers((case.m, case.k), 1, device).div(32, rounding_mode="floor").to(dtype)
        w = _integers((case.n, case.k), 2, device)
        scales = torch.exp2(_integers((case.n,), 3, device).div(64, rounding_mode="floor").float() - 8)
        output = torch.empty((case.m, case.n), dtype=dtype, device=device)
        kernels.int8_weight_only_linear(x, w, output, Int8Epilogue(scale_b=scales, activation="relu"))
        return output

    return run


def _quantize(shape: tuple[int, int, int], dtype: torch.dtype, dynamic: bool) -> Callable[[Any, str], Tensor]:
    def run(kernels: Any, device: str) -> Tensor:
        x = ((_floats(shape, 1, device) - 0.5) * 9).to(dtype)
        scale = torch.empty(shape[1], device=device) if dynamic else _floats((shape[1],), 2, device) / 9 + 0.01
        q = torch.empty(shape, dtype=torch.int8, device=device)
        kernels.quantize(x, q, scale, 0 if dynamic else 5, dynamic)
        return q * scale[:, None].double()  # the integers and the scales at once

    return run


def _dequantize(shape: tuple[int, int, int], dtype: torch.dtype) -> Callable[[Any, str], Tensor]:
    def run(kernels: Any, device: str) -> Tensor:
        y = torch.empty(shape, dtype=dtype, device=device)
        kernels.dequantize(_integers(shape, 1, device), y, _floats((shape[1],), 2, device), 5)
        return y

    return run


def _pool(case: PoolCase, name: str, dtype: torch.dtype, *numbers: Any) -> Callable[[Any, str], Tensor]:
    def run(kernels: Any, device: str) -> Tensor:
        x = _integers(case.input_shape, 1, device, dtype).contiguous(memory_format=torch.channels_last)
        y = torch.empty(case.output_shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
        getattr(kernels, name)(x, y, case.geometry, *numbers)
        return y

    return run


def int8_checks() -> Iterator[Int8Check]:
    """Every INT8 kernel, on each case of the lists, in each kind of epilogue."""
    for kind in _OUTPUTS:
        for product in INT8_GEMM:
            yield Int8Check("int8_gemm", kind, int8_reference, _gemm(product, kind))
        for case in INT8_CONV2D:
            yield Int8Check("int8_conv", kind, int8_reference, _conv2d(case, kind))
    for name, dtype in ROUNDED.items():
        for product in INT8_GEMM:
            yield Int8Check("int8_weight_only_linear", name, int8_reference, _weight_only(product, dtype))
    for name, dtype in FLOATING.items():
        for shape in ((1, 1, 1000), (3, 5, 70), (2, 3, 1099), (1, 33, 65), (40, 7, 1)):
            for dynamic in (False, True):
                yield Int8Check("quantize", name, quantize_reference, _quantize(shape, dtype, dynamic))
            yield Int8Check("dequantize", name, quantize_reference, _dequantize(shape, dtype))
    for pool in INT8_POOL2D:
        for dtype in INT8_DTYPES:
            name = dtype_name(dtype)
            yield Int8Check("int8_max_pool", name, pool_reference, _pool(pool, "int8_max_pool", dtype))
            if pool.dilation == (1, 1):
                mean = _pool(pool, "int8_avg_pool", dtype, 3, True, None)
                yield Int8Check("int8_avg_pool", name, pool_reference, mean)
