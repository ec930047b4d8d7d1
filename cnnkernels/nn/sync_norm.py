"""Batch normalization over the batches of several processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..backends import serving
from ..functional.norm import as_images
from ..ops.norm import batch_norm_forward
from ..ops.norm_parts import batch_norm_combine, batch_norm_statistics, batch_norm_sums, elements, wide
from .norm import BatchNorm


def _of_all(mine: Tensor, group: Any) -> Tensor:
    """Each process's numbers, in the order of their ranks: what is added over them has one order."""
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, mine, group)
    return torch.stack(found)


class _SyncBatchNorm(torch.autograd.Function):
    """Like PyTorch's, it can be differentiated once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, layer: Any, backend: str) -> Tensor:
        count = x.new_full((1,), elements(x), dtype=wide(x.dtype))
        moments = batch_norm_statistics(x, backend)
        if x.numel() == 0:  # a process without a sample counts for nothing
            moments = tuple(torch.zeros_like(each) for each in moments)
        found = _of_all(torch.cat((*moments, count)), layer.process_group)
        counts, (means, variances) = found[:, -1:], found[:, :-1].chunk(2, 1)
        total = counts.sum()
        mean = (means * counts).sum(0) / total
        var = ((variances + (means - mean).square()) * counts).sum(0) / total
        if layer.track_running_stats:
            step = layer.step()
            for running, new in ((layer.running_mean, mean), (layer.running_var, var * (total / (total - 1)))):
                running.copy_((1 - step) * running.to(new.dtype) + step * new)
        ctx.save_for_backward(x, weight, bias, mean, var, total)
        ctx.eps, ctx.group, ctx.backend = layer.eps, layer.process_group, backend
        return batch_norm_forward(x, mean, var, weight, bias, None, True, layer.eps, "none", 0.0, backend)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, weight, bias, mean, var, total = ctx.saved_tensors
        mine = batch_norm_sums(grad, x, mean, ctx.backend)
        first, second = _of_all(mine, ctx.group).sum(0) / total
        inverse = torch.rsqrt(var + ctx.eps)
        scale = inverse if weight is None else inverse * weight
        gamma, delta = -scale * inverse.square() * second, -scale * first
        return (
            batch_norm_combine(x, grad, None, gamma, mean, delta, scale, None, ctx.backend),
            None if weight is None else (mine[1] * inverse).to(weight.dtype),
            None if bias is None else mine[0].to(bias.dtype),
            None,
            None,
        )


class SyncBatchNorm(BatchNorm, torch.nn.SyncBatchNorm):
    """torch.nn.SyncBatchNorm: in training, statistics are of the batches of all processes of `process_group` together.
    Processes add what they gathered in the order of their ranks, so that all have the same bits in every run; CPU
    tensors are served too.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        >>> type(cnnkernels.nn.SyncBatchNorm.convert_sync_batchnorm(model)[1]).__name__
        'SyncBatchNorm'
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        self._check_non_zero_input_channels(input)
        alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(self.process_group) == 1
        if alone or not self.training:
            return super().forward(input)
        with self._backend():
            backend = serving("batch_norm", input.device, input.dtype)
            if not isinstance(backend, str):
                backend = backend.otherwise  # `cnnkernels tune` measures calls of one process
            if backend == "reference":
                return torch.nn.SyncBatchNorm.forward(self, input)
            if input.shape[1] != self.num_features:
                raise RuntimeError(f"SyncBatchNorm: expected {self.num_features} channels, but got {input.shape[1]}")
            images = as_images(input)
            return _SyncBatchNorm.apply(images, self.weight, self.bias, self, backend).view(input.shape)
