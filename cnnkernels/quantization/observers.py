"""Observers: they watch a tensor go by and say which range of it is worth a code.

What an observer remembers is a minimum, a maximum and integer counts, so its answer does not depend on how the data
were cut into batches or in which order these came.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .formulas import HIGHEST, LOWEST, affine_code

HALF = 2048  # bins on either side of 0
CANDIDATES = 64  # thresholds tried
LEVELS = HIGHEST - LOWEST + 1


class MinMax(torch.nn.Module):
    """All that was seen, from the least value to the largest.

    Attributes:
        low, high: of all values seen, as Python numbers; infinity and minus infinity before the first.

    Raises:
        ValueError: on the first NaN or infinity seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = float("inf"), float("-inf")

    def forward(self, input: Tensor) -> Tensor:
        if input.numel():
            low, high = (float(value) for value in torch.aminmax(input.detach()))
            if not abs(low) + abs(high) < float("inf"):
                raise ValueError(f"the calibration data make values from {low} to {high}: no code spans that")
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.count(input.detach())
        return input

    def count(self, input: Tensor) -> None:
        """What else there is to remember."""

    def range(self) -> tuple[float, float]:
        """The ends of the range to be coded.

        Raises:
            ValueError: nothing was seen.
        """
        if self.low > self.high:
            raise ValueError("an observer saw no data")
        return self.low, self.high

    def code(self) -> tuple[float, int]:
        """Scale and zero point of that range."""
        low, high = self.range()
        scale, zero_point = affine_code(torch.tensor(low).double(), torch.tensor(high).double())
        return scale.item(), int(zero_point)

    def shared(self, watches: list[Any]) -> list[Any]:
        """What watches values that are to have one code: one observer of all."""
        return [self] * len(watches)

    def extra_repr(self) -> str:
        return f"low={self.low:.4g}, high={self.high:.4g}"


class Histogram(MinMax):
    """Counts values in 2 HALF bins of equal width over [-limit, limit).

    The limit is the least power of two above all values. A value beyond it doubles it, and two bins become one, which
    moves no value to a bin where it would not have been counted from the start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.limit = 0.0
        self.counts = torch.zeros(2 * HALF, dtype=torch.int64)
        self.zeros = 0  # of the values in the bin that begins at 0

    def count(self, input: Tensor) -> None:
        largest = max(-self.low, self.high)
        self.zeros += int((input == 0).sum())
        if largest == 0:
            self.counts[HALF] += input.numel()
            return
        if self.limit == 0:
            # Zeros counted so far lie in the bin that begins at 0, whatever the limit.
            self.limit = math.ldexp(1.0, math.frexp(largest)[1])
        while largest >= self.limit:
            self.limit *= 2
            half = torch.zeros_like(self.counts)
            half[HALF // 2 : 3 * HALF // 2] = self.counts.view(-1, 2).sum(1)
            self.counts = half
        bins = (input.flatten().double() * (HALF / self.limit)).floor_().long().add_(HALF)
        self.counts += torch.bincount(bins, minlength=2 * HALF).cpu()

    def edges(self) -> Tensor:
        """The bins' ends, fp64 [2 HALF + 1]."""
        return torch.arange(-HALF, HALF + 1, dtype=torch.float64) * (self.limit / HALF)

    def centers(self) -> Tensor:
        """The bins' middles, fp64 [2 HALF]."""
        return (torch.arange(-HALF, HALF, dtype=torch.float64) + 0.5) * (self.limit / HALF)


class Percentile(Histogram):
    """Leaves (100 - percentile) % of the values out, half of them on each side, to the width of a bin.

    Where no value is below 0, as after a ReLU, nothing is left out at 0.
    """

    def __init__(self, percentile: float = 99.99) -> None:
        super().__init__()
        self.percentile = percentile

    def range(self) -> tuple[float, float]:
        low, high = super().range()
        if low == high == 0:
            return low, high
        below = self.counts.cumsum(0)
        tail = (1 - self.percentile / 100) / 2 * below[-1].item()
        edges = self.edges()
        # The first bin before whose end more than the tail lies, and the last after whose beginning more does.
        first = int((below > tail).nonzero()[0])
        last = int((below[-1] - below + self.counts > tail).nonzero()[-1])
        return max(low, edges[first].item()), min(high, edges[last + 1].item())


class _Threshold(Histogram):
    """Clips at that one of the thresholds t for which a loss is least: the range is [max(low, -t), min(high, t)]."""

    least_bins = 1  # between 0 and a threshold

    def range(self) -> tuple[float, float]:
        low, high = super().range()
        low, high = min(low, 0.0), max(high, 0.0)
        largest = max(-low, high)
        if largest == 0:
            return low, high
        width = self.limit / HALF
        used = int(largest / width) + 1  # bins from 0 to the one that holds the largest
        tried = torch.linspace(min(self.least_bins, used), used, CANDIDATES).round().int().unique().tolist()
        ranges = [(max(low, -bins * width), min(high, bins * width)) for bins in tried]
        losses = [self.loss(*ends, bins) for ends, bins in zip(ranges, tried, strict=True)]
        return ranges[losses.index(min(losses))]

    def levels(self, low: float, high: float) -> tuple[Tensor, Tensor]:
        """The level, 0 to 255, that the code of [low, high] gives each bin's middle, and the number it stands for."""
        scale, zero_point = affine_code(torch.tensor(low).double(), torch.tensor(high).double())
        level = torch.round(self.centers() / scale.double() + zero_point).clamp_(LOWEST, HIGHEST)
        return (level - LOWEST).long(), (level - zero_point) * scale.double()

    def loss(self, low: float, high: float, bins: int) -> float:
        """Of the range [low, high], which takes in so many bins on either side of 0."""
        raise NotImplementedError


class MSE(_Threshold):
    """Clips where the mean square of the error, of rounding and of clipping, is least.

    R. Banner, Y. Nahshan, D. Soudry, "Post training 4-bit quantization of convolutional networks for rapid-deployment",
    NeurIPS 2019, section 3, with the counts in the place of a fitted density.
    """

    def loss(self, low: float, high: float, bins: int) -> float:
        _, number = self.levels(low, high)
        return ((self.centers() - number).square() * self.counts).sum().item()


class Entropy(_Threshold):
    """Clips where the coded values tell least from the seen ones: the least Kullback-Leibler divergence

        sum over bins of P log(P / Q)

    of P, the counts with what lies outside added to the outermost bins inside, and Q, the counts inside with those of
    all bins that share a level spread evenly over the ones of them that are not empty. (S. Migacz, "8-bit inference
    with TensorRT", GPU Technology Conference, 2017.) Zeros are left out: 0 has a code of its own, but the many that a
    ReLU makes would look as if they were spread over the bins beside them.
    """

    least_bins = LEVELS

    def loss(self, low: float, high: float, bins: int) -> float:
        level, _ = self.levels(low, high)
        first, last = HALF - bins, HALF + bins
        every = self.counts.clone()
        every[HALF] -= self.zeros
        counts = torch.zeros(2 * HALF, dtype=torch.float64)
        counts[first:last] = every[first:last]
        if counts.sum() == 0:
            return float("inf")
        p = counts.clone()
        p[first] += every[:first].sum()
        p[last - 1] += every[last:].sum()
        filled = counts > 0
        together = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, level, counts)
        among = torch.zeros(LEVELS, dtype=torch.float64).index_add_(0, level, filled.double())
        q = torch.where(filled, together[level] / among[level].clamp(min=1), 0.0)
        p, q = p / p.sum(), q / q.sum()
        # An outermost bin that was empty has P > 0 and Q = 0: the smallest share there is, so that it stays finite.
        q = q.clamp(min=1 / (2 * every.sum().item()))
        seen = p > 0
        return (p[seen] * (p[seen] / q[seen]).log()).sum().item()


_OBSERVERS: dict[str, Callable[[], MinMax]] = {"minmax": MinMax, "entropy": Entropy, "mse": MSE}
OBSERVERS = ("minmax", "percentile", "entropy", "mse")


def checked_observer(op: str, observer: Any, percentile: Any) -> Callable[[], MinMax]:
    """What makes observers of the kind named.

    Raises:
        TypeError: `percentile` is no number.
        ValueError: `observer` names none, or `percentile` is not in (50, 100].
    """
    if observer not in OBSERVERS:
        raise ValueError(f"{op}: observer must be one of {', '.join(OBSERVERS)}, but got {observer!r}")
    if isinstance(percentile, bool) or not isinstance(percentile, int | float):
        raise TypeError(f"{op}(): argument 'percentile' must be float, not {type(percentile).__name__}")
    if not 50 < percentile <= 100:
        raise ValueError(f"{op}: percentile must be above 50 and at most 100, but got {percentile}")
    return _OBSERVERS.get(observer, lambda: Percentile(float(percentile)))
