"""Draws docs/figures/learn_backpropagation.svg, a convolution of one axis as a matrix, and its transpose that takes the
gradient back: prints both, and with --write renews the figure.

python docs/figures/learn_backpropagation.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

X, W, DY = [3, 1, 4, 1, 5], [1, 0, -1], [1, 2, 3]
TAPS = ["#f3c9a5", "#dfe8f2", "#d9ead3"]
PLAIN = "#f5f1ea"


def matrix() -> list[list[int]]:
    """Row p holds the filter from column p on: y = A x."""
    return [[W[h - p] if 0 <= h - p < len(W) else 0 for h in range(len(X))] for p in range(len(X) - len(W) + 1)]


def transposed() -> list[list[int]]:
    return [list(column) for column in zip(*matrix(), strict=True)]


def times(rows: list[list[int]], vector: list[int]) -> list[int]:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in rows]


def grid(axes: Axes, x: float, y: float, rows: list[list[int]], title: str, turned: bool | None = None) -> None:
    """`turned`: taps run down a column instead of along a row; None: no taps."""
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            tap = -1 if turned is None else (i - j if turned else j - i)
            face = TAPS[tap] if 0 <= tap < len(W) else PLAIN
            axes.add_patch(Rectangle((x + j, y - i - 1), 1, 1, facecolor=face, edgecolor="#555555", lw=0.8))
            axes.text(x + j + 0.5, y - i - 0.5, str(number), ha="center", va="center", fontsize=11)
    axes.text(x + len(rows[0]) / 2, y - len(rows) - 0.7, title, ha="center", fontsize=10)


def column(vector: list[int]) -> list[list[int]]:
    return [[number] for number in vector]


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(8.6, 6.0))
    forward, back = times(matrix(), X), times(transposed(), DY)
    for y, rows, vector, result, names, turned in (
        (13, matrix(), X, forward, ("A: a row an output", "x", "y"), False),
        (6, transposed(), DY, back, ("A transposed: a row an input", "dy", "dx"), True),
    ):
        wide = len(rows[0])
        grid(axes, 0, y, rows, names[0], turned)
        axes.text(wide + 0.6, y - len(rows) / 2, "·", ha="center", va="center", fontsize=18)
        grid(axes, wide + 1.2, y, column(vector), names[1])
        axes.text(wide + 2.9, y - len(rows) / 2, "=", ha="center", va="center", fontsize=18)
        grid(axes, wide + 3.6, y, column(result), names[2])
    axes.set_xlim(-0.3, 10.2)
    axes.set_ylim(-0.2, 13.3)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("learn_backpropagation", draw)


def tables() -> str:
    rows = [*matrix(), times(matrix(), X), *transposed(), times(transposed(), DY)]
    return "".join(" ".join(f"{number:>3}" for number in row) + "\n" for row in rows)


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), tables, made)
