"""Prints what a range costs; with --write draws docs/figures/quantization.svg: that, the staircase of a code and two
codes of what a ReLU leaves.

python docs/figures/quantization.py

Sums are of integers, decibels rounded to a thousandth, and nothing drawn comes of a vectorized function in fp32: they
are the same with any number of threads, on any processor.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import matplotlib.pyplot as plt
import output
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnnkernels.quantization import affine_code, fake_quantize

VALUES, NOISE, CLIP, PLAIN = "#9aa3b2", "#54a24b", "#e07b39", "#4c78a8"


def rounded(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return fake_quantize(x, *affine_code(torch.tensor(low), torch.tensor(high)))


def staircase(axis: Axes) -> None:
    """A code of 8 values in the place of 256, so that its steps can be seen."""
    x = torch.arange(-160, 721, dtype=torch.float64) / 400
    step = 1.4 / 7
    y = (x / step).round().clamp(0, 7) * step
    axis.plot(x, x, color=VALUES, linewidth=1)
    axis.plot(x, y, color=PLAIN, linewidth=1.6)
    axis.axvspan(-0.4, -step / 2, color="#f3e9e0", linewidth=0)
    axis.axvspan(7.5 * step, 1.8, color="#f3e9e0", linewidth=0)
    axis.text(0.7, -0.28, "rounded: off by s / 2 at most\ngradient 1", ha="center", fontsize=8)
    axis.text(1.66, 0.3, "clipped\ngradient 0", ha="center", fontsize=8, rotation=90)
    axis.set_title("what a number becomes (8 codes)", fontsize=9, loc="left")
    axis.set_xlim(-0.4, 1.8)
    axis.set_ylim(-0.4, 1.8)


def codes(axis: Axes) -> None:
    """What a ReLU leaves, and which of its values each of the two codes has a number for."""
    for row, (name, low) in enumerate((("affine", 0.0), ("symmetric", -3.0))):
        steps = 15 if low == 0 else 14
        numbers = [low + (3 - low) * step / steps for step in range(steps + 1)]
        axis.vlines(numbers, row - 0.25, row + 0.25, color=[PLAIN if n >= 0 else CLIP for n in numbers])
        axis.text(-3.1, row, name, ha="right", va="center", fontsize=8)
    x = [i / 20 for i in range(61)]
    axis.fill_between(x, 2 - 0.3, [2 - 0.3 + math.exp(-a * a) for a in x], color=VALUES, linewidth=0)
    axis.text(-0.1, 2.1, "what a ReLU leaves", ha="right", fontsize=8)
    axis.text(-1.5, 1.4, "numbers that never come", ha="center", fontsize=8, color=CLIP)
    axis.set_title("two codes of 16 values", fontsize=9, loc="left")
    axis.set_xlim(-4.6, 3.2)
    axis.set_ylim(-0.5, 2.9)
    axis.set_yticks([])


@functools.cache
def noises() -> tuple[float, list[tuple[float, float, float, float]]]:
    """The largest of normal values, one in 16384 of them thirty times as large; for thresholds t, the signal over the
    noise of [-t, t] by rounding, by clipping and by both, in decibels."""
    x = torch.randn(1 << 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:: 1 << 14] *= 30
    largest = x.abs().max().item()

    def power(squares: torch.Tensor) -> int:
        return int((squares * 2**32).round().to(torch.int64).sum())

    signal, rows = power(x.square()), []
    for step in range(78):
        t = 2 + (1.1 * largest - 2) * step / 77
        error, outside = (rounded(x, -t, t) - x).square(), x.abs() > t
        parts = power(error * ~outside), power(error * outside), power(error)
        rows.append((t, *(round(10 * math.log10(signal / max(part, 1e-9 * signal)), 3) for part in parts)))
    return largest, rows


def clipping(axis: Axes) -> None:
    largest, rows = noises()
    thresholds, *kinds = zip(*rows, strict=True)
    for name, decibels, colour in zip(("rounding", "clipping", "both"), kinds, (NOISE, CLIP, PLAIN), strict=True):
        axis.plot(thresholds, decibels, color=colour, linewidth=2 if name == "both" else 1.2, label=name)
    axis.axvline(largest, color=VALUES, linewidth=1, linestyle=(0, (3, 2)))
    axis.text(largest - 1, 47, "the largest", ha="right", fontsize=8)
    axis.set_ylim(5, 50)
    axis.set_xlabel("threshold, in standard deviations", fontsize=8)
    axis.legend(fontsize=8, frameon=False, title="signal over noise, dB, of", title_fontsize=8)
    axis.set_title("what a range costs (256 codes)", fontsize=9, loc="left")


def table() -> str:
    largest, rows = noises()
    best, whole = max(rows, key=lambda row: row[3]), min(rows, key=lambda row: abs(row[0] - largest))
    return "".join(
        f"{name:20} threshold {t:6.1f}: rounding {rounding:5.1f} dB, clipping {clipped:5.1f} dB, both {both:5.1f} dB\n"
        for name, (t, rounding, clipped, both) in (("the best", best), ("holds the largest", whole))
    )


def draw() -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for panel, axis in zip((staircase, codes, clipping), axes, strict=True):
        panel(axis)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure


def made() -> str:
    return output.svg("quantization", draw)


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), table, made)
