"""Layers: torch.nn's, computed by the project's kernels.

Each class inherits from the layer of the same name in torch.nn and changes its arithmetic alone, so constructors,
attributes, initialisation, `repr`, `state_dict`, pickling, deepcopy and isinstance checks are PyTorch's own, and
a checkpoint goes either way.

A layer runs on the backend in force (see `cnnkernels.use_backend`) unless its attribute `backend` pins one:

    layer = cnnkernels.nn.Conv2d(3, 64, 7, stride=2, padding=3)
    layer.backend = "triton"
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch
from torch import Tensor

from . import functional as F
from .activation import NEGATIVE_SLOPE, checked_activation
from .backends import use_backend

__all__ = [
    "Conv2d",
    "Conv2dAct",
    "DepthwiseConv2d",
    "DepthwiseSeparableConv2d",
    "LazyConv2d",
    "MaxPool2d",
    "MaxUnpool2d",
]


class _Layer(torch.nn.Module):
    """What the layers here have beyond torch.nn's: a backend of their own."""

    backend: str | None = None

    def _backend(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self.backend is None else use_backend(self.backend)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.backend is None else f"{text}, backend={self.backend}".removeprefix(", ")


class Conv2d(_Layer, torch.nn.Conv2d):
    """torch.nn.Conv2d: correlates [N, C, H, W] or [C, H, W] with `out_channels` filters.

    fp64, fp32, fp16 and bf16; any stride, padding (a number, a pair, "same", "valid"), dilation and groups;
    padding_mode zeros, reflect, replicate or circular. Errors are torch.nn.Conv2d's.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        with self._backend():
            if self.padding_mode == "zeros":
                return self._convolve(input, weight, bias, self.padding)
            # The other modes read values that zeros cannot stand for: the border is made first, by PyTorch.
            padded = torch.nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            return self._convolve(padded, weight, bias, 0)

    def _convolve(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, padding: str | int | tuple[int, ...]
    ) -> Tensor:
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv2dAct(Conv2d):
    """A Conv2d with what follows it in one store: activation(scale (convolution + bias) + shift + residual).

    Its arguments are Conv2d's and, by name: `activation` (None, "relu", "relu6", "leaky_relu", "silu", "gelu" or
    "hardswish"), `negative_slope` of leaky_relu, and `affine`, which gives the layer the parameters `scale`
    [out_channels] (ones) and `shift` [out_channels] (zeros). `Conv2dAct.fold` makes one of a convolution and its batch
    norm. Called with an input and, if wanted, a residual of the output's size.

    Raises:
        TypeError, ValueError: for what is no activation.
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
        if self.padding_mode != "zeros":
            input = torch.nn.functional.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        with self._backend():
            return F.conv2d(
                input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups,
                activation=self.activation, residual=residual, scale=self.scale, shift=self.shift,
                negative_slope=self.negative_slope,
            )  # fmt: skip

    def extra_repr(self) -> str:
        slope = f", negative_slope={self.negative_slope}" if self.activation == "leaky_relu" else ""
        return f"{super().extra_repr()}, activation={self.activation}{slope}, affine={self.scale is not None}"


class DepthwiseConv2d(Conv2d):
    """Correlates each channel of [N, C, H, W] or [C, H, W] with `channel_multiplier` filters of its own.

    A Conv2d with groups = in_channels and out_channels = in_channels * channel_multiplier, and its state_dict: weight
    [in_channels * channel_multiplier, 1, R, S], bias [in_channels * channel_multiplier]. Types, padding modes and
    errors are Conv2d's.

    Raises:
        ValueError: in_channels or channel_multiplier below 1.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | tuple[int, int],
        channel_multiplier: int = 1,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, value in (("in_channels", in_channels), ("channel_multiplier", channel_multiplier)):
            if value < 1:
                raise ValueError(f"{name} must be a positive integer, but got {name}={value}")
        super().__init__(
            in_channels,
            in_channels * channel_multiplier,
            kernel_size,
            stride,
            padding,
            dilation,
            in_channels,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self.channel_multiplier = channel_multiplier

    def _convolve(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, padding: str | int | tuple[int, ...]
    ) -> Tensor:
        return F.depthwise_conv2d(input, weight, bias, self.stride, padding, self.dilation)


class DepthwiseSeparableConv2d(_Layer, torch.nn.Module):
    """A depthwise convolution, the 1x1 convolution after it and their activations, in one kernel.

    The filters are those of two convolutions, `depthwise` and `pointwise`, so that a checkpoint of such a pair fits.

    Args:
        in_channels, out_channels: C and K.
        kernel_size, stride, padding, dilation: the depthwise convolution's; padding may be "same" or "valid".
        bias: both convolutions have one.
        channel_multiplier: channels of the intermediate for each of the input.
        depthwise_activation, pointwise_activation, save_intermediate, negative_slope: as
            `cnnkernels.functional.depthwise_separable_conv2d` takes them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        channel_multiplier: int = 1,
        depthwise_activation: str | None = None,
        pointwise_activation: str | None = None,
        save_intermediate: bool = False,
        negative_slope: float = NEGATIVE_SLOPE,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, activation in (
            ("depthwise_activation", depthwise_activation),
            ("pointwise_activation", pointwise_activation),
        ):
            checked_activation("DepthwiseSeparableConv2d", activation, negative_slope, name)
        between = in_channels * channel_multiplier
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.depthwise = Conv2d(
            in_channels, between, kernel_size, stride, padding, dilation, in_channels, bias, **factory
        )  # fmt: skip
        self.pointwise = Conv2d(between, out_channels, 1, bias=bias, **factory)
        self.depthwise_activation = depthwise_activation
        self.pointwise_activation = pointwise_activation
        self.save_intermediate = save_intermediate
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        depthwise, pointwise = self.depthwise, self.pointwise
        with self._backend():
            return F.depthwise_separable_conv2d(
                input,
                depthwise.weight,
                pointwise.weight,
                depthwise.bias,
                pointwise.bias,
                depthwise.stride,
                depthwise.padding,
                depthwise.dilation,
                self.depthwise_activation,
                self.pointwise_activation,
                self.save_intermediate,
                self.negative_slope,
            )

    def extra_repr(self) -> str:
        text = f"depthwise_activation={self.depthwise_activation}, pointwise_activation={self.pointwise_activation}"
        if self.save_intermediate:
            text += ", save_intermediate=True"
        return text if self.backend is None else f"{text}, backend={self.backend}"


class LazyConv2d(torch.nn.LazyConv2d, Conv2d):  # type: ignore[misc]
    """torch.nn.LazyConv2d: a Conv2d that takes `in_channels` from its first input, and becomes one then."""

    cls_to_become = Conv2d  # type: ignore[assignment]


class MaxPool2d(_Layer, torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d: the largest element of each window, of [N, C, H, W] or [C, H, W].

    The first of equal maxima wins and NaN beats every number, as in PyTorch; `return_indices=True` also gives
    the winners' places h * W + w (int64).
    """

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        with self._backend():
            return F.max_pool2d(
                input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
            )


class MaxUnpool2d(_Layer, torch.nn.MaxUnpool2d):
    """torch.nn.MaxUnpool2d: each value goes where `indices` says (MaxPool2d returned them), zeros elsewhere."""

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        with self._backend():
            return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)
