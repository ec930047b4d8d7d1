"""Draws docs/figures/learn_convolution.svg, the worked example of docs/learn/convolution.md: prints its sums, and with
--write renews the figure.

python docs/figures/learn_convolution.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

X = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4], [6, 2, 6, 4, 3]]
W = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
PLAIN, SEEN, TAP = "#f5f1ea", "#f3c9a5", "#dfe8f2"
SHOWN = ((0, 0), (1, 2))  # positions of the filter, one a row of the figure


def outputs() -> list[list[int]]:
    """The loop of the text."""
    return [[sum(X[p + r][q + s] * W[r][s] for r in range(3) for s in range(3)) for q in range(3)] for p in range(3)]


def grid(axes: Axes, x: float, y: float, rows: list[list[int]], filled: set[tuple[int, int]], colour: str) -> None:
    for r, row in enumerate(rows):
        for s, number in enumerate(row):
            face = colour if (r, s) in filled else PLAIN
            axes.add_patch(Rectangle((x + s, y - r - 1), 1, 1, facecolor=face, edgecolor="#555555", lw=0.8))
            axes.text(x + s + 0.5, y - r - 0.5, str(number), ha="center", va="center", fontsize=11)


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(8.4, 6.2))
    everywhere = {(r, s) for r in range(3) for s in range(3)}
    for number, (p, q) in enumerate(SHOWN):
        top = 12.5 - 6.5 * number
        grid(axes, 0, top, X, {(p + r, q + s) for r, s in everywhere}, SEEN)
        axes.text(5.6, top - 2.5, "·", ha="center", va="center", fontsize=18)
        grid(axes, 6.2, top - 1, W, everywhere, TAP)
        axes.text(9.9, top - 2.5, "=", ha="center", va="center", fontsize=18)
        grid(axes, 10.6, top - 1, outputs(), {(p, q)}, SEEN)
        axes.text(2.5, top - 5.5, f"input, window ({p}, {q})", ha="center", fontsize=10)
        axes.text(7.7, top - 4.5, "filter", ha="center", fontsize=10)
        axes.text(12.1, top - 4.5, f"output ({p}, {q})", ha="center", fontsize=10)
    axes.set_xlim(-0.2, 13.8)
    axes.set_ylim(-0.4, 12.7)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("learn_convolution", draw)


def tables() -> str:
    return "".join(" ".join(f"{number:>4}" for number in row) + "\n" for row in outputs())


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), tables, made)
