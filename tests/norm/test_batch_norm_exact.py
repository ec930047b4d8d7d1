"""batch_norm on integers whose statistics are integers and whose deviation is a power of two: every way is exact.

In each channel half the elements are mean + 2 and half mean - 2, so that var is 4; with eps 12 it is divided by 4.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import use_backend
from cnnkernels.activation import activate
from cnnkernels.functional import batch_norm
from cnnkernels.testing.numerics import small_integers

EPS = 12.0
TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# Of 2^k elements a channel: [N, C], by vectors and by elements, more channels than lanes, one channel.
SHAPES = ((4, 5), (2, 3, 8), (2, 16, 4, 4), (2, 37, 2, 2), (4, 1, 2, 2), (2, 8, 2, 2, 4))
# What follows, and whether a residual is added.
EPILOGUES = (("none", False), ("relu", False), ("relu6", False), ("relu", True), ("leaky_relu", True), ("none", True))


def in_memory(tensor: Tensor, last: bool) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    memory_format = formats.get(tensor.dim()) if last else None
    return tensor.contiguous(memory_format=memory_format or torch.contiguous_format)


def balanced(shape: tuple[int, ...], seed: int) -> Tensor:
    """Integers as this file's docstring says, in fp64."""
    n = torch.empty(shape).numel() // shape[1]
    generator = torch.Generator().manual_seed(seed)
    signs = torch.stack([torch.randperm(n, generator=generator) for _ in range(shape[1])]) % 2 * 4.0 - 2
    columns = (signs + torch.arange(shape[1])[:, None] % 7 - 3).double()
    return torch.empty(shape).double().copy_(columns.view(shape[1], shape[0], *shape[2:]).transpose(0, 1))


def operands(shape: tuple[int, ...], residual: bool, seed: int) -> list[Tensor]:
    """x, weight (of 4 and 8, so that nothing is rounded), bias, residual and the gradient of the output."""
    numbers = 4 * (1 + small_integers((shape[1],), torch.float64, seed).abs() % 2)
    bias = 4 * small_integers((shape[1],), torch.float64, seed + 1)  # beyond what relu6 cuts off on both sides
    given = [balanced(shape, seed), numbers, bias]
    more = [small_integers(shape, torch.float64, seed + 2)] if residual else []
    return [*given, *more, small_integers(shape, torch.float64, seed + 3)]


def run(function: Any, given: list[Tensor], running: list[Tensor], training: bool, activation: str) -> list[Tensor]:
    """The output, all gradients and what became of the running statistics."""
    *tensors, grad = given
    tensors = [t.requires_grad_() for t in tensors]
    x, weight, bias, *residual = tensors
    y = function(x, *running, weight, bias, training, 0.5, EPS, activation, residual[0] if residual else None)
    return [y.detach(), *torch.autograd.grad(y, tensors, grad), *running]


def ours(x: Tensor, *rest: Any) -> Tensor:
    *arguments, activation, residual = rest
    return batch_norm(x, *arguments, activation=activation, residual=residual, negative_slope=0.5)


def theirs(x: Tensor, *rest: Any) -> Tensor:
    *arguments, activation, residual = rest
    y = torch.nn.functional.batch_norm(x, *arguments)
    return activate(y if residual is None else y + residual, activation, 0.5)


def check(true: list[Tensor], dtype: torch.dtype, wide: bool, last: bool, device: str, activation: str) -> None:
    """`wide`: numbers of channels are in fp32 beside 16-bit images."""
    shape = tuple(true[0].shape)
    n = true[0][:, 0].numel()
    number = torch.float32 if wide and dtype.itemsize == 2 else dtype
    for training in (True, False):
        running = [torch.zeros(shape[1]).double(), torch.full((shape[1],), 4.0).double()]
        expected = run(theirs, [t.clone() for t in true], [r.clone() for r in running], training, activation)
        if training:  # the one number that is rounded twice: as it is divided, and as it is stored
            unbiased = torch.full((shape[1],), 4.0 * n, dtype=dtype if dtype.itemsize > 2 else torch.float32) / (n - 1)
            expected[-1] = 2 + unbiased / 2
        given = [t.to(device, number) if t.dim() == 1 else in_memory(t.to(device, dtype), last) for t in true]
        found = run(ours, given, [r.to(device, number) for r in running], training, activation)
        for result, of, wanted in zip(found, [given[0], *given[:-1], *running], expected, strict=True):
            assert torch.equal(result.cpu(), wanted.to(result.dtype)), (shape, last, training, activation)
            assert result.stride() == of.stride()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_integers(kernel_backend: str, device: str, dtype: torch.dtype) -> None:
    """Forward, running statistics and every gradient; each shape with some of what can follow, in both orders."""
    epilogues = itertools.cycle(EPILOGUES)
    with use_backend(kernel_backend):
        for i, (shape, last) in enumerate(itertools.product(SHAPES, (False, True))):
            if last and len(shape) < 4:
                continue
            activation, residual = next(epilogues)
            check(operands(shape, residual, seed=sum(shape)), dtype, i % 3 == 0, last, device, activation)


@pytest.mark.parametrize("last", (False, True), ids=("contiguous", "channels_last"))
def test_parts_of_a_channel(kernel_backend: str, device: str, last: bool) -> None:
    """More elements than a block has: parts are merged, the last of them half as long. Eight pixels are above their
    mean, then eight below, and gradients are such that sums over them are multiples of their number."""
    shape = (5, 4, 16, 16) if last else (1, 2, 128, 160)
    n, c, h, w = shape
    signs = (1 - torch.arange(n * h * w) // 8 % 2 * 2.0).double().view(n, 1, h, w).expand(shape)
    means = torch.arange(c).double().view(1, c, 1, 1)
    given = [means + 2 * signs, torch.full((c,), 4.0).double(), torch.zeros(c).double(), 4 * signs, 1 + signs]
    with use_backend(kernel_backend):
        check([t.clone() for t in given], torch.bfloat16, True, last, device, "relu")
