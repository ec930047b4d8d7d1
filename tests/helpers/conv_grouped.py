"""conv2d's cases of narrow groups, and the plans of the kernel that serves them."""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.cases import ConvCase
from helpers.conv import ConvRunner

TILES = [(256, 64), (128, 64), (64, 64), (128, 32), (64, 32), (64, 16)]


def grouped(name: str, n: int, c: int, k: int, groups: int, h: int, w: int, r: int, s: int, **rest: Any) -> ConvCase:
    """A case by its channels and filters of one group."""
    return ConvCase(name, n, c * groups, h, w, k * groups, r, s, groups=groups, **rest)


# Each width of a group by itself, with another width made of it, and a last bundle that is not full.
WIDTHS = [
    grouped(f"{c} to {k}", 2, c, k, groups, 5, 9, 3, 3, padding=(1, 1, 1, 0))
    for c, k, groups in [(4, 4, 6), (8, 8, 3), (16, 16, 2), (2, 2, 12), (4, 8, 6), (8, 4, 6), (16, 8, 2), (2, 16, 4)]
]


# And each way in which windows go over an image.
SWEEPS = [
    grouped("stride 2", 2, 4, 4, 4, 9, 10, 3, 3, stride=(2, 2), padding=(1, 1, 1, 0)),
    grouped("5x3 dilated", 1, 8, 8, 2, 13, 10, 5, 3, stride=(1, 3), padding=(3, 1, 0, 2), dilation=(2, 1)),
    grouped("stride and dilation", 2, 2, 4, 4, 13, 10, 3, 2, stride=(3, 2), padding=(0, 1, 0, 2), dilation=(2, 2)),
    grouped("1x1 stride 2 leaves phases empty", 2, 16, 16, 2, 5, 6, 1, 1, stride=(2, 2)),
    grouped("5x5", 1, 4, 4, 4, 6, 17, 5, 5, padding=(2, 2, 2, 2)),
    grouped("padding above the kernel", 1, 8, 16, 2, 3, 2, 2, 2, padding=(3, 2, 3, 4)),
]


# One where two groups share 16 bytes, one where none do, one where four do, in phases.
KINDS = [WIDTHS[0], WIDTHS[1], SWEEPS[2]]


def plan(runner: ConvRunner, tile: tuple[int, int] = (64, 64), blocks: int = 0, direction: str = "forward") -> Any:
    made = runner.module.ConvPlan()
    made.engine = runner.module.ConvEngine.grouped
    made.tile, made.blocks = TILES.index(tile), blocks
    made.splits = max(blocks, 1) if direction == "backward_weight" else 1
    return made
