"""Draws docs/figures/learn_gpu.svg: the banks that a column of a tile lies in, as it is, with a column of padding, and
swizzled. Prints how many turns each read takes, and with --write renews the figure.

python docs/figures/learn_gpu.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

SIDE = 8  # of the tile, and banks: 32 in truth
SEEN, PLAIN = "#f3c9a5", "#f5f1ea"

# Where element (row, column) lies, as a number of words.
WAYS: dict[str, Callable[[int, int], int]] = {
    "as it is": lambda row, column: SIDE * row + column,
    "a column of padding": lambda row, column: (SIDE + 1) * row + column,
    "swizzled: column xor row": lambda row, column: SIDE * row + (column ^ row),
}
COLUMN = 2  # that eight lanes read


def turns(place: Callable[[int, int], int]) -> int:
    """As many as the fullest bank holds words of the column."""
    banks = [place(row, COLUMN) % SIDE for row in range(SIDE)]
    return max(map(banks.count, banks))


def draw() -> Figure:
    figure, panels = plt.subplots(1, len(WAYS), figsize=(11.4, 4.4))
    for axes, (name, place) in zip(panels, WAYS.items(), strict=True):
        for row in range(SIDE):
            for column in range(SIDE):
                line, bank = divmod(place(row, column), SIDE)
                face = SEEN if column == COLUMN else PLAIN
                axes.add_patch(Rectangle((bank, -line - 1), 1, 1, facecolor=face, edgecolor="#555555", lw=0.8))
                axes.text(bank + 0.5, -line - 0.5, f"{row},{column}", ha="center", va="center", fontsize=8)
        axes.set_title(f"{name}: {turns(place)} turn{'s' * (turns(place) > 1)}", fontsize=11)
        axes.text(SIDE / 2, 0.25, "bank 0 to 7", ha="center", fontsize=9)
        axes.set_xlim(-0.1, SIDE + 0.1)
        axes.set_ylim(-SIDE - 1.2, 0.9)
        axes.set_aspect("equal")
        axes.axis("off")
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("learn_gpu", draw)


def tables() -> str:
    return "".join(f"{name:<26} {turns(place)}\n" for name, place in WAYS.items())


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), tables, made)
