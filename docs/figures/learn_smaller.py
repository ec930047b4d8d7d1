"""Draws docs/figures/learn_smaller.svg, a row of weights as docs/learn/smaller.md makes it smaller: by codes, by
magnitude and by 2:4. Prints the rows, and with --write renews the figure.

python docs/figures/learn_smaller.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

W = [0.9, -0.1, 0.4, -0.7, 0.2, 0.6, -0.5, 0.05]
PLAIN, ZERO = "#dfe8f2", "#f5f1ea"


def codes() -> list[int]:
    """Symmetric, 8 bits: the largest is 127."""
    return [round(w * 127 / max(map(abs, W))) for w in W]


def by_magnitude() -> list[float]:
    """Half of them, the smallest, are 0."""
    least = sorted(map(abs, W))[len(W) // 2]
    return [w if abs(w) >= least else 0.0 for w in W]


def two_of_four() -> list[float]:
    """The two smallest of each four are 0."""
    kept = []
    for first in range(0, len(W), 4):
        four = W[first : first + 4]
        least = sorted(map(abs, four))[2]
        kept += [w if abs(w) >= least else 0.0 for w in four]
    return kept


def rows() -> list[tuple[str, list[float]]]:
    return [
        ("weights, 32 bits each", W),
        (f"codes of 8 bits, times {max(map(abs, W)) / 127:.5f}", [float(code) for code in codes()]),
        ("the smaller half is 0: anywhere", by_magnitude()),
        ("2:4: two of each four are 0", two_of_four()),
    ]


def draw() -> Figure:
    figure, axes = plt.subplots(figsize=(8.6, 4.2))
    for number, (title, values) in enumerate(rows()):
        y = 6 - 1.9 * number
        axes.text(0, y + 1.1, title, fontsize=10)
        for i, value in enumerate(values):
            face = PLAIN if value else ZERO
            axes.add_patch(Rectangle((1.4 * i, y), 1.4, 1, facecolor=face, edgecolor="#555555", lw=0.8))
            axes.text(1.4 * i + 0.7, y + 0.5, f"{value:g}", ha="center", va="center", fontsize=11)
    axes.plot([5.6, 5.6], [0.1, 1.5], color="#555555", lw=2.5)
    axes.set_xlim(-0.1, 11.4)
    axes.set_ylim(0, 7.7)
    axes.axis("off")
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("learn_smaller", draw)


def tables() -> str:
    return "".join(" ".join(f"{value:>6g}" for value in values) + f"  {title}\n" for title, values in rows())


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), tables, made)
