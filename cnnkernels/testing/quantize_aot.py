"""Calls of quantization's and INT8 pooling's Triton kernels to compile for GPUs that are not there (triton_aot.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..dtypes import FLOATING
from .cases import PoolCase


@dataclass(frozen=True)
class QuantizeCall:
    """Dynamic and static quantization of a tensor [outer, groups, inner], and the way back, for one architecture."""

    reason: str
    shape: tuple[int, int, int]
    dtype: str
    arch: int
    unsigned: bool = False

    @property
    def specialization(self) -> str:
        return f"{self.dtype} {self.reason} {'uint8' if self.unsigned else 'int8'}"

    def __call__(self) -> None:
        from .. import triton_kernels as kernels

        def tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta")

        x = tensor(self.shape, FLOATING[self.dtype])
        scale, zero_point = (tensor(self.shape[1:2], dtype) for dtype in (torch.float32, torch.int32))
        q = tensor(self.shape, torch.uint8 if self.unsigned else torch.int8)
        if not self.unsigned:
            kernels.quantize(x, q, scale, 0, True)
        for numbers in ((scale, zero_point), (0.02, 3)):
            kernels.quantize(x, q, *numbers)
            kernels.dequantize(q, x, *numbers)


@dataclass(frozen=True)
class Int8PoolCall:
    """The maximum and the mean of int8 or uint8 images, for one architecture."""

    case: PoolCase
    arch: int
    unsigned: bool = False

    dtype = "int8"

    @property
    def specialization(self) -> str:
        return f"{'uint8' if self.unsigned else 'int8'} {self.case.reason}"

    def __call__(self) -> None:
        from .. import triton_kernels as kernels

        x, y = (
            torch.empty(shape, dtype=torch.uint8 if self.unsigned else torch.int8, device="meta").contiguous(
                memory_format=torch.channels_last
            )
            for shape in (self.case.input_shape, self.case.output_shape)
        )
        kernels.int8_max_pool(x, y, self.case.geometry)
        kernels.int8_avg_pool(x, y, self.case.geometry, 3, True, None)


# Sizes as they occur: nothing is allocated.
SHAPES = {
    "tensor": (1, 1, 1 << 22),
    "tokens": (1, 4096, 4096),
    "channels_last channels": (32 * 56 * 56, 64, 1),
}
POOLS = (
    PoolCase("ResNet's stem", 32, 64, 112, 112, (3, 3), (2, 2), (1, 1)),
    PoolCase("2x2", 32, 256, 56, 56, (2, 2), (2, 2)),
    PoolCase("global", 32, 2048, 7, 7, (7, 7), (7, 7)),
)


def quantize_calls(arch: int) -> list[QuantizeCall | Int8PoolCall]:
    """Every kernel, in every type where it is read or written."""
    found: list[QuantizeCall | Int8PoolCall] = [
        QuantizeCall(reason, shape, dtype, arch) for reason, shape in SHAPES.items() for dtype in ("fp32", "bf16")
    ]
    found += [QuantizeCall("tokens", SHAPES["tokens"], dtype, arch) for dtype in ("fp64", "fp16")]
    found.append(QuantizeCall("tensor", SHAPES["tensor"], "bf16", arch, unsigned=True))
    return found + [Int8PoolCall(case, arch) for case in POOLS]
