"""Ways for a tensor of four axes to lie in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def views(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Ways for the same shape to lie in memory."""
    yield "contiguous", tensor
    yield "channels_last", tensor.contiguous(memory_format=torch.channels_last)
    yield "columns of wider rows", torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]
    channels = torch.cat([tensor, tensor], 1).contiguous(memory_format=torch.channels_last)
    yield "channels of more, channels_last", channels[:, tensor.shape[1] :]
    yield "all axes reversed", tensor.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    yield "rows before channels", tensor.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    yield "one image expanded", tensor[:1].expand(tensor.shape)
    yield "one channel expanded", tensor[:, :1].expand(tensor.shape)
    yield "offset", torch.cat([tensor.flatten()[:1], tensor.flatten()])[1:].view(tensor.shape)
    yield "negated lazily", torch._neg_view(-tensor)


SHAPES = [
    (2, 4, 5, 6),
    (2, 1, 5, 6),
    (1, 4, 5, 6),
    (2, 4, 1, 1),
    (1, 1, 1, 1),
    (2, 4, 1, 6),
    (1, 4, 6, 1),
    (0, 4, 5, 6),
]
