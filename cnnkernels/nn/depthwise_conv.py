"""The layer of one channel, one filter."""

from __future__ import annotations

from typing import Literal

import torch

from .conv import Conv2d


class DepthwiseConv2d(Conv2d):
    """Correlates each channel of [N, C, H, W] or [C, H, W] with `channel_multiplier` filters of its own.

    A Conv2d with groups = in_channels and out_channels = in_channels * channel_multiplier, and its state_dict: weight
    [in_channels * channel_multiplier, 1, R, S], bias [in_channels * channel_multiplier]. Types, padding modes and
    errors are Conv2d's.

    Raises:
        ValueError: in_channels or channel_multiplier below 1.

    Example:
        >>> layer = cnnkernels.nn.DepthwiseConv2d(16, 3, padding=1)
        >>> layer.weight.shape, layer(torch.zeros(1, 16, 8, 8)).shape
        (torch.Size([16, 1, 3, 3]), torch.Size([1, 16, 8, 8]))
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
