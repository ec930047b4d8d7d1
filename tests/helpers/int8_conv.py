"""Operands of int8_conv2d's kernels, the product by integer arithmetic, and their launch by one plan or another."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cnnkernels.geometry import Axis, ConvGeometry
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native import NativeKernels
from helpers.device import DEVICE
from helpers.int8_gemm import PLAIN


class Shape(NamedTuple):
    """A convolution of an image n x c x h x w by k filters r x s; `after`: what padding after the image has more."""

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    after: tuple[int, int] = (0, 0)

    @property
    def geometry(self) -> ConvGeometry:
        p, q = (
            (size + 2 * self.padding[i] + self.after[i] - self.dilation[i] * (taps - 1) - 1) // self.stride[i] + 1
            for i, (size, taps) in enumerate([(self.h, self.r), (self.w, self.s)])
        )
        sizes = (self.h, self.w), (self.r, self.s), (p, q)
        axes = [Axis(*fields) for fields in zip(*sizes, self.stride, self.padding, self.dilation, strict=True)]
        return ConvGeometry.of_axes(self.n, self.c, self.k, self.groups, axes)


def integers(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.int8) -> Tensor:
    """[N, C, H, W] channels_last of the whole range, its ends often."""
    limits, generator = torch.iinfo(dtype), torch.Generator().manual_seed(seed)
    values = torch.randint(limits.min, limits.max + 1, shape, generator=generator)
    ends = torch.randint(0, 8, shape, generator=generator)
    values[ends == 0], values[ends == 1] = limits.min, limits.max
    return nhwc(values.to(dtype).to(DEVICE))


def nhwc(tensor: Tensor) -> Tensor:
    """A tensor whose memory is NHWC in every stride, those of axes of one element, too, at an aligned address."""
    n, c, h, w = tensor.shape
    storage = torch.empty(tensor.numel() + 16, dtype=tensor.dtype, device=tensor.device)
    start = -storage.data_ptr() // tensor.element_size() % 16
    memory = storage[start : start + tensor.numel()].view(n, h, w, c)
    return memory.copy_(tensor.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def operands(shape: Shape, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    x = integers(1, (shape.n, shape.c, shape.h, shape.w), dtype)
    return x, integers(2, (shape.k, shape.c // shape.groups, shape.r, shape.s))


def convolve(shape: Shape, x: Tensor, w: Tensor, zero_point: int) -> Tensor:
    """[N, K, P, Q] int32: tap by tap, in integers."""
    g, per_group = shape.geometry, shape.c // shape.groups
    height = g.h + g.pad_h + g.r * g.dilation_h + g.p * g.stride_h
    width = g.w + g.pad_w + g.s * g.dilation_w + g.q * g.stride_w
    padded = torch.full((g.n, g.c, height, width), zero_point, dtype=torch.int64)
    padded[:, :, g.pad_h : g.pad_h + g.h, g.pad_w : g.pad_w + g.w] = x.cpu()
    shifted, weight, total = padded - zero_point, w.cpu().long(), torch.zeros(g.n, g.k, g.p, g.q, dtype=torch.int64)
    for r in range(g.r):
        for s in range(g.s):
            top, left = r * g.dilation_h, s * g.dilation_w
            taps = shifted[:, :, top : top + g.p * g.stride_h : g.stride_h, left : left + g.q * g.stride_w : g.stride_w]
            grouped = taps.reshape(g.n, g.groups, per_group, g.p, g.q)
            filters = weight[:, :, r, s].view(g.groups, g.k // g.groups, per_group)
            total += torch.einsum("ngcpq,gkc->ngkpq", grouped, filters).reshape(total.shape)
    return total.int()


def run(
    runner: NativeKernels,
    shape: Shape,
    x: Tensor,
    w: Tensor,
    epilogue: Int8Epilogue = PLAIN,
    plan: Any = None,
    dtype: torch.dtype = torch.int32,
) -> Tensor:
    g = shape.geometry
    output = nhwc(torch.full((g.n, g.k, g.p, g.q), 77, device=DEVICE).to(dtype))
    runner.int8_conv(x, w, output, g, epilogue, plan)
    return output.cpu()
