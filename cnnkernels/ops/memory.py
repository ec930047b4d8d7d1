"""How tensors lie in memory: PyTorch's rules for layouts, and dense copies for the kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..geometry import Layout


def is_channels_last(size: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether four axes lie channels_last, as PyTorch decides for its memory-format propagation.

    The strides must grow in the order C, W, H, N, each at least the extent of the ones before. An axis of size 1 may
    have any stride, so some tensors are both; where nothing tells, the answer is no.
    """
    if stride[1] == 0:
        return False
    extent = 0
    for axis in (1, 3, 2, 0):
        if size[axis] == 0 or stride[axis] < extent:
            return False
        if axis == 0 and stride[1] == extent:
            return False
        extent = stride[axis] * size[axis]
    return True


def layout_of(tensor: Tensor) -> Layout:
    return Layout.NHWC if is_channels_last(tensor.shape, tensor.stride()) else Layout.NCHW


def dense(tensor: Tensor, layout: Layout) -> Tensor:
    """The tensor itself where its memory already is the layout's, else a copy."""
    return tensor.contiguous(memory_format=layout.memory_format)


def dense_stride(size: Sequence[int], layout: Layout) -> tuple[int, int, int, int]:
    """The strides of a dense tensor; an empty axis counts as one."""
    _, c, h, w = (max(extent, 1) for extent in size)
    return (c * h * w, 1, w * c, c) if layout is Layout.NHWC else (c * h * w, h * w, w, 1)


def gradient_stride(tensor: Tensor) -> tuple[int, ...]:
    """The strides of a tensor's gradient: its own where it is dense without overlap, else those of a dense tensor
    of the same layout. DistributedDataParallel lays its buckets out by the same rule."""
    stride = tensor.stride()
    if tensor.is_contiguous():
        return stride
    extent = 1
    for step, size in sorted(zip(stride, tensor.shape, strict=True)):
        if size == 1:
            continue
        if step != extent:
            return dense_stride(tensor.shape, layout_of(tensor))
        extent *= size
    return stride


def filled(tensor: Tensor | None, layout: Layout, fill: Callable[[Any], None]) -> Any:
    """Has `fill` write a tensor of any strides, through a dense temporary where they are not the layout's; None, a
    result that is not wanted, goes to it as it is.

    Whatever a kernel writes in strides that a caller chose, as a gradient has its tensor's, is written by this.
    """
    if tensor is None or tensor.is_contiguous(memory_format=layout.memory_format):
        fill(tensor)
        return tensor
    temporary = torch.empty_like(tensor, memory_format=layout.memory_format)
    fill(temporary)
    return tensor.copy_(temporary)
