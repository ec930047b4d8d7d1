"""Which tiles serve an INT8 product, and into how many ranges its reduction is cut: a pure function of the problem,
over the candidates of int8_gemm/select.json.

    problem -> candidates -> feasible -> the cheapest by a cost model

Integer sums are exact in any order, so that, unlike conv2d's, a choice may depend on the batch: bits do not.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ..common.target import MOST_LOADS, family, gpu_of
from ..int8.tile import pieces

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("select.json").read_text())
# Clocks that starting and ending a program take, and a second kernel that adds ranges.
START_CLOCKS, SECOND_CLOCKS = 1500, 4000
# Clocks of an output's epilogue, per element and processor, as 128 lanes run its two dozen instructions.
FINISH_CLOCKS = 0.2
# The fewest steps that a range is worth, and the most bytes of ranges' sums.
FEWEST_STEPS = 4
WORKSPACE_BYTES = 64 * 2**20
# Pieces of a tile (int8/tile.py) that ptxas was seen to compile without spilling where columns are odd, and stored one
# by one.
MOST_ODD_PIECES = 2
# How often an element is used before copying it to where 16 bytes are loaded at once pays, and the bytes, as fewer are
# not worth a launch and more would be memory nobody expects to be taken.
PACKED_USES, PACKED_BYTES = 64, range(2**16, 2**29)


class Problem(NamedTuple):
    """A product of rows x columns over `channels` for each of `taps`, as often as there are groups.

    width: neighbouring bytes that one load takes. flat: channels and taps are one reduction. arch is 90 for compute
    capability 9.0, 0 for the interpreter.
    """

    rows: int
    columns: int
    channels: int
    taps: int
    groups: int
    width: int
    flat: bool
    arch: int


class Configuration(NamedTuple):
    """How a problem is cut into tiles, and the reduction into `splits` ranges of `each` steps."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    splits: int = 1
    each: int = 0

    def __str__(self) -> str:
        return f"{self.block_m}x{self.block_n}x{self.block_k}" + (f" in {self.splits}" if self.splits > 1 else "")

    @property
    def pieces(self) -> int:
        """Parts of a tile that the epilogue takes one after the other."""
        return pieces(self.block_m, self.block_n, self.warps)


def packing_pays(rows: int, length: int, uses: int) -> bool:
    """Is an operand worth copying before it is read, if its bytes do not lie as 16-byte loads want them?"""
    return uses >= PACKED_USES and rows * length in PACKED_BYTES


def steps(problem: Problem, block_k: int) -> int:
    if problem.flat:
        return math.ceil(problem.channels * problem.taps / block_k)
    return math.ceil(problem.channels / block_k) * problem.taps


def _tiles(problem: Problem, c: Configuration) -> int:
    return problem.groups * math.ceil(problem.rows / c.block_m) * math.ceil(problem.columns / c.block_n)


def split(problem: Problem, c: Configuration, splits: int) -> Configuration:
    """The configuration with its reduction in as many ranges, or as few less as leave none empty."""
    whole = steps(problem, c.block_k)
    each = math.ceil(whole / splits)
    return c._replace(splits=math.ceil(whole / each), each=each)


def _splits(problem: Problem, c: Configuration) -> int:
    """Ranges that keep a GPU busy; one where there are tiles enough, or taps."""
    wanted = gpu_of(problem.arch).processors // _tiles(problem, c)
    if problem.taps > 1 or problem.groups > 1 or problem.arch == 0:
        return 1
    most = WORKSPACE_BYTES // (4 * problem.rows * problem.columns)
    return max(1, min(wanted, steps(problem, c.block_k) // FEWEST_STEPS, most))


def cost(problem: Problem, c: Configuration) -> float:
    """Clocks: waves of programs, each of steps that multiply, load from the cache and share the memory's bandwidth."""
    own = TABLE["gpus"][str(max(int(name) for name in TABLE["gpus"] if int(name) <= problem.arch))]
    processors = gpu_of(problem.arch).processors
    programs = _tiles(problem, c) * c.splits
    loaded = (c.block_m + c.block_n) * c.block_k
    # Below a wgmma's 64 rows Hopper has half its rate.
    rate = own["products"] / (2 if family(problem.arch) == 90 and c.block_m < 64 else 1)
    loads = loaded / own["cache_bytes"] * max(1, 8 / problem.width)
    step = max(c.block_m * c.block_n * c.block_k / rate, loads)
    waves = math.ceil(programs / processors)
    clocks = waves * (c.each * step + START_CLOCKS + FINISH_CLOCKS * c.block_m * c.block_n)
    whole = problem.groups * problem.channels * (problem.rows + problem.columns * problem.taps)
    busy = min(programs, processors)
    memory = whole / (busy * own["memory_bytes"]) + START_CLOCKS
    clocks = max(clocks, memory) + min(clocks, memory) / 4  # neither hides the other whole
    if c.splits > 1:
        sums = 8 * c.splits * problem.rows * problem.columns
        clocks += SECOND_CLOCKS + sums / (processors * own["memory_bytes"])
    return clocks


def _feasible(problem: Problem, c: Configuration) -> bool:
    """Do the tiles of all stages fit shared memory, and the addresses of one stage's loads the registers?"""
    if problem.arch == 0:
        return True
    loaded = c.block_k * (c.block_m + c.block_n)
    fits = c.stages * loaded <= gpu_of(problem.arch).shared_bytes
    fits = fits and (c.pieces <= MOST_ODD_PIECES or problem.columns % 4 == 0)
    return fits and loaded // (32 * c.warps * problem.width) <= MOST_LOADS


def candidates(problem: Problem) -> list[Configuration]:
    """The feasible configurations, in the table's order; if none is (bytes that lie alone), the smallest."""
    here = family(problem.arch)
    found = []
    for row in TABLE["candidates"]:
        if here in row.get("families", [80, 90, 100]):
            c = Configuration(*row["block"], row["warps"], row["stages"])
            found.append(split(problem, c, _splits(problem, c)))
    smallest = min(found, key=lambda c: (c.block_m + c.block_n) * c.block_k / c.warps)
    return [c for c in found if _feasible(problem, c)] or [smallest]


@functools.lru_cache(maxsize=4096)
def choose(problem: Problem) -> Configuration:
    return min(candidates(problem), key=lambda c: cost(problem, c))
