"""Operands of int8_gemm's kernels, and their launch by one plan or another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native import NativeKernels
from conftest import DEVICE

PLAIN = Int8Epilogue()


def integers(seed: int, rows: int, columns: int, dtype: torch.dtype = torch.int8) -> Tensor:
    """The whole range, its ends often."""
    limits = torch.iinfo(dtype)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(limits.min, limits.max + 1, (rows, columns), generator=generator)
    ends = torch.randint(0, 8, (rows, columns), generator=generator)
    values[ends == 0], values[ends == 1] = limits.min, limits.max
    return values.to(dtype)


def strided(values: Tensor, how: str) -> Tensor:
    """The same matrix, its rows contiguous, its columns contiguous, neither, or rows at odd addresses."""
    values = values.to(DEVICE)
    rows, columns = values.shape
    if how == "rows":
        return values.contiguous()
    if how == "columns":
        return values.t().contiguous().t()
    if how == "odd":
        place = torch.zeros(rows, columns + 3, dtype=values.dtype, device=DEVICE)[:, 1 : columns + 1]
        return place.copy_(values)
    if how == "odd columns":
        return strided(values.t(), "odd").t()
    assert how == "neither"
    return torch.zeros(rows, 3, columns, 2, dtype=values.dtype, device=DEVICE)[:, 1, :, 1].copy_(values)


def run(
    machine: NativeKernels,
    a: Tensor,
    b: Tensor,
    epilogue: Int8Epilogue = PLAIN,
    plan: Any = None,
    dtype: torch.dtype = torch.int32,
) -> Tensor:
    output = torch.full((a.shape[0], b.shape[1]), 77, device=DEVICE).to(dtype)
    machine.int8_gemm(a, b, output, epilogue, plan)
    return output.cpu()


def tiles(machine: NativeKernels, vectors: bool, tile: int, splits: int = 1, pack: str = "") -> Any:
    plan = machine.module.Int8GemmPlan()
    plan.tiles = machine.module.Int8Plan(vectors, tile, splits)
    plan.pack_a, plan.pack_b = "a" in pack, "b" in pack
    return plan


def streaming(machine: NativeKernels, columns: int, warps: int) -> Any:
    plan = machine.module.Int8GemmPlan()
    plan.kernel = machine.module.Int8GemmKernel.stream_weights
    plan.stream_columns, plan.warps = columns, warps
    return plan
