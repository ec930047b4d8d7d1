"""INT8 written out in numpy, away from the project's code: integers in int64, then the formula in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnkernels.testing.cases import ConvCase


def integers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.int8) -> Tensor:
    """The full range, of which the extremes come up most."""
    limits = torch.iinfo(dtype)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(limits.min, limits.max + 1, shape, generator=generator)
    places = torch.randint(0, 4, shape, generator=generator)
    return torch.where(places == 0, limits.min, torch.where(places == 1, limits.max, values)).to(dtype)


def floats(shape: tuple[int, ...], seed: int, low: float = -1, high: float = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def wide(tensor: Tensor | int) -> Any:
    return tensor.cpu().numpy().astype(np.int64) if isinstance(tensor, Tensor) else np.int64(tensor)


def product(a: Tensor, b: Tensor, zero_point_a: Any = 0, zero_point_b: Any = 0) -> np.ndarray:
    """The int64 sums; zero points are numbers, or tensors of one a row and one a column."""
    rows, columns = wide(zero_point_a).reshape(-1, 1), wide(zero_point_b).reshape(1, -1)
    return (wide(a) - rows) @ (wide(b) - columns)


def convolution(case: ConvCase, input: Tensor, weight: Tensor, zero_point: int = 0) -> np.ndarray:
    """The int64 sums [N, K, P, Q], a window at a time."""
    g = case.geometry
    top, bottom, left, right = case.padding
    x = np.pad(wide(input) - zero_point, ((0, 0), (0, 0), (top, bottom), (left, right)))
    w = wide(weight)
    sums = np.zeros((g.n, g.k, g.p, g.q), np.int64)
    channels, filters = g.c // g.groups, g.k // g.groups
    for group in range(g.groups):
        of_group = x[:, group * channels : (group + 1) * channels]
        mine = slice(group * filters, (group + 1) * filters)
        for r in range(g.r):
            for s in range(g.s):
                h, v = r * g.dilation_h, s * g.dilation_w
                window = of_group[:, :, h : h + g.p * g.stride_h : g.stride_h, v : v + g.q * g.stride_w : g.stride_w]
                sums[:, mine] += np.einsum("nchw,kc->nkhw", window[:, :, : g.p, : g.q], w[mine, :, r, s])
    return sums


def formula(
    sums: np.ndarray,
    *,
    scale_a: Any = 1.0,
    scale_b: Any = 1.0,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    residual_scale: float = 1.0,
    residual_zero_point: int = 0,
    activation: str | None = None,
    negative_slope: float = 0.01,
    out_dtype: torch.dtype = torch.float32,
    out_scale: Any = 1.0,
    out_zero_point: int = 0,
) -> Tensor:
    """The epilogue of sums [rows, columns], one float32 operation a line."""
    f = np.float32

    def numbers(value: Any, shape: tuple[int, int]) -> Any:
        if not isinstance(value, Tensor):
            return f(value)
        return value.cpu().numpy().reshape((1, 1) if value.numel() == 1 else shape)

    with np.errstate(all="ignore"):
        scale = numbers(scale_a, (-1, 1)) * numbers(scale_b, (1, -1))
        x = sums.astype(np.int32).astype(f)
        x = x * scale
        if bias is not None:
            x = x + bias.cpu().numpy()
        if residual is not None and residual.is_floating_point():
            x = x + residual.cpu().float().numpy()
        elif residual is not None:
            shifted = (wide(residual) - residual_zero_point).astype(f)
            r = shifted * f(residual_scale)
            x = x + r
        x = _activation(x, activation or "none", f(negative_slope))
        assert x.dtype == f
        if out_dtype.is_floating_point:
            return torch.from_numpy(x).to(out_dtype)
        limits = torch.iinfo(out_dtype)
        inverse = f(1) / numbers(out_scale, (1, 1))
        x = np.rint(x * inverse).astype(np.float64)  # exact from here on
        x = np.where(np.isnan(x), out_zero_point, np.clip(x + out_zero_point, limits.min, limits.max))
        return torch.from_numpy(x).to(out_dtype)


def _activation(x: np.ndarray, name: str, slope: np.float32) -> np.ndarray:
    f = np.float32
    if name == "relu":
        return np.where(x < 0, f(0), x)
    if name == "relu6":
        return np.where(x < 0, f(0), np.where(x > 6, f(6), x))
    if name == "leaky_relu":
        return np.where(x > 0, x, x * slope)
    if name == "hardswish":
        moved = x + f(3)
        clipped = np.where(moved < 0, f(0), np.where(moved > 6, f(6), moved))
        x = x * clipped
        return x / f(6)
    assert name == "none"
    return x


def columns_last(image: Any) -> Any:
    """[N, K, P, Q] as rows of pixels and columns of filters."""
    moved = np.moveaxis(image, 1, -1) if isinstance(image, np.ndarray) else image.movedim(1, -1)
    return moved.reshape(-1, moved.shape[-1])
