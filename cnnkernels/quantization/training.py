"""Quantization-aware training: the float model computes what its INT8 form will, and learns to live with it.

Weights and the values between layers are rounded to their codes in forward; backward passes through as if they had
not been (B. Jacob et al., CVPR 2018, section 3). Ranges follow the batches by a moving average.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import use_backend
from ..convert.graph import call, cut
from .formulas import affine_code, fake_quantize
from .post_training import finish, left_out_by, notes, prepare
from .prepare import Tap
from .recipe import Recipe, described, noting
from .report import Quantization


class FakeQuantize(nn.Module):
    """Rounds a tensor to the affine int8 code of its range, which follows the batches while the module trains:

        low += momentum (min(input) - low),   high += momentum (max(input) - high)

    The first batch sets both. In evaluation the range stays.

    Args:
        momentum: of the moving average, above 0 to 1.
        rounds: False lets the tensor by as it is, for the range alone.

    Buffers:
        low, high: float32 of no dimension; infinity and minus infinity before the first batch.
    """

    low: Tensor
    high: Tensor

    def __init__(self, momentum: float = 0.1, rounds: bool = True) -> None:
        super().__init__()
        self.momentum, self.rounds = momentum, rounds
        self.others: list[FakeQuantize] = []  # whose values have the same code
        self.register_buffer("low", torch.tensor(float("inf")))
        self.register_buffer("high", torch.tensor(float("-inf")))

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel():
            self.follow(input.detach())
        return self.rounded(input)

    def follow(self, input: Tensor) -> None:
        low, high = (value.float() for value in torch.aminmax(input))
        first = self.low > self.high
        self.low.copy_(torch.where(first, low, self.low + self.momentum * (low - self.low)))
        self.high.copy_(torch.where(first, high, self.high + self.momentum * (high - self.high)))

    def rounded(self, input: Tensor) -> Tensor:
        return fake_quantize(input, *affine_code(*self.ends())) if self.rounds else input

    def ends(self) -> tuple[Tensor, Tensor]:
        """Of the range of all values that have this code."""
        if not self.others:
            return self.low, self.high
        each = (self, *self.others)
        return torch.stack([one.low for one in each]).amin(), torch.stack([one.high for one in each]).amax()

    def shared(self, watches: list[FakeQuantize]) -> list[FakeQuantize]:
        """What watches values that are to have one code: each its own, which follow their averages."""
        for one in watches:
            one.others = [other for other in watches if other is not one]
        return watches

    def codes(self, input: Tensor) -> Tensor:
        """The codes, less the zero point, of numbers that have one."""
        scale, zero_point = affine_code(*self.ends())
        return fake_quantize(input * (1 / scale), torch.ones_like(scale), zero_point)

    def numbers(self, codes: Tensor) -> Tensor:
        """What codes, less the zero point, stand for, after rounding."""
        scale, zero_point = affine_code(*self.ends())
        return fake_quantize(codes, torch.ones_like(scale), zero_point) * scale

    def range(self) -> tuple[float, float]:
        """The ends of the range.

        Raises:
            ValueError: nothing was seen, or NaN or infinity.
        """
        low, high = (end.item() for end in self.ends())
        if not low <= high or high - low == float("inf"):
            raise ValueError(f"a fake quantizer has a range from {low} to {high}: no code spans that")
        return low, high

    def code(self) -> tuple[float, int]:
        """Scale and zero point of that range."""
        self.range()
        scale, zero_point = affine_code(*self.ends())
        return scale.item(), int(zero_point)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum}, rounds={self.rounds}"


def prepare_qat(
    model: nn.Module,
    example: Any,
    *,
    momentum: float = 0.1,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> nn.Module:
    """A copy of a float model that computes with INT8's numbers, to be trained, then given to `convert_qat`.

    Train it as any model, with an optimizer made after this call. Batch norms keep their statistics of the batch in
    training and are folded by `convert_qat`.

    Args:
        model: trained in float as a rule; in the mode in which it goes on. Its code is captured in training; where
            evaluation does something else than without dropout, dropped paths and statistics of the batch, its parts
            are captured one by one.
        example: a batch of its input: a tensor, a tuple or list of arguments, or a dict of named ones. The ranges begin
            with it.
        momentum: of the ranges' moving average, above 0 to 1.
        filter_fn: as `quantize`'s.

    Raises:
        TypeError: `model` is no module.
        ValueError: `momentum` is out of range, or a parameter has no size yet.

    Example:
        >>> images = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
        >>> prepared = cnnkernels.prepare_qat(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()), images)
        >>> prepared(images).square().mean().backward()  # as any model is trained
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"prepare_qat(): argument 'model' must be a torch.nn.Module, not {type(model).__name__}")
    if not 0 < momentum <= 1:
        raise ValueError(f"prepare_qat: momentum must be above 0 and at most 1, but got {momentum}")
    whole = cut(model, example, trains=True)
    left_out, names = noting(left_out_by(model, filter_fn))
    prepare(whole, left_out, lambda coded: FakeQuantize(momentum, rounds=coded))
    prepared = whole.model
    like = next(iter(model.parameters()), torch.empty(0))
    taps = [module for module in prepared.modules() if isinstance(module, Tap)]
    modes = {module: module.training for module in prepared.modules()}
    prepared.eval()
    for tap in taps:
        tap.to(like.device).train()
    with torch.no_grad():
        call(prepared, example)
    for module, mode in modes.items():
        module.training = mode
    for tap in taps:
        tap.train(model.training)
    prepared.qat_notes = notes(whole)  # type: ignore[assignment]
    prepared.qat_recipe = Recipe("qat", tuple(names), *described(example))  # type: ignore[assignment]
    return prepared


def convert_qat(model: nn.Module, *, backend: str | None = None) -> Quantization:
    """The INT8 form of a model that `prepare_qat` made and training has adapted. The model itself stays as it is.

    What it computes is what the prepared model computes in evaluation, whose sums are this one's.

    Args:
        model: from `prepare_qat`.
        backend: as `quantize`'s.

    Raises:
        TypeError: `model` is no module.
        ValueError: nothing in `model` was prepared, or a range has become NaN or infinite.

    Example:
        >>> images = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
        >>> prepared = cnnkernels.prepare_qat(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()), images)
        >>> len(cnnkernels.convert_qat(prepared).quantized)
        1
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert_qat(): argument 'model' must be a torch.nn.Module, not {type(model).__name__}")
    if not any(isinstance(module, Tap) for module in model.modules()):
        raise ValueError("convert_qat: expected a model from prepare_qat that has a layer for INT8")
    if backend is not None:
        use_backend(backend)
    return finish(model, model, getattr(model, "qat_notes", ()), backend, getattr(model, "qat_recipe", None))
