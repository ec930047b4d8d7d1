"""The layer of a depthwise convolution and the 1x1 convolution after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..activation import NEGATIVE_SLOPE
from ..functional.arguments import checked_activation
from .conv import Conv2d
from .layer import KernelLayer


class DepthwiseSeparableConv2d(KernelLayer, torch.nn.Module):
    """A depthwise convolution, the 1x1 convolution after it and their activations, in one kernel.

    The filters are those of two convolutions, `depthwise` and `pointwise`, so that a checkpoint of such a pair fits.

    Args:
        in_channels, out_channels: C and K.
        kernel_size, stride, padding, dilation: the depthwise convolution's; padding may be "same" or "valid".
        bias: both convolutions have one.
        channel_multiplier: channels of the intermediate for each of the input.
        depthwise_activation, pointwise_activation, save_intermediate, negative_slope: as
            `cnnkernels.functional.depthwise_separable_conv` takes them.

    Example:
        >>> layer = cnnkernels.nn.DepthwiseSeparableConv2d(16, 32, 3, padding=1)
        >>> layer(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 8, 8])
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
