"""Prints the floors that docs/conv.md quotes; with --write draws docs/figures/conv.svg.

python docs/figures/conv.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import output
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BANDWIDTH = 4.3e12  # bytes a second: 90 % of an H200's data sheet, assumed
RATE = 790e12  # bf16 operations a second: 80 % of an H200's data sheet, assumed

BATCH = 256
# ResNet-50's: name, C, H = W, K, R = S, stride, padding
LAYERS = [
    ("stem 7x7 stride 2", 3, 224, 64, 7, 2, 3),
    ("1x1, 64 to 256", 64, 56, 256, 1, 1, 0),
    ("3x3 of 64", 64, 56, 64, 3, 1, 1),
    ("3x3 of 128, stride 2", 128, 56, 128, 3, 2, 1),
    ("3x3 of 512", 512, 7, 512, 3, 1, 1),
]

COLOURS = ["#4c78a8", "#e07b39", "#54a24b", "#b279a2"]
PLAIN, PAD, EMPTY = "#f5f1ea", "#dfe6ee", "#ffffff"


def floors(c: int, size: int, k: int, kernel: int, stride: int, pad: int) -> tuple[float, float]:
    """Operations and bytes of the forward; each gradient has as many of both."""
    out = (size + 2 * pad - kernel) // stride + 1
    pixels = BATCH * out * out
    operations = 2 * pixels * k * c * kernel * kernel
    data = 2 * (BATCH * size * size * c + k * c * kernel * kernel + pixels * k)
    return operations, data


def grid(ax: Axes, rows: int, columns: int, colour, text=None, x: float = 0, y: float = 0) -> None:
    for i in range(rows):
        for j in range(columns):
            ax.add_patch(Rectangle((x + j, y + i), 1, 1, facecolor=colour(i, j), edgecolor="white", linewidth=1.5))
            if text is not None:
                ax.text(x + j + 0.5, y + i + 0.5, text(i, j), ha="center", va="center", fontsize=6.5)


def frame(ax: Axes, title: str, width: float, height: float) -> None:
    ax.set_xlim(-0.2, width)
    ax.set_ylim(height, -0.2)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.set_title(title, fontsize=9, loc="left")


def draw_windows(ax: Axes) -> None:
    """A 4 x 4 image, pad 1, 3 x 3 filter, stride 2: each output pixel is a row of a matrix nobody stores."""
    windows = {(p, q): COLOURS[p * 2 + q] for p in range(2) for q in range(2)}
    frame(ax, "windows of x are rows of A; A is never stored", 18, 9.4)

    def padding(i: int, j: int) -> bool:
        return i in (0, 5) or j in (0, 5)

    grid(
        ax, 6, 6,
        lambda i, j: PAD if padding(i, j) else PLAIN,
        lambda i, j: "0" if padding(i, j) else f"x{i - 1}{j - 1}",
        y=0.6,
    )  # fmt: skip
    for (p, q), colour in windows.items():
        place = (2 * q + 0.08 * (q + 1), 0.6 + 2 * p + 0.08 * (p + 1))
        ax.add_patch(Rectangle(place, 2.84, 2.84, fill=False, edgecolor=colour, linewidth=2))
    for row, ((p, q), colour) in enumerate(windows.items()):

        def name(_: int, tap: int, p: int = p, q: int = q) -> str:
            h, w = 2 * p - 1 + tap // 3, 2 * q - 1 + tap % 3
            return f"x{h}{w}" if 0 <= h < 4 and 0 <= w < 4 else "0"

        grid(ax, 1, 9, lambda *_, colour=colour: colour + "55", name, x=8, y=1.6 + row)
        ax.text(7.8, 2.1 + row, f"y{p}{q}", ha="right", va="center", fontsize=7, color=colour)
    ax.text(12.5, 1.2, "depth: the taps (r, s)", ha="center", fontsize=7)
    ax.text(3, 7.6, "x with its padding, and four windows", ha="center", fontsize=7)


def draw_phases(ax: Axes) -> None:
    """Stride 2, 3 x 3 filter, pad 1: which taps each pixel of dx ever met."""
    frame(ax, "stride 2: four phases of dx", 8, 9.4)
    taps = [["1"], ["0", "2"]]  # h + 1 - r is even: even rows met tap 1, odd rows taps 0 and 2
    grid(ax, 6, 6, lambda i, j: COLOURS[i % 2 * 2 + j % 2] + "99", y=0.6)
    for a in range(2):
        for b in range(2):
            pairs = " ".join(f"{r}{s}" for r in taps[a] for s in taps[b])
            ax.add_patch(Rectangle((0, 7.1 + 0.55 * (2 * a + b)), 0.4, 0.4, facecolor=COLOURS[a * 2 + b] + "99"))
            ax.text(0.6, 7.3 + 0.55 * (2 * a + b), f"taps (r s): {pairs}", va="center", fontsize=7)


def draw_swizzle(ax: Axes) -> None:
    """Eight rows of 64 bytes: the 16-byte chunks' places, coloured by chunk."""
    frame(ax, "a tile in shared memory", 8.4, 9.4)
    at = [[c ^ (row >> 1 & 3) for c in range(4)] for row in range(8)]
    for row in range(8):
        y, x = row // 2, row % 2 * 4
        for chunk in range(4):
            place = x + at[row][chunk]
            ax.add_patch(
                Rectangle((place, 0.6 + y), 1, 1, facecolor=COLOURS[chunk] + "99", edgecolor="white", linewidth=1.5)
            )
            ax.text(place + 0.5, 1.1 + y, f"{row}.{chunk}", ha="center", va="center", fontsize=6.5)
    ax.text(
        0, 5.0,
        "row.chunk; a line is 128 bytes: all 32 banks.\nldmatrix reads 8 rows of one chunk (one\ncolour): "
        "every bank group exactly once.",
        va="top", fontsize=7,
    )  # fmt: skip


def draw() -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), width_ratios=[18.2, 8.2, 8.6])
    draw_windows(axes[0])
    draw_phases(axes[1])
    draw_swizzle(axes[2])
    figure.tight_layout()
    return figure


def made() -> str:
    return output.svg("conv2d", draw)


def table() -> str:
    text = f"{'bf16, batch ' + str(BATCH):24} {'GFLOP':>8} {'MB':>8} {'compute':>9} {'memory':>9} {'floor':>9}\n"
    for name, *shape in LAYERS:
        operations, data = floors(*shape)
        compute, memory = operations / RATE, data / BANDWIDTH
        floor = max(compute, memory)
        text += (
            f"{name:24} {operations / 1e9:8.1f} {data / 1e6:8.1f} {compute * 1e6:6.0f} us {memory * 1e6:6.0f} us "
            f"{floor * 1e6:6.0f} us\n"
        )
    return text


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), table, made)
