"""Which kernel runs a convolution: a backend's, depthwise or not, and whether its products may be rounded to TF32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends, certified
from ..geometry import ConvGeometry
from ..records.choice import conv_precision
from .depthwise_conv import is_depthwise


def tf32_allowed(dtype: torch.dtype) -> bool:
    """Whether fp32 products may round their operands to tf32: where PyTorch's own CUDA conv may.

    `torch.backends.cudnn.conv.fp32_precision` is what PyTorch's conv reads, and what both the new settings
    (`torch.backends.fp32_precision`, `torch.backends.cudnn.fp32_precision`) and the old one
    (`torch.backends.cudnn.allow_tf32`) write through to. Reading it is right under any mixture of them, where reading
    `allow_tf32` raises.
    """
    return dtype is torch.float32 and conv_precision("cuda", "conv") == "tf32"


class Kernel(NamedTuple):
    """What runs a direction: it takes its two operands, what they make, the geometry, the layout and `tf32`, which a
    depthwise one has not."""

    of: Any  # all of its backend's
    launch: Callable[..., None]
    depthwise: bool
    tf32: tuple[bool, ...]


def rounds_to_tf32(backend: str, word: str, tensor: Tensor) -> bool:
    """Whether a backend's products of a tensor do: TF32 that failed its proof on a GPU gives way to fp32 there. Of
    several backends that share a convolution's directions, one that failed decides for all."""
    if not tf32_allowed(tensor.dtype):
        return False
    without = certified.WITHOUT_TF32
    return not without or not any((tensor.device, name, word) in without for name in backend.split("/"))


def kernel_of(direction: str, tensor: Tensor, geometry: ConvGeometry, backend: str) -> Kernel:
    """A backend's kernel for a direction: looked up once a call."""
    kernels = backends.kernels(backend, tensor.device.type)
    if is_depthwise(geometry):
        return Kernel(kernels, getattr(kernels, f"depthwise_conv_{direction}"), True, ())
    return Kernel(kernels, getattr(kernels, f"conv_{direction}"), False, (rounds_to_tf32(backend, "conv", tensor),))
