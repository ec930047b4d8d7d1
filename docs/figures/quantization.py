"""Draws docs/figures/quantization.svg: the staircase of a code, what a range costs, and the gradient used.

python docs/figures/quantization.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from cnnkernels.quantization import affine_code, fake_quantize

VALUES, NOISE, CLIP, PLAIN = "#9aa3b2", "#54a24b", "#e07b39", "#4c78a8"


def rounded(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return fake_quantize(x, *affine_code(torch.tensor(low), torch.tensor(high)))


def staircase(axis: Axes) -> None:
    """A code of 8 values in the place of 256, so that its steps can be seen."""
    x = torch.linspace(-0.4, 1.8, 881)
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
        numbers = torch.linspace(low, 3.0, 16 if low == 0 else 15)
        axis.vlines(numbers, row - 0.25, row + 0.25, color=[PLAIN if n >= -1e-6 else CLIP for n in numbers.tolist()])
        axis.text(-3.1, row, name, ha="right", va="center", fontsize=8)
    x = torch.linspace(0, 3, 61)
    axis.fill_between(x, 2 - 0.3, 2 - 0.3 + torch.exp(-(x**2)), color=VALUES, linewidth=0)
    axis.text(-0.1, 2.1, "what a ReLU leaves", ha="right", fontsize=8)
    axis.text(-1.5, 1.4, "numbers that never come", ha="center", fontsize=8, color=CLIP)
    axis.set_title("two codes of 16 values", fontsize=9, loc="left")
    axis.set_xlim(-4.6, 3.2)
    axis.set_ylim(-0.5, 2.9)
    axis.set_yticks([])


def clipping(axis: Axes) -> None:
    """Normal values, one in 16384 of them thirty times as large: noise by the threshold of [-t, t]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1 << 18, generator=generator, dtype=torch.float64)
    x[:: 1 << 14] *= 30
    largest = x.abs().max().item()
    thresholds = torch.linspace(2, 1.1 * largest, 78)
    kinds: dict[str, list[float]] = {"rounding": [], "clipping": [], "both": []}
    for t in thresholds.tolist():
        error = (rounded(x, -t, t) - x).square()
        outside = x.abs() > t
        kinds["rounding"].append((error * ~outside).mean().item())
        kinds["clipping"].append((error * outside).mean().item())
        kinds["both"].append(error.mean().item())
    for (name, noise), colour in zip(kinds.items(), (NOISE, CLIP, PLAIN), strict=True):
        decibels = 10 * (x.square().mean() / torch.tensor(noise).clamp(min=1e-9)).log10()
        axis.plot(thresholds, decibels, color=colour, linewidth=2 if name == "both" else 1.2, label=name)
    axis.axvline(largest, color=VALUES, linewidth=1, linestyle=(0, (3, 2)))
    axis.text(largest - 1, 47, "the largest", ha="right", fontsize=8)
    axis.set_ylim(5, 50)
    axis.set_xlabel("threshold, in standard deviations", fontsize=8)
    axis.legend(fontsize=8, frameon=False, title="signal over noise, dB, of", title_fontsize=8)
    axis.set_title("what a range costs (256 codes)", fontsize=9, loc="left")


def main() -> None:
    plt.rcParams.update({"svg.hashsalt": "quantization", "svg.fonttype": "none"})  # the same file for the same drawing
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for draw, axis in zip((staircase, codes, clipping), axes, strict=True):
        draw(axis)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
