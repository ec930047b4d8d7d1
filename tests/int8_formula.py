"""The INT8 operators' formula in numpy: int64 sums, then fp32 operations, each of which numpy rounds by itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cnnkernels.int8_epilogue import Int8Epilogue

EXACT_ACTIVATIONS = ("none", "relu", "relu6", "leaky_relu", "hardswish")


def bytes_of(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Bytes of the whole range, both ends among them."""
    limits = torch.iinfo(dtype)
    values = torch.randint(limits.min, limits.max + 1, shape, generator=torch.Generator().manual_seed(seed))
    flat = values.view(-1)
    flat[0] = limits.min
    flat[-1] = limits.max
    flat[len(flat) // 2] = limits.min
    return values.to(dtype)


def floats(count: int, seed: int, low: float = -3.0, high: float = 3.0) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=torch.Generator().manual_seed(seed))


def _array(value: float | Tensor, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    array = np.asarray(value.numpy() if isinstance(value, Tensor) else value, dtype)
    return array.reshape(shape) if array.size > 1 else array.reshape(())


def gemm_sums(a: Tensor, b: Tensor, e: Int8Epilogue) -> np.ndarray:
    """sum over k of (a - zero_point_a) (b - zero_point_b), which must fit int32."""
    rows = a.numpy().astype(np.int64) - _array(e.zero_point_a, (-1, 1), np.int64)
    columns = b.numpy().astype(np.int64) - _array(e.zero_point_b, (1, -1), np.int64)
    sums = rows @ columns
    assert np.abs(sums).max() < 2**31
    return sums


def finished(sums: np.ndarray, e: Int8Epilogue, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
    """What becomes of sums [rows, columns]; the residual as a matrix."""
    if dtype is torch.int32:
        return torch.from_numpy(sums.astype(np.int32))
    f = np.float32
    with np.errstate(all="ignore"):
        x = sums.astype(f) * (_array(e.scale_a, (-1, 1), f) * _array(e.scale_b, (1, -1), f))
        if e.bias is not None:
            x = x + e.bias.numpy()
        if residual is not None and residual.is_floating_point():
            x = x + residual.float().numpy()
        elif residual is not None:
            x = x + (residual.numpy().astype(f) - f(e.residual_zero_point)) * f(e.residual_scale)
        x = _activated(x, e.activation, f(e.negative_slope))
        if dtype.is_floating_point:
            return torch.from_numpy(x).to(dtype)
        limits = torch.iinfo(dtype)
        quotient = np.rint(x * (f(1) / _array(e.out_scale, (), f)))
        rounded = np.where(np.isnan(quotient), 0, quotient) + f(e.out_zero_point)
        return torch.from_numpy(np.clip(rounded, limits.min, limits.max).astype(np.int64)).to(dtype)


def _activated(x: np.ndarray, activation: str, slope: np.float32) -> np.ndarray:
    f = np.float32
    if activation == "relu":
        return np.where(x < 0, f(0), x)
    if activation == "relu6":
        return np.where(x < 0, f(0), np.where(x > 6, f(6), x))
    if activation == "leaky_relu":
        return np.where(x > 0, x, x * slope)
    if activation == "hardswish":
        moved = x + f(3)
        return x * np.where(moved < 0, f(0), np.where(moved > 6, f(6), moved)) / f(6)
    assert activation == "none"
    return x
