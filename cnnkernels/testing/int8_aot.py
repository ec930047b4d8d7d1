"""Calls of the INT8 operators' Triton kernels to compile for GPUs that are not there (triton_aot.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..dtypes import ROUNDED
from ..int8.epilogue import Int8Epilogue
from .cases import ConvCase


@dataclass(frozen=True)
class GemmCase:
    """a [m, k] times b [k, n]; `row_major`: b's memory is a matrix [k, n], else [n, k]."""

    reason: str
    m: int
    n: int
    k: int
    row_major: bool = False


@dataclass(frozen=True)
class Int8Call:
    """A call for one architecture, on meta tensors, with all of the epilogue and an output of `output`, or with none
    where that is int32. `configuration`: None leaves the choice to selection."""

    case: GemmCase | ConvCase
    arch: int
    configuration: Any = None
    unsigned: bool = False
    output: torch.dtype = torch.int8
    activation: str = "relu"
    zero_point: int = 3

    dtype = "int8"

    @property
    def specialization(self) -> str:
        operand = "uint8" if self.unsigned else "int8"
        tile = f" {self.configuration}" if self.configuration else ""
        return f"{operand} {self.case.reason} to {str(self.output)[6:]} {self.activation}{tile}"

    def __call__(self) -> None:
        from .. import triton_kernels as kernels

        def tensor(*shape: int, dtype: torch.dtype = torch.int8) -> Tensor:
            made = torch.empty(shape, dtype=dtype, device="meta")
            return made.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else made

        case, element = self.case, torch.uint8 if self.unsigned else torch.int8
        columns = case.n if isinstance(case, GemmCase) else case.k
        shape = (case.m, case.n) if isinstance(case, GemmCase) else case.output_shape
        epilogue = Int8Epilogue(zero_point_a=self.zero_point)
        if self.output is not torch.int32:
            epilogue = Int8Epilogue(
                scale_a=tensor(case.m, dtype=torch.float32) if isinstance(case, GemmCase) else 0.02,
                scale_b=tensor(columns, dtype=torch.float32),
                zero_point_a=self.zero_point,
                bias=tensor(columns, dtype=torch.float32),
                residual=tensor(*shape),
                activation=self.activation,
                out_scale=0.05,
            )
        output = tensor(*shape, dtype=self.output)
        if isinstance(case, GemmCase):
            a = tensor(case.m, case.k, dtype=element)
            b = tensor(case.k, case.n) if case.row_major else tensor(case.n, case.k).t()
            kernels.int8_gemm(a, b, output, epilogue, self.configuration)
        else:
            x, w = tensor(*case.input_shape, dtype=element), tensor(*case.weight_shape)
            kernels.int8_conv(x, w, output, case.geometry, epilogue, self.configuration)


@dataclass(frozen=True)
class WeightOnlyCall:
    """int8_weight_only_linear for one architecture, on meta tensors, with all of the epilogue."""

    case: GemmCase
    arch: int
    dtype: str = "bf16"

    @property
    def specialization(self) -> str:
        return f"{self.dtype} {self.case.reason}"

    def __call__(self) -> None:
        from .. import triton_kernels as kernels

        case = self.case
        element = ROUNDED[self.dtype]
        x, w, y = (
            torch.empty(shape, dtype=dtype, device="meta")
            for shape, dtype in (
                ((case.m, case.k), element), ((case.n, case.k), torch.int8), ((case.m, case.n), element)
            )
        )  # fmt: skip
        scales = torch.empty(case.n, device="meta")
        epilogue = Int8Epilogue(scale_b=scales, bias=scales, residual=y, activation="relu")
        kernels.int8_weight_only_linear(x, w, y, epilogue)


# Sizes as they occur: nothing is allocated.
LARGE = GemmCase("4096^3", 4096, 4096, 4096)
OTHER_GEMM = (
    GemmCase("batch 1", 1, 4096, 4096),
    GemmCase("batch 1 of few columns", 1, 256, 16384),
    GemmCase("batch 1 row-major", 1, 4096, 4096, row_major=True),
    GemmCase("batch 1 of odd lengths", 1, 401, 333),
    GemmCase("row-major", 2048, 4096, 1024, row_major=True),
    GemmCase("odd channels", 4099, 1001, 333),
    GemmCase("odd columns", 4096, 1001, 2048),
    GemmCase("beyond 2^31 elements", 600000, 4096, 4096),
)

WEIGHT_ONLY = (
    OTHER_GEMM[0],
    GemmCase("64 rows", 64, 4096, 4096),
    LARGE,
    OTHER_GEMM[3],
    OTHER_GEMM[5],
    OTHER_GEMM[7],
)  # fmt: skip


def gemm_candidates(case: GemmCase, arch: int) -> list[Int8Call]:
    """A call for every configuration that selection may take for a case."""
    from ..triton_kernels.int8_gemm.select import Problem, candidates

    return [Int8Call(case, arch, c) for c in candidates(Problem(case.m, case.n, case.k, 1, 1, 16, False, arch))]


def conv_candidates(case: ConvCase, arch: int) -> list[Int8Call]:
    """The same of a convolution."""
    from ..triton_kernels.int8_conv.launch import problem_of  # type: ignore[attr-defined]
    from ..triton_kernels.int8_gemm.select import candidates

    return [Int8Call(case, arch, c) for c in candidates(problem_of(case.geometry, arch))]


def int8_calls(arch: int, whole: ConvCase, others: tuple[ConvCase, ...]) -> list[Int8Call | WeightOnlyCall]:
    """Every configuration of both integer products at a usual size, what selection takes at the sizes that lead down
    another path, outputs and activations of each kind, and each tile of the weight-only product."""
    found: list[Int8Call | WeightOnlyCall] = [*gemm_candidates(LARGE, arch), *conv_candidates(whole, arch)]
    found += [Int8Call(case, arch) for case in (*OTHER_GEMM, *others)]
    for case in (LARGE, whole):
        found += [Int8Call(case, arch, unsigned=True, zero_point=0), Int8Call(case, arch, zero_point=0)]
        found += [Int8Call(case, arch, output=output) for output in (torch.int32, torch.float32, torch.bfloat16)]
        found += [Int8Call(case, arch, activation=activation) for activation in ("gelu", "hardswish")]
    found += [WeightOnlyCall(case, arch) for case in WEIGHT_ONLY]
    return found + [WeightOnlyCall(case, arch, dtype) for case in WEIGHT_ONLY[:3] for dtype in ("fp16", "fp32")]
