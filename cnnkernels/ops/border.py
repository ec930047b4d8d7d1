"""A border of an image's own pixels, for the padding modes reflect, replicate and circular.

PyTorch makes the border; its gradient on a GPU adds into the image by atomics, in any order. Here it is folded back by
slices, in one order: the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backends import exporting_to_onnx
from .batching import fold, unfold
from .operator import Operator


def _fold_axis(grad: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """The gradient of one axis without its border, whose values go to the pixels that it repeats."""
    size = grad.shape[axis] - before - after
    inner = grad.narrow(axis, before, size).clone()
    head, tail = grad.narrow(axis, 0, before), grad.narrow(axis, before + size, after)
    if mode == "reflect":  # x[-i] is x[i], x[size - 1 + i] is x[size - 1 - i]
        inner.narrow(axis, 1, before).add_(head.flip(axis))
        inner.narrow(axis, size - 1 - after, after).add_(tail.flip(axis))
    elif mode == "replicate":
        inner.narrow(axis, 0, 1).add_(head.sum(axis, keepdim=True))
        inner.narrow(axis, size - 1, 1).add_(tail.sum(axis, keepdim=True))
    else:  # circular: x[-i] is x[size - i]
        inner.narrow(axis, size - before, before).add_(head)
        inner.narrow(axis, 0, after).add_(tail)
    return inner


def _pad_run(input: Tensor, padding: Sequence[int], mode: str) -> Tensor:
    return torch.nn.functional.pad(input, tuple(padding), mode)


def _fold_run(grad: Tensor, padding: Sequence[int], mode: str) -> Tensor:
    for axis, sides in enumerate(zip(padding[::2], padding[1::2], strict=True)):
        grad = _fold_axis(grad, -1 - axis, *sides, mode)
    return grad


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, *ctx.border = inputs


def _vmap(operator: Operator, info: Any, in_dims: tuple[Any, ...], batch: Tensor, *border: Any) -> tuple[Tensor, int]:
    size = info.batch_size
    return unfold(operator(fold(batch, in_dims[0], size, 0), *border), size, 0)


# Linear maps, each the other's transpose: of [N, C, H, W] by padding as torch.nn.functional.pad
# takes it, (left, right, top, bottom).
pad_border: Operator = Operator(
    "pad_border(Tensor input, int[] padding, str mode) -> Tensor",
    _pad_run,
    _pad_run,
    lambda *args: _vmap(pad_border, *args),
    _setup,
    lambda ctx, grad: (fold_border(grad, *ctx.border), None, None),
    lambda inputs, _, tangents: pad_border(tangents[0], *inputs[1:]),
)
fold_border: Operator = Operator(
    "fold_border(Tensor grad, int[] padding, str mode) -> Tensor",
    _fold_run,
    _fold_run,
    lambda *args: _vmap(fold_border, *args),
    _setup,
    lambda ctx, grad: (pad_border(grad, *ctx.border), None, None),
    lambda inputs, _, tangents: fold_border(tangents[0], *inputs[1:]),
)


def add_border(input: Tensor, padding: Sequence[int], mode: str) -> Tensor:
    """torch.nn.functional.pad of [N, C, H, W] or [C, H, W] by (left, right, top, bottom), with a reproducible gradient.

    Raises:
        RuntimeError: where torch.nn.functional.pad raises it: padding that the image is too small for.
    """
    if exporting_to_onnx():
        return torch.nn.functional.pad(input, tuple(padding), mode)
    if input.dim() == 4:
        return pad_border(input, padding, mode)  # type: ignore[no-any-return]
    return pad_border(input.unsqueeze(0), padding, mode).squeeze(0)  # type: ignore[no-any-return]
