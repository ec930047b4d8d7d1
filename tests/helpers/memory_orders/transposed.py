"""Transposed convolutions, and convolutions of rows, on operands in random orders of memory, as floats.py has them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional
from cnnkernels.activation import activate
from helpers.memory_orders.floats import ACTIVATIONS, axis_of_windows, bound_of, differentiate, draw_dtype
from helpers.memory_orders.trial import Trial, plain


def _axis_of_transposed(trial: Trial) -> tuple[int, ...]:
    """Extent, taps, stride, padding, output padding and dilation of an axis that has an output."""
    taps = trial.choose(1, 1, 1, 2, 3)
    stride, dilation = trial.choose(1, 1, 2, 3), trial.choose(1, 1, 1, 2, 3)
    more = trial.choose(*range(max(stride, dilation)))
    extent = trial.choose(1, 1, 2, 3, 4)
    whole = (extent - 1) * stride + dilation * (taps - 1) + more + 1
    return extent, taps, stride, trial.choose(*range(min(3, (whole + 1) // 2))), more, dilation


def conv_transpose2d(trial: Trial) -> None:
    _transposed(trial, 2)


def conv_transpose1d(trial: Trial) -> None:
    _transposed(trial, 1)


def _transposed(trial: Trial, rank: int) -> None:
    dtype = draw_dtype(trial)
    axes = [_axis_of_transposed(trial) for _ in range(rank)]
    extents, taps, stride, padding, more, dilation = (tuple(each) for each in zip(*axes, strict=True))
    groups = trial.choose(1, 1, 1, 2, 4)
    c, each = groups * trial.choose(1, 1, 2, 3, 4, 8, 16), trial.choose(1, 1, 2, 3, 8)
    batch = () if trial.direction != "batched" and trial.happens(0.1) else (trial.choose(1, 1, 2, 3),)
    bound, k = bound_of(dtype), groups * each
    operands = {
        "input": trial.integers((*batch, c, *extents), dtype, -bound, bound),
        "weight": trial.integers((c, each, *taps), dtype, -bound, bound),
        "bias": trial.integers((k,), dtype, -2, 2) if trial.happens(0.5) else None,
    }
    options = {"stride": stride, "padding": padding, "output_padding": more, "dilation": dilation, "groups": groups}
    name = f"conv_transpose{rank}d"
    of_torch = getattr(F, name)
    size = of_torch(*(None if t is None else plain(t) for t in operands.values()), **options).shape
    for numbers in ("scale", "shift"):
        operands[numbers] = trial.integers((k,), dtype, -1, 2) if trial.happens(0.3) else None
    operands["residual"] = trial.integers(size, dtype, -2, 2) if trial.happens(0.3) else None
    activation, slope = trial.choose(None, *ACTIVATIONS), trial.choose(0.5, -0.5)

    def reference(scale: Any, shift: Any, residual: Any, **tensors: Any) -> Tensor:
        output = of_torch(**tensors, **options)
        of_channels = (-1, *[1] * rank)
        output = output if scale is None else output * scale.view(of_channels)
        output = output if shift is None else output + shift.view(of_channels)
        output = output if residual is None else output + residual
        return activate(output, activation or "none", slope)

    def lies(output: Tensor) -> None:
        if rank == 2:
            trial.lies_dense("output", output, operands["input"], operands["weight"])
        else:
            assert output.is_contiguous(), "a batch of rows is not contiguous"

    differentiate(
        trial,
        lambda **tensors: getattr(functional, name)(**tensors, **options, activation=activation, negative_slope=slope),
        reference,
        operands,
        dtype,
        ("weight", "bias", "scale", "shift") if rank == 2 else ("bias", "scale", "shift"),
        lies,
    )


def conv1d(trial: Trial) -> None:
    dtype = draw_dtype(trial)
    mode = trial.choose("reflect", "replicate", "circular") if trial.happens(0.15) else "zeros"
    length, taps, stride, padding, dilation = axis_of_windows(trial, mode != "zeros")
    groups = trial.choose(1, 1, 1, 2, 4)
    each, k = trial.choose(1, 1, 2, 3, 4, 8, 16), groups * trial.choose(1, 1, 2, 3, 8)
    batch = () if trial.direction != "batched" and trial.happens(0.1) else (trial.choose(1, 1, 2, 3),)
    bound = bound_of(dtype)
    operands = {
        "input": trial.integers((*batch, groups * each, length), dtype, -bound, bound),
        "weight": trial.integers((k, each, taps), dtype, -bound, bound),
        "bias": trial.integers((k,), dtype, -2, 2) if trial.happens(0.5) else None,
    }
    before, after = padding, padding
    given: Any = padding
    if mode == "zeros" and trial.happens(0.2):
        given, before, after = "causal", dilation * (taps - 1), 0
    options = {"stride": stride, "dilation": dilation, "groups": groups}

    def reference(input: Any, **tensors: Any) -> Tensor:
        batch = input if input.dim() == 3 else input.unsqueeze(0)
        padded = F.pad(batch, (before, after), "constant" if mode == "zeros" else mode)
        output = F.conv1d(padded, **tensors, **options)
        return output if input.dim() == 3 else output.squeeze(0)

    def lies(output: Tensor) -> None:
        assert output.is_contiguous(), "a batch of rows is not contiguous"

    differentiate(
        trial,
        lambda **tensors: functional.conv1d(**tensors, **options, padding=given, padding_mode=mode),
        reference,
        operands,
        dtype,
        ("bias",),
        lies,
    )


OPERATORS = {function.__name__: function for function in (conv1d, conv_transpose2d, conv_transpose1d)}
