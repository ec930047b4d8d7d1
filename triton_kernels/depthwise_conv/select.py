"""How a depthwise convolution is cut into patches and lanes: a pure function of the problem, over the rows of
select.json.

    problem -> candidates -> feasible -> the cheapest by a cost model

A result's bits depend on the choice only in backward_weight, whose sums are cut into ranges: forward and
backward_input add in one order whatever the patch. What no candidate is feasible for (strides of a gradient above
4, say) is left to conv2d's elementwise kernels.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...geometry import ConvGeometry, Layout
from ..common.partials import WORKSPACE_BYTES
from ..common.target import gpu_of
from .patch import Axis

Op = Literal["forward", "backward_input", "backward_weight"]

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("select.json").read_text())
# A thread's registers, of 255, that sums, filters and loads may take: the rest are addresses and masks.
REGISTERS = 236
# What a loop takes besides.
LOOP_REGISTERS = 24
# Outputs of a lane. A gradient's patch has a row and a column for each phase of the strides.
LARGEST_PATCH = 32
# Products of a lane that are written out one by one: above, compiling takes longer than a model's first batch should.
UNROLLED_PRODUCTS = 512
# What the cost model takes a load, a loaded element and the start of a program to cost, in multiply-adds of a thread.
LOAD_COST, WIDEN_COST, START_COST = 6, 1, 256
# Bytes of a cache line, and what the cache takes for each that a warp's load touches, and for each that it fills.
LINE_BYTES, TOUCH_COST, FILL_COST = 128, 2, 4
# Lanes of a tile in Triton's interpreter, where a program costs more than its elements do.
INTERPRETED_LANES = 2048


class Problem(NamedTuple):
    """size: bytes of an element. arch is 90 for compute capability 9.0, 0 for the interpreter."""

    op: Op
    size: int
    layout: Layout
    geometry: ConvGeometry
    arch: int


class Configuration(NamedTuple):
    """Lanes [a, b] of a program, the patch of each, and how its loops run (see select.json).

    splits: ranges of patches of a weight gradient, 1 elsewhere.
    """

    a: int
    b: int
    patch: tuple[int, int]
    unrolled: bool
    warps: int
    band: int = 0
    splits: int = 1

    def __str__(self) -> str:
        rows = f"band {self.band}" if self.band else "unrolled" if self.unrolled else "by rows"
        return f"{self.a}x{self.b} of {self.patch[0]}x{self.patch[1]} {rows}"


class Plan(NamedTuple):
    """A configuration's meaning for a problem. load, store: neighbouring columns of one access in NCHW; unit: what all
    counts of channels are multiples of in NHWC. Backward_weight loads both its operands, dy in pieces of `store`."""

    rows: Axis
    columns: Axis
    unit: int
    store: int
    tiles: int  # programs, but for bands and ranges
    steps: int  # of a program of backward_weight that takes all the patches

    def sizes(self, g: ConvGeometry) -> tuple[int, ...]:
        """What a kernel takes of the geometry (patch.py, sizes_of_patches); backward_input reads output and writes
        input."""
        image, result = (g.c, g.h, g.w), (g.k, g.p, g.q)
        (c, h, w), (k, p, q) = (result, image) if self.rows.backward else (image, result)
        return (g.n, c // self.unit, h, w // self.columns.chunk, k // self.unit, p, q // self.store)


def _wide(size: int, columns: int, patch: int) -> int:
    """Columns of a row that one access takes: 16 bytes at most, and aligned for every row and patch."""
    return math.gcd(columns, patch, 16 // size)


@functools.lru_cache(maxsize=4096)
def plan(problem: Problem, c: Configuration) -> Plan:
    g, nhwc = problem.geometry, problem.layout is Layout.NHWC
    backward = problem.op == "backward_input"
    band = c.band or g.r
    rows = Axis(c.patch[0], band, g.stride_h, g.pad_h, g.dilation_h, backward)
    columns = Axis(c.patch[1], g.s, g.stride_w, g.pad_w, g.dilation_w, backward)
    read, (height, width) = (g.q, (g.h, g.w)) if backward else (g.w, (g.p, g.q))
    unit, store = math.gcd(g.c, g.k, 8) if nhwc else 1, 1
    if not nhwc:
        columns = Axis(*_values(columns)[:-1], chunk=_wide(problem.size, read, columns.step))
        store = _wide(problem.size, width, c.patch[1])
    patches = math.ceil(height / c.patch[0]) * math.ceil(width / c.patch[1])
    if problem.op == "backward_weight":
        lanes, filters = (c.a, c.b) if nhwc else (c.b, c.a)
        return Plan(rows, columns, unit, store, math.ceil(g.k / filters), math.ceil(g.n * patches / lanes))
    channels = g.c if backward else g.k
    if nhwc:
        tiles = math.ceil(g.n * patches / c.a) * math.ceil(channels / c.b)
    else:
        tiles = math.ceil(g.n * channels / c.a) * math.ceil(patches / c.b)
    return Plan(rows, columns, unit, store, tiles, 1)


def _values(axis: Axis) -> tuple[Any, ...]:
    return (axis.patch, axis.taps, axis.stride, axis.pad, axis.dilation, axis.backward, axis.chunk)


class Work(NamedTuple):
    """A thread's, for one patch: loads of the image, filter elements, products, and the registers they take."""

    loads: int
    filters: int
    products: int
    registers: int


def _work(problem: Problem, c: Configuration, p: Plan) -> Work:
    """Registers: the sums, and all that stands between two turns of a loop, as the compiler moves every load of it to
    its beginning."""
    vector = _lanes_of_a_thread(c)
    words = vector * max(1, problem.size // 4)  # registers of one element of each lane
    held = math.ceil(vector * p.columns.chunk * problem.size / 4)  # of one load of each
    filter_words = words if problem.layout is Layout.NHWC else max(1, problem.size // 4)
    chunks, outputs = len(p.columns.chunks), math.prod(c.patch)
    products = p.rows.products * p.columns.products * vector
    if problem.op == "backward_weight":
        loads, grads = len(p.rows.read) * chunks, outputs * math.ceil(vector * problem.size / 4)
        sums = c.band * p.columns.taps * words
        return Work(loads + math.ceil(outputs / p.store), 0, products, sums + loads * held + grads + LOOP_REGISTERS)
    loads, filters = (
        (len(p.rows.read) * chunks, p.rows.taps * p.columns.taps) if c.unrolled else (chunks, p.columns.taps)
    )
    turns = 1 if c.unrolled else p.rows.products
    registers = outputs * words + filters * filter_words + loads * held + (0 if c.unrolled else LOOP_REGISTERS)
    return Work(turns * loads, turns * filters, products, registers)


def _lanes_of_a_thread(c: Configuration) -> int:
    return max(1, c.a * c.b // (32 * c.warps))


def _cache_cost(problem: Problem, c: Configuration, p: Plan) -> float:
    """A warp's load of the image: its bytes, or the lines that they are spread over."""
    if problem.layout is Layout.NHWC:
        width = _lanes_of_a_thread(c)
        touched = max(1, 32 * width // c.b) * math.ceil(min(c.b, 32 * width) * problem.size / LINE_BYTES)
    else:
        width = p.columns.chunk
        columns = math.ceil((problem.geometry.w if p.columns.backward else problem.geometry.q) / c.patch[1])
        run = min(32, c.b, columns)  # neighbours in a row
        touched = math.ceil(32 / run) * math.ceil(run * p.columns.step * problem.size / LINE_BYTES)
    return max(FILL_COST * 32 * width * problem.size / LINE_BYTES, TOUCH_COST * touched)


def cost(problem: Problem, c: Configuration) -> float:
    """Relative time: waves of programs, padding included, each bound by its instructions or by the cache."""
    p = plan(problem, c)
    work = _work(problem, c, p)
    vector = _lanes_of_a_thread(c)
    filters = work.filters * (vector if problem.layout is Layout.NHWC else 1)
    element = WIDEN_COST * vector * p.columns.chunk
    each = max(
        work.loads * (LOAD_COST + element) + 2 * filters + work.products,
        work.loads * _cache_cost(problem, c, p),
    )
    programs = p.tiles
    if problem.op == "backward_weight":
        programs *= math.ceil(problem.geometry.r / c.band) * c.splits
        each *= math.ceil(p.steps / c.splits)
    return math.ceil(programs / gpu_of(problem.arch).processors) * (each + START_COST)


def _feasible(problem: Problem, c: Configuration) -> bool:
    if math.prod(c.patch) > LARGEST_PATCH:
        return False
    p = plan(problem, c)
    written_out = p.columns.products * (p.rows.products if c.unrolled or c.band else c.patch[0])
    fits = problem.arch == 0 or _work(problem, c, p).registers <= REGISTERS
    return fits and written_out <= UNROLLED_PRODUCTS


def splits(problem: Problem, tiles: int, steps: int) -> int:
    """Ranges that the patches of a weight gradient are cut into, to keep a GPU busy with `tiles` tiles."""
    g = problem.geometry
    wanted = max(1, 4 * gpu_of(problem.arch).processors // tiles)
    most = min(wanted, steps, max(1, WORKSPACE_BYTES // (max(4, problem.size) * g.k * g.r * g.s)))
    return math.ceil(steps / math.ceil(steps / most))


def _sized(problem: Problem, row: dict[str, Any], width: int) -> Configuration | None:
    g, nhwc, warps = problem.geometry, problem.layout is Layout.NHWC, TABLE["warps"]
    lanes = 32 * warps * (max(1, row["bytes"] // problem.size) if nhwc else 1)
    if problem.arch == 0:
        lanes = INTERPRETED_LANES
    if width > lanes:
        return None
    patch = row["patch"]
    if problem.op == "backward_input":
        strides = (g.stride_h, g.stride_w)
        patch = [stride * math.ceil(size / stride) for size, stride in zip(patch, strides, strict=True)]
    c = Configuration(lanes // width, width, tuple(patch), row.get("unrolled", True), warps)
    if problem.op == "backward_weight":
        c = c._replace(band=min(row["band"], g.r))
        p = plan(problem, c)
        c = c._replace(splits=splits(problem, p.tiles * math.ceil(g.r / c.band), p.steps))
    return c


def candidates(problem: Problem) -> list[Configuration]:
    """The feasible configurations, in the table's order; none where the elementwise kernels serve."""
    layout = problem.layout.name.lower()
    rows = TABLE["backward_weight" if problem.op == "backward_weight" else "sweep"][layout]
    found = (_sized(problem, row, width) for row in rows for width in TABLE["widths"][layout])
    return [c for c in dict.fromkeys(found) if c and _feasible(problem, c)]


@functools.lru_cache(maxsize=4096)
def choose(problem: Problem) -> tuple[Configuration, Plan] | None:
    """The configuration of a problem and its plan; None: the elementwise kernels serve it."""
    found = candidates(problem)
    if not found:
        return None
    best = min(found, key=lambda c: cost(problem, c))
    return best, plan(problem, best)
