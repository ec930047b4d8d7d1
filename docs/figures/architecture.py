"""Draws docs/figures/architecture.svg, the two ways of a call from a layer down to a kernel: prints its rooms, and with
--write renews the figure.

python docs/figures/architecture.py
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import output
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PYTHON, CUDA, TRITON, TORCH = "#dfe8f2", "#f7e3d2", "#dcecd9", "#ececec"
EDGE = {PYTHON: "#4c78a8", CUDA: "#c8641f", TRITON: "#3f8a3c", TORCH: "#888888"}
INK = "#222222"


class Box(NamedTuple):
    """A room of the house: where it stands, its path, what it does."""

    x: float
    y: float
    width: float
    colour: str
    room: str
    does: str


HEIGHT = 0.72
MIDDLE, LEFT, RIGHT, WIDE, NARROW = 2.6, 0.0, 5.2, 4.8, 2.3
BOXES = {
    "nn": Box(MIDDLE, 0, WIDE, PYTHON, "cnnkernels/nn", "layers with torch.nn's parameters and state_dict"),
    "functional": Box(MIDDLE, 1, WIDE, PYTHON, "cnnkernels/functional", "all checks; words and pairs become numbers"),
    "backends": Box(MIDDLE, 2, WIDE, PYTHON, "cnnkernels/backends.py", "who serves: device, type, what was asked for"),
    "ops": Box(MIDDLE, 3, WIDE, PYTHON, "cnnkernels/ops", "dense inputs, outputs allocated, derivatives, vmap, fake"),
    "native": Box(LEFT, 4.3, WIDE, PYTHON, "cnnkernels/native", "pointers, geometry, stream"),
    "launch": Box(RIGHT, 4.3, WIDE, TRITON, "triton_kernels/<word>/launch.py", "tensors, grid, constants"),
    "select": Box(LEFT, 5.3, WIDE, CUDA, "csrc/<word>/*.cpp, select.h", "problem, candidates, cost: a plan"),
    "configure": Box(RIGHT, 5.3, WIDE, TRITON, "triton_kernels/<word>/select.py", "problem, candidates, cost: a plan"),
    "cuda": Box(LEFT, 6.3, WIDE, CUDA, "csrc/<word>/*.cu", "kernels, in the words of common, ptx, gemm, int8"),
    "triton": Box(RIGHT, 6.3, WIDE, TRITON, "triton_kernels/<word>", "kernels, in those of common, int8"),
    "gpu": Box(LEFT, 7.6, NARROW, TORCH, "_cuda", "by nvcc, on a GPU"),
    "cpu": Box(LEFT + 2.5, 7.6, NARROW, TORCH, "_interpreter", "by c++, on a CPU"),
    "triton gpu": Box(RIGHT, 7.6, NARROW, TORCH, "Triton's compiler", "on a GPU"),
    "triton cpu": Box(RIGHT + 2.5, 7.6, NARROW, TORCH, "Triton's interpreter", "on a CPU"),
    "reference": Box(-1.1, 2, 2.6, TORCH, "reference", "PyTorch's own operator"),
}
WAYS = (
    ("nn", "functional"), ("functional", "backends"), ("backends", "ops"), ("ops", "native"), ("ops", "launch"),
    ("native", "select"), ("select", "cuda"), ("launch", "configure"), ("configure", "triton"), ("cuda", "gpu"),
    ("cuda", "cpu"), ("triton", "triton gpu"), ("triton", "triton cpu"),
)  # fmt: skip


def draw_box(ax: Axes, box: Box) -> None:
    shape = "round,pad=0,rounding_size=0.08"
    style = {"facecolor": box.colour, "edgecolor": EDGE[box.colour], "linewidth": 1}
    ax.add_patch(FancyBboxPatch((box.x, box.y), box.width, HEIGHT, boxstyle=shape, **style))
    middle = box.x + box.width / 2
    ax.text(middle, box.y + 0.27, box.room, ha="center", va="center", fontsize=8.5, color=INK, weight="bold")
    ax.text(middle, box.y + 0.53, box.does, ha="center", va="center", fontsize=7.5, color=INK)


def arrow(ax: Axes, begin: tuple[float, float], end: tuple[float, float], **style: object) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 9, "color": "#444444", "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(begin, end, **(look | style)))


def draw() -> Figure:
    figure, ax = plt.subplots(figsize=(9.2, 6.9))
    for box in BOXES.values():
        draw_box(ax, box)
    for upper, lower in WAYS:
        a, b = BOXES[upper], BOXES[lower]
        end = b.x + b.width / 2
        begin = min(max(end, a.x + 0.5), a.x + a.width - 0.5)
        arrow(ax, (begin, a.y + HEIGHT), (end, b.y))
    backends, reference, ops = BOXES["backends"], BOXES["reference"], BOXES["ops"]
    middle = HEIGHT / 2
    arrow(ax, (backends.x, backends.y + middle), (reference.x + reference.width, reference.y + middle))
    right = ops.x + ops.width
    loop = "arc,angleA=0,angleB=0,armA=34,armB=34,rad=7"
    arrow(ax, (right, ops.y + 0.54), (right, ops.y + 0.16), connectionstyle=loop, color=EDGE[PYTHON], linestyle="--")
    note = "backward: autograd calls the\nderivative, which is made of\nthe same operators"
    ax.text(right + 0.85, ops.y + middle, note, ha="left", va="center", fontsize=7.5, color=EDGE[PYTHON])
    traced = "torch.compile, export\nand jit.trace see\ntorch.ops.cnnkernels.*"
    ax.text(ops.x - 0.25, ops.y + middle, traced, ha="right", va="center", fontsize=7.5, color=EDGE[PYTHON])
    for x, y, text in ((LEFT, 4.2, "cuda"), (RIGHT + WIDE, 4.2, "triton")):
        ax.text(x, y, text, ha="left" if x == LEFT else "right", va="bottom", fontsize=9, style="italic", color=INK)
    ax.set_xlim(-1.2, 10.4)
    ax.set_ylim(8.4, -0.1)
    ax.axis("off")
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    return figure


def rooms() -> str:
    return "".join(f"{box.room:<32}{box.does}\n" for box in BOXES.values())


def made() -> str:
    return output.svg("architecture", draw)


if __name__ == "__main__":
    output.run(__doc__, Path(__file__).with_suffix(".svg"), rooms, made)
