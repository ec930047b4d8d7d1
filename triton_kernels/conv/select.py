"""Which tiles serve a convolution: a pure function of the problem, over the candidates of conv/select.json.

    problem -> candidates -> feasible -> the plan of a tuned table (cnnkernels/records/tuned.py) for exactly this
    problem, or else the cheapest by a cost model

For forward and backward-input a problem leaves out the batch, so that a sample's bits do not depend on it.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...geometry import ConvGeometry, Layout
from ...records import tuned
from ..common.geometry import is_wide
from ..common.partials import WORKSPACE_BYTES
from ..common.target import MOST_LOADS, family, gpu_of
from ..common.tiles import FEW_CHANNELS, NARROWEST_GROUP

Op = Literal["forward", "backward_input", "backward_weight"]

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("select.json").read_text())
# A batch for the cost model, as the true one must not matter.
NOMINAL_BATCH = 16
# What the cost model takes loading an element to cost, in multiply-adds, and starting a tile.
LOAD_COST = 64
START_COST = 2**21
# Loads and sums of a thread together, where each load brings one element of tf32, that were seen not to spill.
MOST_TF32 = 80
# The same where addresses have 64 bits: a thread's registers for sums (fewer without tensor cores, where operands lie
# in registers too), and for sums and addresses.
MOST_WIDE_SUMS = {"fp64": 16, "fp32": 16, "tf32": 32, "fp16": 64, "bf16": 64}
MOST_WIDE = 96
# Sums of a thread beside which ptxas was seen to compile an epilogue with a residual without spilling: of tf32, and
# where filters are odd, so that outputs are stored one by one, and in general.
FEWER_FINISHED_SUMS, MOST_FINISHED_SUMS = 32, 64


class Problem(NamedTuple):
    """dtype is one of fp64, fp32, tf32, fp16, bf16; arch is 90 for compute capability 9.0, 0 for the interpreter."""

    op: Op
    dtype: str
    layout: Layout
    geometry: ConvGeometry
    gpu: str
    arch: int


class Configuration(NamedTuple):
    """How a problem is cut into tiles.

    direct: elementwise kernels for narrow groups, block_k unused; else a matrix product.
    flat: the channels of a group if the taps are flattened with them, else 0.
    splits: ranges of pixels of a weight gradient, 1 elsewhere.
    """

    direct: bool
    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    flat: int = 0
    splits: int = 1

    def __str__(self) -> str:
        return f"{self.block_m}x{self.block_n}x{self.block_k}"


class _Extents(NamedTuple):
    """The matrix product of one group: rows x columns summed over `reduction`; `taps` of it per channel."""

    groups: int
    rows: int
    columns: int
    channels: int
    taps: int


def _extents(problem: Problem) -> _Extents:
    g = problem.geometry
    channels, filters, taps = g.c // g.groups, g.k // g.groups, g.r * g.s
    if problem.op == "forward":
        return _Extents(g.groups, NOMINAL_BATCH * g.p * g.q, filters, channels, taps)
    if problem.op == "backward_input":
        # As many rows as pixels, each summed over its phase's share of the taps.
        share = max(1, taps // (g.stride_h * g.stride_w))
        return _Extents(g.groups, NOMINAL_BATCH * g.h * g.w, channels, filters, share)
    return _Extents(g.groups, filters, channels, g.n * g.p * g.q, taps)


def flat_channels(problem: Problem, block: int) -> int:
    """A group's channels if its taps are flattened with them, else 0. `block`: the tile's extent along channels.

    Few channels would leave a tile of one tap's channels half empty. And filters of NCHW lie in memory with their taps
    side by side.
    """
    g = problem.geometry
    channels = g.c // g.groups
    if problem.op == "backward_input" or g.r * g.s == 1:
        return 0
    if problem.layout is Layout.NCHW or (channels < FEW_CHANNELS and channels % block):
        return channels
    return 0


def sized(problem: Problem, block: tuple[int, int, int], warps: int, stages: int) -> Configuration:
    if problem.op != "backward_weight":
        return Configuration(False, *block, warps, stages, flat_channels(problem, block[2]))
    flat = flat_channels(problem, block[1])
    e = _extents(problem)
    tiles = e.groups * math.ceil(e.rows / block[0]) * _column_tiles(e, block[1], flat)
    return Configuration(False, *block, warps, stages, flat, splits(problem, tiles, math.ceil(e.channels / block[2])))


def splits(problem: Problem, tiles: int, steps: int) -> int:
    """Ranges that `steps` of a reduction over pixels are cut into, to keep a GPU busy with `tiles` tiles."""
    g = problem.geometry
    elements = g.k * (g.c // g.groups) * g.r * g.s
    size = 8 if problem.dtype == "fp64" else 4
    wanted = max(1, 2 * gpu_of(problem.arch).processors // tiles)
    most = min(wanted, max(1, steps // 4), max(1, WORKSPACE_BYTES // (size * elements)))
    each = math.ceil(steps / most)
    return math.ceil(steps / each)


def _column_tiles(e: _Extents, block: int, flat: int) -> int:
    return math.ceil(e.columns * e.taps / block) if flat else math.ceil(e.columns / block) * e.taps


def cost(problem: Problem, c: Configuration) -> float:
    """Relative time: waves of tiles, each of steps that multiply and load, padding included."""
    e = _extents(problem)
    processors = gpu_of(problem.arch).processors
    step = c.block_k * (c.block_m * c.block_n + LOAD_COST * (c.block_m + c.block_n))
    if problem.op == "backward_weight":
        tiles = e.groups * math.ceil(e.rows / c.block_m) * _column_tiles(e, c.block_n, c.flat) * c.splits
        steps = math.ceil(math.ceil(e.channels / c.block_k) / c.splits)
    else:
        tiles = e.groups * math.ceil(e.rows / c.block_m) * math.ceil(e.columns / c.block_n)
        steps = math.ceil(e.channels * e.taps / c.block_k) if c.flat else math.ceil(e.channels / c.block_k) * e.taps
    return math.ceil(tiles / processors) * (steps * step + START_COST)


def _load_width(problem: Problem, size: int) -> int:
    """Neighbours that one load takes, 16 bytes at most: channels in NHWC; in NCHW pixels, if no window moves them."""
    g, widest = problem.geometry, 16 // size
    if problem.layout is Layout.NHWC:
        return math.gcd(g.c // g.groups, g.k // g.groups, widest)
    still = (g.r, g.s, g.stride_h, g.stride_w, g.pad_h, g.pad_w) == (1, 1, 1, 1, 0, 0)
    return widest if still and g.w % 16 == g.q % 16 == 0 else 1


def _feasible(problem: Problem, c: Configuration) -> bool:
    """Do the tiles of all stages fit shared memory, and the addresses of one stage's loads the registers?"""
    if problem.arch == 0:
        return True
    size = {"fp64": 8, "fp32": 4, "tf32": 4}.get(problem.dtype, 2)
    threads = 32 * c.warps
    elements = c.block_k * (c.block_m + c.block_n)
    fits = c.stages * elements * size <= gpu_of(problem.arch).shared_bytes
    loads = elements // (threads * _load_width(problem, size))
    sums = max(1, size // 4) * c.block_m * c.block_n // threads
    if is_wide(problem.geometry):
        return fits and sums <= MOST_WIDE_SUMS[problem.dtype] and sums + 2 * loads <= MOST_WIDE
    return fits and loads <= MOST_LOADS and (problem.dtype != "tf32" or sums + loads <= MOST_TF32)


def considered(problem: Problem) -> list[tuple[Configuration, bool]]:
    """The table's configurations for the problem's type and GPU, each with whether it is feasible. A narrow group has
    the elementwise kernel alone."""
    g = problem.geometry
    narrow = g.c // g.groups if problem.op == "backward_input" else g.k // g.groups
    if g.groups > 1 and narrow < NARROWEST_GROUP:
        return [(_direct(problem), True)]
    found = [
        sized(problem, tuple(row["block"]), row["warps"], row["stages"])
        for row in TABLE["candidates"]
        if problem.dtype in row["dtypes"] and family(problem.arch) in row.get("families", [family(problem.arch)])
    ]
    return [(c, _feasible(problem, c)) for c in found]


def candidates(problem: Problem) -> list[Configuration]:
    """The feasible configurations, in the table's order."""
    return [c for c, feasible in considered(problem) if feasible]


def _direct(problem: Problem) -> Configuration:
    g = problem.geometry
    if problem.layout is Layout.NHWC:
        channels = g.c if problem.op == "backward_input" else g.k
        block_n = min(64, 2 ** math.ceil(math.log2(max(channels, 2))))
        block_m = 1024 // block_n
    else:
        block_m, block_n = 512, 2
    ranges = 1
    if problem.op == "backward_weight":
        steps = math.ceil(g.n * g.p * g.q / block_m)
        tiles = math.ceil(g.k / block_n) * (g.c // g.groups) * g.r * g.s
        ranges = splits(problem, tiles, steps)
    return Configuration(True, block_m, block_n, 0, 4, 3, 0, ranges)


def _tuned(problem: Problem) -> Configuration | None:
    plans = tuned.plans(problem.gpu, "triton")
    plan = plans.get(tuned.key(problem.op, problem.dtype, problem.layout, problem.geometry))
    return plan and sized(problem, tuple(plan["block"]), plan["warps"], plan["stages"])


def _fits_epilogue(problem: Problem, c: Configuration) -> bool:
    """Do a thread's sums leave registers for a residual and an activation beside them?"""
    g = problem.geometry
    few = problem.dtype == "tf32" or (g.k // g.groups) % 4 != 0
    most = FEWER_FINISHED_SUMS if few else MOST_FINISHED_SUMS
    return c.direct or c.block_m * c.block_n <= most * 32 * c.warps


@tuned.until_forgotten
@functools.lru_cache(maxsize=4096)
def choose(problem: Problem, finished: bool = False) -> Configuration:
    """The configuration of a problem; `finished`: of one with an epilogue beyond the bias."""
    tuned_one = _tuned(problem)
    if tuned_one is not None and (not finished or _fits_epilogue(problem, tuned_one)):
        return tuned_one
    able = [c for c in candidates(problem) if not finished or problem.arch == 0 or _fits_epilogue(problem, c)]
    return min(able, key=lambda c: 0 if c.direct else cost(problem, c))
