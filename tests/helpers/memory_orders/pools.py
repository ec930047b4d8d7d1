"""Pooling on operands in random orders of memory, beside PyTorch's on contiguous ones in fp64 (floats.py)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from cnnkernels import functional, use_backend
from helpers.memory_orders.floats import Function, axis_of_windows, differentiate, draw_dtype, images
from helpers.memory_orders.trial import Trial, plain, watched


def max_pool2d(trial: Trial) -> None:
    dtype = draw_dtype(trial)
    (h, r, stride_h, pad_h, dilation_h), (w, s, stride_w, pad_w, dilation_w) = (
        axis_of_windows(trial) for _ in range(2)
    )
    pad_h, pad_w = min(pad_h, r // 2), min(pad_w, s // 2)
    h, w = max(h, dilation_h * (r - 1) + 1), max(w, dilation_w * (s - 1) + 1)
    input = images(trial, trial.choose(1, 1, 2, 3, 8), h, w, dtype)
    options = (r, s), (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), trial.happens(0.3)
    if trial.direction == "forward":
        values, places = F.max_pool2d(plain(input), *options, return_indices=True)
        with watched(trial.happens(0.3)), use_backend(trial.backend):
            output, indices = functional.max_pool2d(input, *options, return_indices=True)
        for name, actual, expected in (("output", output, values), ("indices", indices, places)):
            trial.equal(name, actual, expected)
            trial.lies_dense(name, actual, input)
        return
    differentiate(
        trial,
        lambda input: functional.max_pool2d(input, *options),
        lambda input: F.max_pool2d(input, *options),
        {"input": input},
        dtype,
        ("input",),
        lambda output: trial.lies_dense("output", output, input),
    )


def max_unpool2d(trial: Trial) -> None:
    """Indices are a pool's, of overlapping windows too, so that some repeat."""
    dtype = draw_dtype(trial)
    h, w, c = trial.choose(1, 1, 2, 4, 6), trial.choose(1, 1, 2, 4, 5), trial.choose(1, 1, 2, 3, 8)
    window = trial.choose(*range(1, min(h, 3) + 1)), trial.choose(*range(1, min(w, 3) + 1))
    steps = trial.choose(window, window, (1, 1))
    batch = () if trial.direction != "batched" and trial.happens(0.1) else (trial.choose(1, 1, 2, 3),)
    image = torch.randn((*batch, c, h, w), generator=trial.numbers)
    places = F.max_pool2d(image, window, steps, return_indices=True)[1]
    size = (h, w)
    operands = {
        "input": trial.integers(places.shape, dtype, -4, 4),
        "indices": trial.lay(places),
    }

    def unpooled(function: Any) -> Function:
        return lambda input, indices: function(input, indices, window, steps, 0, size)

    differentiate(
        trial,
        unpooled(functional.max_unpool2d),
        unpooled(F.max_unpool2d),
        operands,
        dtype,
        ("input",),
        lambda output: trial.lies_dense("output", output, operands["input"]),
    )


# Extents and bins, all of one, two or four elements.
BINS = (1, 1), (1, 3), (2, 1), (2, 2), (2, 3), (3, 2), (4, 1), (4, 2), (6, 3), (6, 4), (8, 1), (8, 4)


def avg_pool2d(trial: Trial) -> None:
    """Divisors are powers of two, by which no order of sums and divisions rounds."""
    dtype = draw_dtype(trial)
    most = trial.choose(2, 2, 4)
    kernel = trial.choose(*range(1, most + 1)), trial.choose(*range(1, most + 1))
    h, w = (max(k, trial.choose(1, 2, 3, 4, 6)) for k in kernel)
    stride = trial.choose(kernel, (1, 1), (2, 3))
    padding = trial.choose(*range(kernel[0] // 2 + 1)), trial.choose(*range(kernel[1] // 2 + 1))
    override = trial.choose(1, -4) if most > 2 else trial.choose(None, None, 2)
    options = kernel, stride, padding, trial.happens(0.3), trial.happens(0.7), override
    _averages(trial, dtype, h, w, functional.avg_pool2d, F.avg_pool2d, options)


def adaptive_avg_pool2d(trial: Trial) -> None:
    dtype = draw_dtype(trial)
    (h, rows), (w, columns) = trial.choose(*BINS), trial.choose(*BINS)
    _averages(trial, dtype, h, w, functional.adaptive_avg_pool2d, F.adaptive_avg_pool2d, ((rows, columns),))


def _averages(
    trial: Trial, dtype: torch.dtype, h: int, w: int, ours: Any, theirs: Any, options: tuple[Any, ...]
) -> None:
    input = images(trial, trial.choose(1, 1, 2, 3, 8), h, w, dtype)
    differentiate(
        trial,
        lambda input: ours(input, *options),
        lambda input: theirs(input, *options),
        {"input": input},
        dtype,
        ("input",),
        lambda output: trial.lies_dense("output", output, input),
    )


OPERATORS = {function.__name__: function for function in (max_pool2d, max_unpool2d, avg_pool2d, adaptive_avg_pool2d)}
