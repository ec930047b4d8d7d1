"""Convolution layers, with and without what follows a convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..activation import NEGATIVE_SLOPE
from ..backends import use_backend
from ..functional.arguments import checked_activation
from .layer import KernelLayer


class Conv2d(KernelLayer, torch.nn.Conv2d):
    """torch.nn.Conv2d: correlates [N, C, H, W] or [C, H, W] with `out_channels` filters.

    fp64, fp32, fp16 and bf16; any stride, padding (a number, a pair, "same", "valid"), dilation and groups;
    padding_mode zeros, reflect, replicate or circular. Errors are torch.nn.Conv2d's.

    Example:
        >>> cnnkernels.nn.Conv2d(3, 64, 7, stride=2, padding=3)(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 64, 112, 112])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        parameters = self.stride, padding, self.dilation, self.groups
        if self.backend is None:
            return F.conv2d(input, weight, bias, *parameters, padding_mode=self.padding_mode)
        with use_backend(self.backend):
            return F.conv2d(input, weight, bias, *parameters, padding_mode=self.padding_mode)


class Conv1d(KernelLayer, torch.nn.Conv1d):
    """torch.nn.Conv1d: correlates [N, C, L] or [C, L] with `out_channels` filters.

    Types, arguments and padding modes as Conv2d, in one number each. Errors are torch.nn.Conv1d's.

    Example:
        >>> cnnkernels.nn.Conv1d(2, 8, 5, padding=2)(torch.zeros(1, 2, 100)).shape
        torch.Size([1, 8, 100])
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        with self._backend():
            return F.conv1d(
                input, weight, bias, self.stride, padding, self.dilation, self.groups, padding_mode=self.padding_mode
            )


class Conv2dAct(Conv2d):
    """A Conv2d with what follows it in one store: activation(scale (convolution + bias) + shift + residual).

    Its arguments are Conv2d's and, by name: `activation` (None, "relu", "relu6", "leaky_relu", "silu", "gelu" or
    "hardswish"), `negative_slope` of leaky_relu, and `affine`, which gives the layer the parameters `scale`
    [out_channels] (ones) and `shift` [out_channels] (zeros). `Conv2dAct.fold` makes one of a convolution and its batch
    norm. Called with an input and, if wanted, a residual of the output's size.

    Raises:
        TypeError, ValueError: for what is no activation.

    Example:
        >>> convolution, norm = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
        >>> cnnkernels.nn.Conv2dAct.fold(convolution, norm.eval(), "silu")(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 8, 32, 32])
    """

    def __init__(
        self,
        *arguments: Any,
        activation: str | None = "relu",
        negative_slope: float = NEGATIVE_SLOPE,
        affine: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        checked_activation("Conv2dAct", activation, negative_slope)
        self.activation, self.negative_slope = activation, negative_slope
        ones = torch.ones(self.out_channels, device=self.weight.device, dtype=self.weight.dtype)
        self.scale = torch.nn.Parameter(ones) if affine else None
        self.shift = torch.nn.Parameter(torch.zeros_like(ones)) if affine else None

    @classmethod
    def fold(
        cls,
        conv: torch.nn.Conv2d,
        batch_norm: torch.nn.BatchNorm2d | None = None,
        activation: str | None = "relu",
        negative_slope: float = NEGATIVE_SLOPE,
    ) -> Conv2dAct:
        """A layer around conv's own parameters that computes conv, then batch_norm as in evaluation, then activation.

        Raises:
            ValueError: batch_norm keeps no running statistics, or is of another number of channels.
        """
        padding: Any = conv.padding
        layer = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding, conv.dilation, conv.groups,
            conv.bias is not None, conv.padding_mode, conv.weight.device, conv.weight.dtype,
            activation=activation, negative_slope=negative_slope, affine=batch_norm is not None,
        )  # fmt: skip
        layer.weight, layer.bias = conv.weight, conv.bias
        if batch_norm is None or layer.scale is None or layer.shift is None:
            return layer.train(conv.training)
        if batch_norm.running_mean is None or batch_norm.running_var is None:
            raise ValueError("Conv2dAct.fold: expected a batch_norm that keeps running statistics")
        if batch_norm.num_features != conv.out_channels:
            raise ValueError(
                f"Conv2dAct.fold: expected a batch_norm of {conv.out_channels} channels, but got "
                f"num_features={batch_norm.num_features}"
            )
        with torch.no_grad():
            scale = torch.rsqrt(batch_norm.running_var.double() + batch_norm.eps)
            if batch_norm.affine:
                scale = scale * batch_norm.weight.double()
            shift = -batch_norm.running_mean.double() * scale
            layer.scale.copy_(scale)
            layer.shift.copy_(shift + batch_norm.bias.double() if batch_norm.affine else shift)
        return layer.train(conv.training)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        padding: Any = self.padding
        with self._backend():
            return F.conv2d(
                input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups,
                activation=self.activation, residual=residual, scale=self.scale, shift=self.shift,
                negative_slope=self.negative_slope, padding_mode=self.padding_mode,
            )  # fmt: skip

    def extra_repr(self) -> str:
        slope = f", negative_slope={self.negative_slope}" if self.activation == "leaky_relu" else ""
        return f"{super().extra_repr()}, activation={self.activation}{slope}, affine={self.scale is not None}"


class LazyConv2d(torch.nn.LazyConv2d, Conv2d):  # type: ignore[misc]
    """torch.nn.LazyConv2d: a Conv2d that takes `in_channels` from its first input, and becomes one then.

    Example:
        >>> layer = cnnkernels.nn.LazyConv2d(8, 3)
        >>> layer(torch.zeros(1, 5, 16, 16)).shape, layer.in_channels
        (torch.Size([1, 8, 14, 14]), 5)
    """

    cls_to_become = Conv2d  # type: ignore[assignment]


class LazyConv1d(torch.nn.LazyConv1d, Conv1d):  # type: ignore[misc]
    """torch.nn.LazyConv1d: a Conv1d that takes `in_channels` from its first input, and becomes one then.

    Example:
        >>> layer = cnnkernels.nn.LazyConv1d(8, 3)
        >>> layer(torch.zeros(1, 5, 16)).shape, layer.in_channels
        (torch.Size([1, 8, 14]), 5)
    """

    cls_to_become = Conv1d  # type: ignore[assignment]
