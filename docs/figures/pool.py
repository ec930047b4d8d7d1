"""Prints the floors that docs/pool.md quotes; with --write draws docs/figures/pool.svg.

python docs/figures/pool.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BANDWIDTH = 4.3e12  # bytes a second: 90 % of an H200's data sheet, assumed
ISSUE = 132 * 128 * 1.98e9  # instructions of one lane a second: SMs x lanes a clock x clock

# name, N, C, H, W, kernel, stride, padding, instructions of one lane an output, and an element of the gradient
LAYERS = [
    ("ResNet-50 stem, 3x3 stride 2", 256, 64, 112, 112, 3, 2, 1, 51, 17),
    ("VGG-16 first pool, 2x2 stride 2", 64, 64, 224, 224, 2, 2, 0, 35, 10),
    ("Inception branch, 3x3 stride 1", 128, 256, 28, 28, 3, 1, 1, 51, 50),
]

X = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4], [6, 2, 6, 4, 3]]
WIN, PLAIN, PAD = "#e07b39", "#f5f1ea", "#dfe6ee"
COLOURS = ["#4c78a8", "#e07b39", "#54a24b", "#b279a2"]


def floors(layer: tuple) -> tuple[float, float, float, float, float]:
    """Seconds: bytes of the forward (the backward moves as many), of the same with int64 indices, and the
    instructions of forward and backward."""
    _, n, c, h, w, kernel, stride, padding, forward, backward = layer
    p, q = ((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    inputs, outputs = n * c * h * w, n * c * p * q
    least = 2 * inputs + (2 + 1) * outputs
    wide = 2 * inputs + (2 + 8) * outputs
    return least, least / BANDWIDTH, wide / BANDWIDTH, outputs * forward / ISSUE, inputs * backward / ISSUE


def grid(axes: Axes, x: float, y: float, rows: list[list[object]], fill=lambda r, s: PLAIN) -> None:
    for r, row in enumerate(rows):
        for s, text in enumerate(row):
            axes.add_patch(Rectangle((x + s, y - r - 1), 1, 1, facecolor=fill(r, s), edgecolor="#555555", lw=0.8))
            axes.text(x + s + 0.5, y - r - 0.5, str(text), ha="center", va="center", fontsize=11)


def windows() -> dict[tuple[int, int], tuple[int, int, int]]:
    """(p, q) -> value, r, s of each 3x3 window, stride 2, padding 1: the loop of the text."""
    found = {}
    for p in range(3):
        for q in range(3):
            best = (float("-inf"), 0, 0)
            for r in range(3):
                for s in range(3):
                    h, w = 2 * p - 1 + r, 2 * q - 1 + s
                    if 0 <= h < 5 and 0 <= w < 5 and X[h][w] > best[0]:
                        best = (X[h][w], r, s)
            found[p, q] = best
    return found


def forward(axes: Axes) -> None:
    best = windows()
    won = {(2 * p - 1 + r, 2 * q - 1 + s) for (p, q), (_, r, s) in best.items()}
    padded = [["" if r in (0, 6) or s in (0, 6) else X[r - 1][s - 1] for s in range(7)] for r in range(7)]

    def fill(r: int, s: int) -> str:
        if r in (0, 6) or s in (0, 6):
            return PAD
        return WIN if (r - 1, s - 1) in won else PLAIN

    grid(axes, 0, 7, padded, fill)
    axes.add_patch(Rectangle((2, 2), 3, 3, fill=False, edgecolor=COLOURS[0], lw=3))
    axes.text(3.5, -0.6, "input, padding, window (1, 1); winners filled", ha="center", fontsize=10)
    grid(axes, 8.2, 7, [[best[p, q][0] for q in range(3)] for p in range(3)])
    axes.text(9.7, 3.4, "output", ha="center", fontsize=10)
    grid(axes, 8.2, 3, [[best[p, q][1] * 3 + best[p, q][2] for q in range(3)] for p in range(3)])
    axes.text(9.7, -0.6, "argmax: r * 3 + s", ha="center", fontsize=10)
    axes.set_title("forward: one byte remembers the winner")
    axes.set_xlim(-0.2, 11.6)
    axes.set_ylim(-1.2, 7.4)


def backward(axes: Axes) -> None:
    grid(axes, 0, 7, [[""] * 7 for _ in range(7)], lambda r, s: PAD if r in (0, 6) or s in (0, 6) else PLAIN)
    axes.add_patch(Rectangle((2, 4), 1, 1, facecolor=WIN, edgecolor="#555555"))
    places = {(0, 0): (2, 2), (0, 1): (2, 0), (1, 0): (0, 2), (1, 1): (0, 0)}
    for k, ((p, q), (r, s)) in enumerate(places.items()):
        inset = 0.06 * k
        axes.add_patch(
            Rectangle((2 * q + inset, 4 - 2 * p + inset), 3 - 2 * inset, 3 - 2 * inset, fill=False, ec=COLOURS[k], lw=2)
        )
        axes.text(
            7.6, 6.4 - 1.5 * k, f"window ({p}, {q}) sees it at place {r * 3 + s}:\n  adds dy if argmax is {r * 3 + s}",
            color=COLOURS[k], fontsize=10, va="center",
        )  # fmt: skip
    axes.text(7.6, 0.6, "then writes dx once", fontsize=10, va="center")
    axes.text(3.5, -0.6, "element (1, 1) of the input", ha="center", fontsize=10)
    axes.set_title("backward: every element asks its windows")
    axes.set_xlim(-0.2, 13.4)
    axes.set_ylim(-1.2, 7.4)


def bytes_moved(axes: Axes) -> None:
    parts = {"input": (8, 8), "output": (2, 2), "indices": (8, 1)}
    base = [0.0, 0.0]
    for colour, (name, sizes) in zip(COLOURS, parts.items(), strict=False):
        axes.bar(["int64 indices", "argmax byte"], sizes, bottom=base, color=colour, label=name, width=0.6)
        for i, size in enumerate(sizes):
            axes.text(i, base[i] + size / 2, str(size), ha="center", va="center", color="white", fontsize=10)
            base[i] += size
    axes.set_ylabel("bytes an output, 16-bit, stride 2")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title("what must move")


def draw() -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), width_ratios=[5, 5.6, 2.4])
    forward(axes[0])
    backward(axes[1])
    for panel in axes[:2]:
        panel.set_aspect("equal")
        panel.axis("off")
    bytes_moved(axes[2])
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("max_pool2d", draw)


def table() -> str:
    text = ""
    for layer in LAYERS:
        least, least_s, wide_s, forward_s, backward_s = floors(layer)
        text += (
            f"{layer[0]}, N={layer[1]}: {least / 1e6:.0f} MB, {least_s * 1e6:.0f} us\n"
            f"  with int64 indices {wide_s * 1e6:.0f} us\n"
            f"  instructions: {forward_s * 1e6:.0f} us forward, {backward_s * 1e6:.0f} us backward\n"
        )
    return text


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), table, made)
