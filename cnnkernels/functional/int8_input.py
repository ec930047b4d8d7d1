"""A floating tensor as integers and back, by PyTorch's own operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def quantize_per_tensor(
    input: Tensor, scale: Any = None, zero_point: Any = 0, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Any]:
    """clamp(rint(input (1 / scale)) + zero_point) in dtype; both are numbers or tensors of one element."""
    limits = torch.iinfo(dtype)
    number = scale if isinstance(scale, Tensor) else torch.tensor(scale, dtype=torch.float32, device=input.device)
    x = torch.round(input.float() * (1 / number.reshape(()))).nan_to_num(0.0, torch.inf, -torch.inf)
    return (x.clamp(limits.min - zero_point, limits.max - zero_point) + zero_point).to(dtype), scale


def quantize_per_token(input: Tensor) -> tuple[Tensor, Tensor]:
    """int8 of each row [..., K] with a scale of its own [..., 1], so that its largest magnitude is 127."""
    x = input.float()
    scale = x.nan_to_num(0.0, torch.inf, -torch.inf).abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale == 0, 1.0, scale)
    q = torch.round(x * (1 / scale)).nan_to_num(0.0).clamp(-128, 127).to(torch.int8)
    return q, scale


def dequantize(
    q: Tensor, scale: Any, zero_point: Any = 0, axis: int | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(q - zero_point) scale."""
    return ((q.int() - zero_point).float() * scale).to(dtype)
