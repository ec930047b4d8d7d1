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

import torch

from cnnkernels.geometry import ConvGeometry, Layout
from cnnkernels.records import tuned

from ..common.types import LARGEST_INDEX

Op = Literal["forward", "backward_input", "backward_weight"]

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("select.json").read_text())
# Columns of a tile that a matrix product may leave empty; a group with fewer channels is not worth one.
NARROWEST_GROUP = 4
# Where channels are this few, the reduction runs over channels and taps together.
FEW_CHANNELS = 64
# A batch for the cost model, as the true one must not matter.
NOMINAL_BATCH = 16
# What the cost model takes loading an element to cost, in multiply-adds, and starting a tile.
LOAD_COST = 64
START_COST = 2**21
# Loads of a thread in one step, as many as ptxas was seen to compile without spilling their addresses.
MOST_LOADS = 32
# The same of sums and loads together, where each load brings one element of tf32.
MOST_TF32 = 80
# The same where addresses have 64 bits: a thread's registers for sums (fewer without tensor cores, where operands lie
# in registers too), and for sums and addresses.
MOST_WIDE_SUMS = {"fp64": 16, "fp32": 16, "tf32": 32, "fp16": 64, "bf16": 64}
MOST_WIDE = 96
# Sums of a thread beside which ptxas was seen to compile an epilogue with a residual without spilling: of tf32, and
# where filters are odd, so that outputs are stored one by one, and in general.
FEWER_FINISHED_SUMS, MOST_FINISHED_SUMS = 32, 64
# The partial sums of a weight gradient.
WORKSPACE_BYTES = 256 * 2**20


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


def dtype_name(dtype: torch.dtype, tf32: bool) -> str:
    names = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    return "tf32" if tf32 and dtype is torch.float32 else names[dtype]


def family(arch: int) -> int:
    """Architectures of one kind of tensor core: 80 is mma.sync, 90 wgmma, 100 tcgen05 (120 has mma.sync again)."""
    if arch == 0:
        return 0
    return 90 if 90 <= arch < 100 else 100 if 100 <= arch < 120 else 80


def machine(arch: int) -> dict[str, Any]:
    """The newest listed machine that is not newer."""
    known = [int(name) for name in TABLE["machines"]]
    return TABLE["machines"][str(max(name for name in known if name <= arch))]


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
    """Ranges that `steps` of a reduction over pixels are cut into, to keep a machine busy with `tiles` tiles."""
    g = problem.geometry
    elements = g.k * (g.c // g.groups) * g.r * g.s
    size = 8 if problem.dtype == "fp64" else 4
    wanted = max(1, 2 * machine(problem.arch)["processors"] // tiles)
    most = min(wanted, max(1, steps // 4), max(1, WORKSPACE_BYTES // (size * elements)))
    each = math.ceil(steps / most)
    return math.ceil(steps / each)


def _column_tiles(e: _Extents, block: int, flat: int) -> int:
    return math.ceil(e.columns * e.taps / block) if flat else math.ceil(e.columns / block) * e.taps


def cost(problem: Problem, c: Configuration) -> float:
    """Relative time: waves of tiles, each of steps that multiply and load, padding included."""
    e = _extents(problem)
    processors = machine(problem.arch)["processors"]
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


def _axis_overhang(size: int, places: int, taps: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
    """How far beyond the input and beyond the output an axis' coordinates get on their way: kernels add the place of a
    window to the place of a tap, and only their sum lies inside. And by a step of each, which they may take alone."""
    reached = taps * dilation
    input = pad + reached + max(0, (places - 1) * stride - size) + stride
    return input, max(0, (size + pad) // stride + 1 - places) + 2 * (reached // stride + 1)


def _overhang(g: ConvGeometry) -> tuple[int, int]:
    """The same in elements of both images, channels_last: of the other layout no more."""
    rows = _axis_overhang(g.h, g.p, g.r, g.stride_h, g.pad_h, g.dilation_h)
    columns = _axis_overhang(g.w, g.q, g.s, g.stride_w, g.pad_w, g.dilation_w)
    return (rows[0] * g.w + columns[0]) * g.c, (rows[1] * g.q + columns[1]) * g.k


def most_images(g: ConvGeometry) -> int:
    """How many images of a problem's 32-bit offsets reach, at least 1."""
    input, output = _overhang(g)
    return max(1, min((LARGEST_INDEX - input) // (g.c * g.h * g.w), (LARGEST_INDEX - output) // (g.k * g.p * g.q)))


def is_wide(g: ConvGeometry) -> bool:
    """Do offsets in a problem's tensors take 64 bits? (In forward and backward-input: in those of one image.)"""
    input, output = _overhang(g)
    weight = g.k * (g.c // g.groups) * g.r * g.s
    return max(g.n * g.c * g.h * g.w + input, g.n * g.k * g.p * g.q + output, weight) > LARGEST_INDEX


def _feasible(problem: Problem, c: Configuration) -> bool:
    """Do the tiles of all stages fit shared memory, and the addresses of one stage's loads the registers?"""
    if problem.arch == 0:
        return True
    size = {"fp64": 8, "fp32": 4, "tf32": 4}.get(problem.dtype, 2)
    threads = 32 * c.warps
    elements = c.block_k * (c.block_m + c.block_n)
    fits = c.stages * elements * size <= machine(problem.arch)["shared_bytes"]
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


@functools.lru_cache(maxsize=4096)
def choose(problem: Problem, finished: bool = False) -> Configuration:
    """The configuration of a problem; `finished`: of one with an epilogue beyond the bias."""
    tuned_one = _tuned(problem)
    if tuned_one is not None and (not finished or _fits_epilogue(problem, tuned_one)):
        return tuned_one
    able = [c for c in candidates(problem) if not finished or problem.arch == 0 or _fits_epilogue(problem, c)]
    return min(able, key=lambda c: 0 if c.direct else cost(problem, c))
