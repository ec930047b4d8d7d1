"""Transposed convolution layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from .layer import KernelLayer


class _ConvTranspose(KernelLayer):
    """What a layer's forward adds to its function: an output size in place of `output_padding`."""

    _function: Callable[..., Tensor]
    _rank: int

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        layer: Any = self
        output_padding = layer._output_padding(
            input, output_size, layer.stride, layer.padding, layer.kernel_size, self._rank, layer.dilation
        )
        with self._backend():
            return type(self)._function(
                input, layer.weight, layer.bias, layer.stride, layer.padding, output_padding, layer.groups,
                layer.dilation,
            )  # fmt: skip


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d: the transpose of a Conv2d of `out_channels` channels, for [N, C, H, W] or [C, H, W].

    fp64, fp32, fp16 and bf16; any stride, padding, output_padding, dilation and groups. Called with an input and, if
    wanted, the output_size to reach. Errors are torch.nn.ConvTranspose2d's.

    Example:
        >>> cnnkernels.nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1)(torch.zeros(1, 8, 16, 16)).shape
        torch.Size([1, 3, 32, 32])
    """

    _function = staticmethod(F.conv_transpose2d)
    _rank = 2


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d: the transpose of a Conv1d of `out_channels` channels, for [N, C, L] or [C, L].

    Types, arguments and errors as ConvTranspose2d.

    Example:
        >>> cnnkernels.nn.ConvTranspose1d(8, 3, 4, stride=2, padding=1)(torch.zeros(1, 8, 16)).shape
        torch.Size([1, 3, 32])
    """

    _function = staticmethod(F.conv_transpose1d)
    _rank = 1


class LazyConvTranspose2d(torch.nn.LazyConvTranspose2d, ConvTranspose2d):  # type: ignore[misc]
    """torch.nn.LazyConvTranspose2d: a ConvTranspose2d that takes `in_channels` from its first input, and becomes one
    then.

    Example:
        >>> layer = cnnkernels.nn.LazyConvTranspose2d(8, 2, stride=2)
        >>> layer(torch.zeros(1, 5, 16, 16)).shape, layer.in_channels
        (torch.Size([1, 8, 32, 32]), 5)
    """

    cls_to_become = ConvTranspose2d  # type: ignore[assignment]


class LazyConvTranspose1d(torch.nn.LazyConvTranspose1d, ConvTranspose1d):  # type: ignore[misc]
    """torch.nn.LazyConvTranspose1d: a ConvTranspose1d that takes `in_channels` from its first input, and becomes one
    then.

    Example:
        >>> layer = cnnkernels.nn.LazyConvTranspose1d(8, 2, stride=2)
        >>> layer(torch.zeros(1, 5, 16)).shape, layer.in_channels
        (torch.Size([1, 8, 32]), 5)
    """

    cls_to_become = ConvTranspose1d  # type: ignore[assignment]
