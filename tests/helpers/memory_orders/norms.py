"""Batch norm on operands in random orders of memory, beside PyTorch's on contiguous ones in fp64 (floats.py)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional
from cnnkernels.activation import activate
from helpers.memory_orders.floats import ACTIVATIONS, differentiate, draw_dtype, images
from helpers.memory_orders.trial import Trial

EPS = 3.0  # so that a variance of 1 divides by 2


def batch_norm(trial: Trial) -> None:
    """In evaluation, which rounds nothing."""
    dtype = draw_dtype(trial)
    input = images(trial, trial.choose(1, 1, 2, 3, 8), trial.choose(1, 2, 3), trial.choose(1, 2, 4), dtype)
    if input.dim() == 3:
        input = input.unsqueeze(0)
    channels = (input.shape[1],)
    with_weight = trial.happens(0.7)  # of a bias alone PyTorch's second derivative knows nothing
    operands = {
        "input": input,
        "weight": trial.integers(channels, dtype, -2, 2) if with_weight else None,
        "bias": trial.integers(channels, dtype, -2, 2) if with_weight and trial.happens(0.7) else None,
        "residual": trial.integers(input.shape, dtype, -2, 2) if trial.happens(0.5) else None,
    }
    activation = trial.choose(*ACTIVATIONS)

    def running(input: Tensor) -> tuple[Tensor, Tensor]:
        ones = torch.ones(channels, dtype=input.dtype, device=input.device)
        return -ones, ones

    def ours(input: Tensor, weight: Any = None, bias: Any = None, residual: Any = None) -> Tensor:
        return functional.batch_norm(
            input, *running(input), weight, bias, eps=EPS, activation=activation, residual=residual, negative_slope=0.5
        )

    def theirs(input: Tensor, weight: Any = None, bias: Any = None, residual: Any = None) -> Tensor:
        y = F.batch_norm(input, *running(input), weight, bias, eps=EPS)
        return activate(y if residual is None else y + residual, activation or "none", 0.5)

    differentiate(
        trial,
        ours,
        theirs,
        operands,
        dtype,
        ("input",),
        lambda output: trial.lies_dense("output", output, input),
    )


OPERATORS = {"batch_norm": batch_norm}
