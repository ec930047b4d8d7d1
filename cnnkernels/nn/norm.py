"""Batch normalization layers, with and without what follows one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..activation import NEGATIVE_SLOPE
from ..functional.arguments import checked_activation
from .layer import KernelLayer


class BatchNorm(KernelLayer):
    """torch.nn's forward of a batch norm, and what it takes of its layer."""

    def forward(self, input: Tensor) -> Tensor:
        return self._normalized(input)

    def _normalized(self, input: Tensor, **followed_by: Any) -> Tensor:
        layer: Any = self
        layer._check_input_dim(input)
        with self._backend():
            return F.batch_norm(
                input, *self._running(), layer.weight, layer.bias, self._of_batch(), self.step(), layer.eps,
                **followed_by,
            )  # fmt: skip

    def _of_batch(self) -> bool:
        """Whether statistics are the batch's."""
        layer: Any = self
        return layer.training or (layer.running_mean is None and layer.running_var is None)

    def _running(self) -> tuple[Tensor | None, Tensor | None]:
        """Running statistics, where they are read or learned."""
        layer: Any = self
        if layer.training and not layer.track_running_stats:
            return None, None
        return layer.running_mean, layer.running_var

    def step(self) -> float:
        """Counts a batch; momentum, or what makes running statistics the mean of all batches."""
        layer: Any = self
        if layer.training and layer.track_running_stats and layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
            if layer.momentum is None:
                return 1.0 / float(layer.num_batches_tracked)
        return 0.0 if layer.momentum is None else layer.momentum  # type: ignore[no-any-return]


class BatchNorm1d(BatchNorm, torch.nn.BatchNorm1d):
    """torch.nn.BatchNorm1d: each channel of [N, C] or [N, C, L] less its mean, over its deviation, for fp64, fp32, fp16
    and bf16, with parameters of the input's type or in fp32. Errors are torch.nn.BatchNorm1d's.

    Example:
        >>> layer = cnnkernels.nn.BatchNorm1d(2)
        >>> layer(torch.tensor([[1.0, 10.0], [3.0, 30.0]])).sign(), layer.running_mean
        (tensor([[-1., -1.],
                [ 1.,  1.]], grad_fn=<SignBackward0>), tensor([0.2000, 2.0000]))
    """


class BatchNorm2d(BatchNorm, torch.nn.BatchNorm2d):
    """torch.nn.BatchNorm2d: of [N, C, H, W], as BatchNorm1d.

    Example:
        >>> layer = cnnkernels.nn.BatchNorm2d(4, momentum=0.5)
        >>> layer(torch.ones(2, 4, 8, 8)).abs().max().item(), layer.running_mean[0].item()
        (0.0, 0.5)
    """


class BatchNorm3d(BatchNorm, torch.nn.BatchNorm3d):
    """torch.nn.BatchNorm3d: of [N, C, D, H, W], as BatchNorm1d.

    Example:
        >>> cnnkernels.nn.BatchNorm3d(4)(torch.ones(2, 4, 3, 8, 8)).shape
        torch.Size([2, 4, 3, 8, 8])
    """


class BatchNorm2dAct(BatchNorm2d):
    """A BatchNorm2d with what follows it in one write: activation(batch norm + residual).

    Its arguments are BatchNorm2d's and, by name: `activation` (None, "relu", "relu6", "leaky_relu", "silu", "gelu" or
    "hardswish") and `negative_slope` of leaky_relu. Called with an input and, if wanted, a residual of its size.

    Raises:
        TypeError, ValueError: for what is no activation.

    Example:
        >>> layer = cnnkernels.nn.BatchNorm2dAct(4, activation="relu")
        >>> layer(torch.ones(2, 4, 8, 8), torch.full((2, 4, 8, 8), -1.0)).max().item()  # the residual is below zero
        0.0
    """

    def __init__(
        self,
        *arguments: Any,
        activation: str | None = "relu",
        negative_slope: float = NEGATIVE_SLOPE,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        checked_activation("BatchNorm2dAct", activation, negative_slope)
        self.activation, self.negative_slope = activation, negative_slope

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return self._normalized(
            input, activation=self.activation, residual=residual, negative_slope=self.negative_slope
        )

    def extra_repr(self) -> str:
        slope = f", negative_slope={self.negative_slope}" if self.activation == "leaky_relu" else ""
        return f"{super().extra_repr()}, activation={self.activation}{slope}"


class LazyBatchNorm1d(torch.nn.LazyBatchNorm1d, BatchNorm1d):  # type: ignore[misc]
    """torch.nn.LazyBatchNorm1d: a BatchNorm1d that takes `num_features` from its first input, and becomes one then.

    Example:
        >>> layer = cnnkernels.nn.LazyBatchNorm1d()
        >>> layer(torch.ones(2, 4)).shape, layer.num_features
        (torch.Size([2, 4]), 4)
    """

    cls_to_become = BatchNorm1d  # type: ignore[assignment]


class LazyBatchNorm2d(torch.nn.LazyBatchNorm2d, BatchNorm2d):  # type: ignore[misc]
    """torch.nn.LazyBatchNorm2d: a BatchNorm2d that takes `num_features` from its first input, and becomes one then.

    Example:
        >>> layer = cnnkernels.nn.LazyBatchNorm2d()
        >>> layer(torch.ones(2, 4, 8, 8)).shape, layer.num_features
        (torch.Size([2, 4, 8, 8]), 4)
    """

    cls_to_become = BatchNorm2d  # type: ignore[assignment]


class LazyBatchNorm3d(torch.nn.LazyBatchNorm3d, BatchNorm3d):  # type: ignore[misc]
    """torch.nn.LazyBatchNorm3d: a BatchNorm3d that takes `num_features` from its first input, and becomes one then.

    Example:
        >>> layer = cnnkernels.nn.LazyBatchNorm3d()
        >>> layer(torch.ones(2, 4, 3, 8, 8)).shape, layer.num_features
        (torch.Size([2, 4, 3, 8, 8]), 4)
    """

    cls_to_become = BatchNorm3d  # type: ignore[assignment]
