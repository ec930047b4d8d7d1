"""Pooling of INT8 images, so that a network stays INT8 between its convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..backends import traced_for_onnx
from . import onnx
from .layer import KernelLayer
from .numbered import NumberedLayer


class Int8MaxPool2d(KernelLayer, torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d of int8 or uint8 images; scale and zero point stay what they are.

    Raises:
        ValueError: return_indices is true; there are none.

    Example:
        >>> image = torch.arange(16, dtype=torch.int8).reshape(1, 1, 4, 4)
        >>> cnnkernels.nn.Int8MaxPool2d(2)(image)
        tensor([[[[ 5,  7],
                  [13, 15]]]], dtype=torch.int8)
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.return_indices:
            raise ValueError("Int8MaxPool2d: expected return_indices=False, but got return_indices=True")

    def forward(self, input: Tensor) -> Tensor:
        if traced_for_onnx():
            return onnx.pool(input, 0, super().forward)
        with self._backend():
            return F.int8_max_pool2d(
                input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
            )  # fmt: skip


class Int8AvgPool2d(NumberedLayer, torch.nn.AvgPool2d):
    """torch.nn.AvgPool2d of int8 or uint8 images, rounded half to even; scale and zero point stay what they are.

    Its arguments are AvgPool2d's and, by name, `zero_point`: the integer that stands for 0, as padding does. It is a
    buffer too.

    Example:
        >>> image = torch.arange(16, dtype=torch.int8).reshape(1, 1, 4, 4)
        >>> cnnkernels.nn.Int8AvgPool2d(2)(image)
        tensor([[[[ 2,  4],
                  [10, 12]]]], dtype=torch.int8)
    """

    zero_point_names = ("zero_point",)

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
        *,
        zero_point: int = 0,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
        self.zero_point = zero_point

    def forward(self, input: Tensor) -> Tensor:
        if traced_for_onnx():
            return onnx.pool(input, self.zero_point, super().forward)
        with self._backend():
            return F.int8_avg_pool2d(
                input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                self.divisor_override, zero_point=self.zero_point,
            )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, zero_point={self.zero_point}"


class Int8AdaptiveAvgPool2d(NumberedLayer, torch.nn.Module):
    """torch.nn.AdaptiveAvgPool2d with output_size 1 of int8 or uint8 images: the mean of each channel.

    `zero_point` is the integer that stands for 0; it is a buffer too.

    Example:
        >>> image = torch.arange(16, dtype=torch.int8).reshape(1, 1, 4, 4)
        >>> cnnkernels.nn.Int8AdaptiveAvgPool2d()(image)
        tensor([[[[8]]]], dtype=torch.int8)
    """

    zero_point_names = ("zero_point",)

    def __init__(self, zero_point: int = 0) -> None:
        super().__init__()
        self.zero_point = zero_point

    def forward(self, input: Tensor) -> Tensor:
        if traced_for_onnx():
            return onnx.pool(input, self.zero_point, lambda x: torch.nn.functional.adaptive_avg_pool2d(x, 1))
        with self._backend():
            return F.int8_adaptive_avg_pool2d(input, 1, zero_point=self.zero_point)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, [f"output_size=1, zero_point={self.zero_point}", super().extra_repr()]))
