"""What batch normalization and all its derivatives are made of, over images [N, C, H, W] and numbers [C]:

    statistics(x) = mean and biased variance of each channel
    sums(a, b, center) = [S(a), S(a (b - center))], sums over each channel
    combine(x, a, b, ...) = gamma (x - center) + delta + alpha a + beta b

The derivative of each is made of the others, so they are enough for gradients of any order. Numbers are in fp32, in
fp64 for fp64; on those of a channel alone PyTorch's own operators work.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..geometry import Layout
from .batching import fold, unfold
from .memory import dense, layout_of
from .operator import Operator


def wide(dtype: torch.dtype) -> torch.dtype:
    """What numbers of a channel are computed in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def numbers_like(images: Tensor, *size: int) -> Tensor:
    """Room for numbers of each channel."""
    return torch.empty(*size, images.shape[1], dtype=wide(images.dtype), device=images.device)


def sizes_of(images: Tensor, layout: Layout) -> tuple[int, int, int]:
    """As kernels see dense images: [outer, channels, inner]."""
    n, c, h, w = images.shape
    return (n * h * w, c, 1) if layout is Layout.NHWC else (n, c, h * w)


def elements(images: Tensor) -> int:
    """Of a channel."""
    n, _, h, w = images.shape
    return n * h * w


def kernels(backend: str, images: Tensor) -> Any:
    return backends.kernels(backend, images.device.type)


def fold_all(
    args: tuple[Any, ...], in_dims: tuple[Any, ...], size: int, images: tuple[int, ...], numbers: tuple[int, ...]
) -> list[Any]:
    """A batching rule's tensors with the batch among the channels: images' second axis, numbers' first."""
    folded = list(args)
    for places, axis in ((images, 1), (numbers, 0)):
        for i in places:
            if args[i] is not None:
                folded[i] = fold(args[i], in_dims[i], size, axis)
    return folded


# --- statistics


def _statistics_fake(input: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return numbers_like(input), numbers_like(input)


def _statistics_run(
    input: Tensor,
    backend: str,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    momentum: float = 0.0,
) -> tuple[Tensor, Tensor]:
    mean, var = numbers_like(input), numbers_like(input)
    if input.numel() == 0:
        return mean.fill_(torch.nan), var.fill_(torch.nan)
    layout = layout_of(input)
    kernels(backend, input).batch_norm_statistics(
        dense(input, layout), mean, var, running_mean, running_var, momentum, sizes_of(input, layout)
    )
    return mean, var


def _statistics_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    input, ctx.backend = inputs
    ctx.save_for_backward(input, output[0])


def _statistics_backward(ctx: Any, of_mean: Tensor, of_var: Tensor) -> tuple[Any, ...]:
    input, mean = ctx.saved_tensors
    n = elements(input)
    grad = batch_norm_combine(input, None, None, of_var * (2 / n), mean, of_mean / n, None, None, ctx.backend)
    return grad, None


def _statistics_jvp(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Any:
    (input, backend), n = inputs, elements(inputs[0])
    first, second = batch_norm_sums(tangents[0], input, outputs[0], backend).unbind()
    return first / n, second * (2 / n)


def _statistics_vmap(info: Any, in_dims: tuple[Any, ...], input: Tensor, backend: str) -> Any:
    size = info.batch_size
    mean, var = batch_norm_statistics(fold(input, in_dims[0], size, 1), backend)
    return (mean.unflatten(0, (size, -1)), var.unflatten(0, (size, -1))), (0, 0)


batch_norm_statistics: Operator = Operator(
    "batch_norm_statistics(Tensor input, str backend) -> (Tensor, Tensor)",
    _statistics_run,
    _statistics_fake,
    _statistics_vmap,
    _statistics_setup,
    _statistics_backward,
    _statistics_jvp,
)


# --- the same, and running statistics, which have no derivative

_UNBATCHED = (
    "Batch norm got a batched tensor as input while the running_mean or running_var, which will be updated in place, "
    "were not batched. Give vmap running statistics for each sample, or batch_norm none"
)


def _track_fake(
    input: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, backend: str
) -> tuple[Tensor, Tensor]:
    return _statistics_fake(input, backend)


def _track_run(
    input: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float, backend: str
) -> tuple[Tensor, Tensor]:
    if input.numel() == 0 or (running_mean.is_contiguous() and running_var.is_contiguous()):
        return _statistics_run(input, backend, running_mean, running_var, momentum)
    copies = running_mean.contiguous(), running_var.contiguous()
    found = _statistics_run(input, backend, *copies, momentum)
    running_mean.copy_(copies[0])
    running_var.copy_(copies[1])
    return found


def _track_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
    size = info.batch_size
    input, running_mean, running_var, momentum, backend = args
    if in_dims[1] is None or in_dims[2] is None:
        raise RuntimeError(_UNBATCHED)
    running = running_mean.movedim(in_dims[1], 0), running_var.movedim(in_dims[2], 0)
    flat = tuple(r.flatten().clone() for r in running)
    mean, var = batch_norm_track(fold(input, in_dims[0], size, 1), *flat, momentum, backend)
    for r, updated in zip(running, flat, strict=True):
        r.copy_(updated.view_as(r))
    return (mean.unflatten(0, (size, -1)), var.unflatten(0, (size, -1))), (0, 0)


batch_norm_track: Operator = Operator(
    "batch_norm_track(Tensor input, Tensor(a!) running_mean, Tensor(b!) running_var, float momentum, str backend) "
    "-> (Tensor, Tensor)",
    _track_run,
    _track_fake,
    _track_vmap,
)


# --- sums


def _sums_fake(a: Tensor, b: Tensor, center: Tensor | None, backend: str) -> Tensor:
    return numbers_like(a, 2)


def _sums_run(a: Tensor, b: Tensor, center: Tensor | None, backend: str) -> Tensor:
    sums, layout = _sums_fake(a, b, center, backend), layout_of(b)
    if a.numel() == 0:
        return sums.zero_()
    kernels(backend, a).batch_norm_sums(
        dense(a, layout), dense(b, layout), None if center is None else center.contiguous(), sums, sizes_of(a, layout)
    )
    return sums


def _sums_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors, output)


def _sums_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    a, b, center, sums = ctx.saved_tensors
    of_a, of_b, of_center, _ = ctx.needs_input_grad
    first, second = grad.unbind()
    return (
        batch_norm_combine(b, None, None, second, center, first, None, None, ctx.backend) if of_a else None,
        batch_norm_combine(a, None, None, second, None, None, None, None, ctx.backend) if of_b else None,
        -second * sums[0] if of_center else None,
        None,
    )


def _sums_jvp(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Tensor:
    a, b, center, backend = inputs
    of_a, of_b, of_center, _ = tangents
    sums = torch.zeros_like(outputs[0])
    if of_a is not None:
        sums = sums + batch_norm_sums(of_a, b, center, backend)
    of_second = torch.zeros_like(sums[1])
    if of_b is not None:
        of_second = of_second + batch_norm_sums(a, of_b, None, backend)[1]
    if of_center is not None:
        of_second = of_second - of_center * outputs[0][0]
    return sums + torch.stack((torch.zeros_like(of_second), of_second))


def _sums_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    sums = batch_norm_sums(*fold_all(args, in_dims, info.batch_size, (0, 1), (2,)))
    return unfold(sums, info.batch_size, 1)


batch_norm_sums: Operator = Operator(
    "batch_norm_sums(Tensor a, Tensor b, Tensor? center, str backend) -> Tensor",
    _sums_run,
    _sums_fake,
    _sums_vmap,
    _sums_setup,
    _sums_backward,
    _sums_jvp,
)


# --- combine


def _combine_fake(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x, memory_format=layout_of(x).memory_format)


def _combine_run(x: Tensor, a: Tensor | None, b: Tensor | None, *rest: Any) -> Tensor:
    *coefficients, backend = rest
    result, layout = _combine_fake(x), layout_of(x)
    if x.numel() > 0:
        images = (None if image is None else dense(image, layout) for image in (x, a, b))
        numbers = tuple(None if c is None else c.contiguous() for c in coefficients)
        kernels(backend, x).batch_norm_combine(*images, result, numbers, sizes_of(x, layout))
    return result


def _combine_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _combine_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, a, b, gamma, center, _, alpha, beta = ctx.saved_tensors
    of_x, of_a, of_b, of_gamma, of_center, of_delta, of_alpha, of_beta, _ = ctx.needs_input_grad

    def scaled(wanted: bool, by: Tensor | None) -> Tensor | None:
        if not wanted or by is None:
            return None
        return batch_norm_combine(grad, None, None, by, None, None, None, None, ctx.backend)

    def product(wanted: bool, image: Tensor | None) -> Tensor | None:
        return batch_norm_sums(grad, image, None, ctx.backend)[1] if wanted else None

    first = second = None
    if of_gamma or of_center or of_delta:
        first, second = batch_norm_sums(grad, x, center, ctx.backend).unbind()
    return (
        scaled(of_x, gamma), scaled(of_a, alpha), scaled(of_b, beta), second if of_gamma else None,
        None if first is None or gamma is None or not of_center else -gamma * first, first if of_delta else None,
        product(of_alpha, a), product(of_beta, b), None,
    )  # fmt: skip


def _combine_jvp(inputs: tuple[Any, ...], outputs: tuple[Tensor, ...], tangents: tuple[Any, ...]) -> Tensor:
    """Each product's derivative is the sum of two combinations: of the tangents of images, and of those of numbers."""
    x, a, b, gamma, center, _, alpha, beta, backend = inputs
    of_x, of_a, of_b, of_gamma, of_center, of_delta, of_alpha, of_beta, _ = tangents
    if of_center is not None and gamma is not None:
        of_delta = -gamma * of_center if of_delta is None else of_delta - gamma * of_center

    def first_of(image: Tensor | None) -> Tensor:
        return torch.zeros_like(x) if image is None else image

    tangent = batch_norm_combine(x, a, b, of_gamma, center, of_delta, of_alpha, of_beta, backend)
    return tangent + batch_norm_combine(first_of(of_x), of_a, of_b, gamma, None, None, alpha, beta, backend)


def _combine_vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
    result = batch_norm_combine(*fold_all(args, in_dims, info.batch_size, (0, 1, 2), (3, 4, 5, 6, 7)))
    return unfold(result, info.batch_size, 1)


batch_norm_combine: Operator = Operator(
    "batch_norm_combine(Tensor x, Tensor? a, Tensor? b, Tensor? gamma, Tensor? center, Tensor? delta, Tensor? alpha, "
    "Tensor? beta, str backend) -> Tensor",
    _combine_run,
    _combine_fake,
    _combine_vmap,
    _combine_setup,
    _combine_backward,
    _combine_jvp,
)
