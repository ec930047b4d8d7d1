"""A batch norm in eval folded into the layer before it:

    gamma (x - mean) / sqrt(var + eps) + beta = scale x + shift;     w' = scale w, b' = scale b + shift

computed in fp64 and rounded once.
"""

from __future__ import annotations

from typing import Any

import torch


def folded(conv: Any, norm: Any) -> tuple[Any, Any]:
    """A convolution's or linear layer's parameters with the batch norm after it; the very same where there is none."""
    if norm is None:
        return conv.weight, conv.bias
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"{norm} keeps no running statistics to fold")
    with torch.no_grad():
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
        shift = bias * scale
        if norm.bias is not None:
            shift = shift + norm.bias.double()
        weight = conv.weight.double() * scale.view(-1, *[1] * (conv.weight.dim() - 1))
        like = conv.weight
    return (
        torch.nn.Parameter(weight.to(like.dtype), requires_grad=False),
        torch.nn.Parameter(shift.to(like.dtype), requires_grad=False),
    )
