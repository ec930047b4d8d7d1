"""A floating input as the integers that an INT8 layer multiplies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..int8_arguments import checked_scales, checked_zero_points


def integers_of(op: str, input: Tensor, scale: Any, zero_point: Any) -> Tensor:
    """clamp(rint(input (1 / scale)) + zero_point) in int8; both are numbers or tensors of one element."""
    where = "input", input.device
    scale = checked_scales(op, "input_scale", scale, where, ())
    zero_point = checked_zero_points(op, "input_zero_point", zero_point, where, (), torch.int8)
    if not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=torch.float32, device=input.device)
    x = torch.round(input.float() * (1 / scale.reshape(()))).nan_to_num(0.0, torch.inf, -torch.inf)
    return (x.clamp(-128 - zero_point, 127 - zero_point) + zero_point).to(torch.int8)


def integers_and_scales_of(input: Tensor) -> tuple[Tensor, Tensor]:
    """int8 of each row [..., K] with a scale of its own [..., 1], so that its largest magnitude is 127."""
    x = input.float()
    scale = x.nan_to_num(0.0, torch.inf, -torch.inf).abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale == 0, 1.0, scale)
    q = torch.round(x * (1 / scale)).nan_to_num(0.0).clamp(-128, 127).to(torch.int8)
    return q, scale
