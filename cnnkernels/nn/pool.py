"""Pooling layers, and the inverse of max-pooling."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import functional as F
from ..backends import use_backend
from .layer import KernelLayer


class MaxPool2d(KernelLayer, torch.nn.MaxPool2d):
    """torch.nn.MaxPool2d: the largest element of each window, of [N, C, H, W] or [C, H, W].

    The first of equal maxima wins and NaN beats every number, as in PyTorch; `return_indices=True` also gives
    the winners' places h * W + w (int64).

    Example:
        >>> cnnkernels.nn.MaxPool2d(2)(torch.arange(16.0).reshape(1, 1, 4, 4))
        tensor([[[[ 5.,  7.],
                  [13., 15.]]]])
    """

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        arguments = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        if self.backend is None:
            return F.max_pool2d(input, *arguments)
        with use_backend(self.backend):
            return F.max_pool2d(input, *arguments)


class MaxUnpool2d(KernelLayer, torch.nn.MaxUnpool2d):
    """torch.nn.MaxUnpool2d: each value goes where `indices` says (MaxPool2d returned them), zeros elsewhere.

    Example:
        >>> values, indices = cnnkernels.nn.MaxPool2d(2, return_indices=True)(torch.arange(16.0).reshape(1, 1, 4, 4))
        >>> cnnkernels.nn.MaxUnpool2d(2)(values, indices)
        tensor([[[[ 0.,  0.,  0.,  0.],
                  [ 0.,  5.,  0.,  7.],
                  [ 0.,  0.,  0.,  0.],
                  [ 0., 13.,  0., 15.]]]])
    """

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        with self._backend():
            return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class AvgPool2d(KernelLayer, torch.nn.AvgPool2d):
    """torch.nn.AvgPool2d: the mean of each window, of [N, C, H, W] or [C, H, W].

    Example:
        >>> cnnkernels.nn.AvgPool2d(2)(torch.arange(16.0).reshape(1, 1, 4, 4))
        tensor([[[[ 2.5000,  4.5000],
                  [10.5000, 12.5000]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        with self._backend():
            return F.avg_pool2d(
                input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                self.divisor_override,
            )  # fmt: skip


class AdaptiveAvgPool2d(KernelLayer, torch.nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d: the means of as many bins as `output_size` says, of [N, C, H, W] or [C, H, W].

    Example:
        >>> cnnkernels.nn.AdaptiveAvgPool2d((1, 2))(torch.arange(16.0).reshape(1, 1, 4, 4))
        tensor([[[[6.5000, 8.5000]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        with self._backend():
            return F.adaptive_avg_pool2d(input, self.output_size)


class MaxPool1d(KernelLayer, torch.nn.MaxPool1d):
    """torch.nn.MaxPool1d: the largest element of each window, of [N, C, L] or [C, L]; `return_indices=True` also gives
    the winners' places (int64).

    Example:
        >>> cnnkernels.nn.MaxPool1d(2)(torch.tensor([[1.0, 5.0, 2.0, 4.0]]))
        tensor([[5., 4.]])
    """

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        with self._backend():
            return F.max_pool1d(
                input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
            )  # fmt: skip


class AvgPool1d(KernelLayer, torch.nn.AvgPool1d):
    """torch.nn.AvgPool1d: the mean of each window, of [N, C, L] or [C, L].

    Example:
        >>> cnnkernels.nn.AvgPool1d(2)(torch.tensor([[1.0, 5.0, 2.0, 4.0]]))
        tensor([[3., 3.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        with self._backend():
            return F.avg_pool1d(
                input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
            )  # fmt: skip


class AdaptiveAvgPool1d(KernelLayer, torch.nn.AdaptiveAvgPool1d):
    """torch.nn.AdaptiveAvgPool1d: the means of `output_size` bins, of [N, C, L] or [C, L].

    Example:
        >>> cnnkernels.nn.AdaptiveAvgPool1d(1)(torch.tensor([[1.0, 5.0, 2.0, 4.0]]))
        tensor([[3.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        with self._backend():
            return F.adaptive_avg_pool1d(input, self.output_size)
