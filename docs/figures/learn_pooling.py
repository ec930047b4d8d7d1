"""Draws docs/figures/learn_pooling.svg, what docs/learn/pooling.md says of max and average, there and back: prints its
numbers, and with --write renews the figure.

python docs/figures/learn_pooling.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

X = [[3, 1, 4, 1], [9, 2, 6, 5], [5, 8, 9, 7], [3, 2, 3, 8]]
DY = [[1, 2], [3, 4]]
COLOURS = ["#f3c9a5", "#dfe8f2", "#d9ead3", "#eadcf0"]  # a window each

Matrix = list[list[float]]


def windows() -> list[list[tuple[int, int]]]:
    """The pixels of the four windows of 2x2."""
    return [[(2 * p + r, 2 * q + s) for r in range(2) for s in range(2)] for p in range(2) for q in range(2)]


def pooled() -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Max and average of each window, and the gradients that come back from DY."""
    most, mean = [[0.0] * 2 for _ in range(2)], [[0.0] * 2 for _ in range(2)]
    to_winner, to_all = [[0.0] * 4 for _ in range(4)], [[0.0] * 4 for _ in range(4)]
    for number, pixels in enumerate(windows()):
        p, q = divmod(number, 2)
        h, w = max(pixels, key=lambda place: X[place[0]][place[1]])
        most[p][q], mean[p][q] = X[h][w], sum(X[i][j] for i, j in pixels) / 4
        to_winner[h][w] += DY[p][q]
        for i, j in pixels:
            to_all[i][j] += DY[p][q] / 4
    return most, mean, to_winner, to_all


def grid(axes: Axes, x: float, y: float, rows: Matrix, title: str) -> None:
    per = len(rows) // 2
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            face = COLOURS[i // per * 2 + j // per]
            axes.add_patch(Rectangle((x + j, y - i - 1), 1, 1, facecolor=face, edgecolor="#555555", lw=0.8))
            axes.text(x + j + 0.5, y - i - 0.5, f"{number:g}", ha="center", va="center", fontsize=11)
    axes.text(x + len(rows) / 2, y - len(rows) - 0.6, title, ha="center", fontsize=10)


def draw() -> Figure:
    most, mean, to_winner, to_all = pooled()
    figure, axes = plt.subplots(figsize=(9.4, 5.2))
    grid(axes, 0, 8, X, "input, windows of 2x2")
    grid(axes, 6, 9, most, "maxima")
    grid(axes, 6, 5, mean, "averages")
    grid(axes, 10, 7, DY, "dy")
    grid(axes, 14, 10, to_winner, "back from maxima: to the winner")
    grid(axes, 14, 4.4, to_all, "back from averages: to all alike")
    axes.set_xlim(-0.2, 19)
    axes.set_ylim(-0.8, 10.2)
    axes.set_aspect("equal")
    axes.axis("off")
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("learn_pooling", draw)


def tables() -> str:
    return "".join(" ".join(f"{number:>5g}" for number in row) + "\n" for part in pooled() for row in part)


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), tables, made)
