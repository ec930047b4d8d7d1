"""Draws docs/figures/learn_normalization.svg: how large the values behind each of 30 layers are, from starts of other
sizes, as docs/learn/normalization.md says. Prints the sizes, and with --write renews the figure.

python docs/figures/learn_normalization.py
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.figure import Figure

LAYERS = 30
STARTS = {"1/n (Xavier's)": 1.0, "2/n (He's)": 2.0, "3/n": 3.0}  # variance of a weight, times its inputs n
COLOURS = ["#4c78a8", "#54a24b", "#e07b39"]


def sizes(variance: float) -> list[float]:
    """Root mean square behind each ReLU, in the mean: a layer takes the square times n · variance, ReLU half of it."""
    return [math.sqrt((variance / 2) ** layer) for layer in range(LAYERS + 1)]


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for colour, (name, variance) in zip(COLOURS, STARTS.items(), strict=True):
        axes.semilogy(range(LAYERS + 1), sizes(variance), color=colour, lw=2, label=f"weights of variance {name}")
    axes.axhline(1, color="#555555", lw=1, ls=":", label="normalized in each layer")
    axes.set_xlabel("layer")
    axes.set_ylabel("size of its values, beside the input's")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("learn_normalization", draw)


def tables() -> str:
    return "".join(f"{name:<15} layer {LAYERS}: {sizes(variance)[-1]:.3g}\n" for name, variance in STARTS.items())


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), tables, made)
