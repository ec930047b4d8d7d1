"""The plans of conv2d's kernel of TMA and wgmma."""

from __future__ import annotations

from typing import Any

from cnnkernels.testing.cases import ConvCase
from helpers.conv import ConvRunner

TILES = ["128x256", "256x128", "128x128", "256x64", "128x64", "64x256", "64x128", "128x128 ping-pong"]
CLUSTERS = ["128x256 cluster", "256x128 cluster"]  # two blocks each, which share the columns' operand


def plan(runner: ConvRunner, tile: str = "128x64", splits: int = 1, blocks: int = 0) -> Any:
    chosen = runner.module.ConvPlan()
    chosen.engine = runner.module.ConvEngine.wgmma
    chosen.tile, chosen.splits, chosen.blocks = (TILES + CLUSTERS).index(tile), splits, blocks
    return chosen


def serves(direction: str, case: ConvCase) -> bool:
    """backward_input sums over the filters of a group, at least 16 at a time."""
    return not (direction == "backward_input" and case.groups > 1 and case.k // case.groups % 16)
