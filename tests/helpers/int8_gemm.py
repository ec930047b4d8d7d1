"""Operands of int8_gemm's kernels, and their launch by one plan or another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native import NativeKernels
from helpers.device import DEVICE

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
    runner: NativeKernels,
    a: Tensor,
    b: Tensor,
    epilogue: Int8Epilogue = PLAIN,
    plan: Any = None,
    dtype: torch.dtype = torch.int32,
) -> Tensor:
    output = torch.full((a.shape[0], b.shape[1]), 77, device=DEVICE).to(dtype)
    runner.int8_gemm(a, b, output, epilogue, plan)
    return output.cpu()


def tiles(runner: NativeKernels, vectors: bool, tile: int, splits: int = 1, pack: str = "") -> Any:
    plan = runner.module.Int8GemmPlan()
    plan.tiles = runner.module.Int8Plan(vectors, tile, splits)
    plan.pack_a, plan.pack_b = "a" in pack, "b" in pack
    return plan


def streaming(runner: NativeKernels, columns: int, warps: int) -> Any:
    plan = runner.module.Int8GemmPlan()
    plan.kernel = runner.module.Int8GemmKernel.stream_weights
    plan.stream_columns, plan.warps = columns, warps
    return plan


def product(a: Tensor, b: Tensor, epilogue: Int8Epilogue = PLAIN) -> Tensor:
    """[M, N] int32 by integer arithmetic."""
    rows = a.cpu().long() - (torch.as_tensor(epilogue.zero_point_a).cpu().long().reshape(-1, 1))
    columns = b.cpu().long() - torch.as_tensor(epilogue.zero_point_b).cpu().long().reshape(1, -1)
    return (rows @ columns).int()


def full(m: int, n: int, **changes: Any) -> Int8Epilogue:
    generator = torch.Generator().manual_seed(15)
    numbers = [
        torch.rand(m, generator=generator),
        torch.rand(n, generator=generator),
        torch.randn(n, generator=generator),
    ]
    scale_a, scale_b, bias = (x.to(DEVICE) for x in numbers)
    epilogue = Int8Epilogue(scale_a=scale_a, scale_b=scale_b * 1e-3, bias=bias, out_scale=0.03, out_zero_point=-5)
    return epilogue._replace(**changes)


def residual(dtype: torch.dtype, m: int, n: int) -> Tensor:
    if dtype.is_floating_point:
        return (torch.randn(m, n, generator=torch.Generator().manual_seed(16)) * 3).to(dtype).to(DEVICE)
    return integers(17, m, n, dtype).to(DEVICE)


SM90_TILES = ["128x256", "128x256 cluster", "128x128 ping-pong", "128x64", "64x128"]


def sm90(runner: NativeKernels, tile: str, splits: int = 1, blocks: int = 0, pack: str = "") -> Any:
    plan = runner.module.Int8GemmPlan()
    plan.tiles = runner.module.Int8Plan(False, SM90_TILES.index(tile), splits, wgmma=True, blocks=blocks)
    plan.pack_a, plan.pack_b = "a" in pack, "b" in pack
    return plan


def pitched(values: Tensor) -> Tensor:
    """[rows, columns] whose rows begin at multiples of 16 bytes, with bytes between them that no sum may have."""
    rows, columns = values.shape
    place = torch.full((rows, (columns + 31) // 16 * 16), 99, dtype=values.dtype, device=DEVICE)[:, :columns]
    return place.copy_(values)
