"""What the tests of pooling share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cnnkernels.geometry import Layout
from cnnkernels.native import NativeKernels
from cnnkernels.native import pool as native_pool


def dense(x: Tensor, layout: Layout, device: str | torch.device) -> Tensor:
    """A copy of x, dense in `layout` also where extents of 1 leave the choice open."""
    if layout is Layout.NCHW:
        return x.to(device).contiguous()
    n, c, h, w = x.shape
    memory = x.to(device).permute(0, 2, 3, 1).contiguous()
    return memory.as_strided((n, c, h, w), (h * w * c, 1, w * c, c))


def unwritten(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout, device: str | torch.device) -> Tensor:
    """An output that shows an element nobody wrote."""
    return dense(torch.full(shape, float("nan") if dtype.is_floating_point else 113, dtype=dtype), layout, device)


def limited(kernels, largest_index: int, monkeypatch: pytest.MonkeyPatch):
    """The same kernels, but with less that 32-bit arithmetic may meet: slices of the batch, or 64-bit offsets."""
    if isinstance(kernels, NativeKernels):
        return native_pool.limited(kernels, largest_index)
    import cnnkernels.triton_kernels.common.sites as spread

    monkeypatch.setattr(spread, "LARGEST_INDEX", largest_index)
    return kernels
