"""Which tile serves a fused pair: a pure function of the problem, over the rows of select.json.

    problem -> candidates -> feasible -> the cheapest by a cost model

A problem leaves out the batch: a tile is part of what a matrix product's bits depend on, and a sample's may not depend
on its neighbours.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ...geometry import ConvGeometry, Layout
from ..common import geometry
from ..common.target import MOST_REGISTERS, family, gpu_of
from ..common.types import LARGEST_INDEX
from ..depthwise_conv.patch import Axis

TABLE: dict[str, Any] = json.loads(Path(__file__).with_name("select.json").read_text())
SIZES = {"fp64": 8, "fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}
# A thread's registers, of 255, that sums, filters and loads may take: the rest are addresses and masks.
REGISTERS = 208
# From this many rows Triton 3.7 gives a product of sm_100 to tensor cores, of fp32 as tf32 although asked for "ieee"
# (seen where an operand is computed, and not in conv2d, whose operands are loaded).
TENSOR_CORE_ROWS = 64
# What the cost model takes a product of the 1x1, a load of the image and the start of a program to cost, in
# multiply-adds of the depthwise part.
PRODUCT_COST = {"fp64": 1.0, "fp32": 1.0, "tf32": 1 / 8, "fp16": 1 / 16, "bf16": 1 / 16}
LOAD_COST, START_COST = 1.5, 2.0**16
# A batch for the cost model, as the true one must not matter.
NOMINAL_BATCH = 64


class Problem(NamedTuple):
    """geometry: the depthwise convolution's, n left out. filters: the 1x1's. arch: 90 for compute capability 9.0, 0 for
    the interpreter."""

    dtype: str
    layout: Layout
    geometry: ConvGeometry
    filters: int
    arch: int


class Configuration(NamedTuple):
    lanes: int
    patch: tuple[int, int]
    channels: int
    filters: int
    warps: int

    @property
    def pixels(self) -> int:
        return self.lanes * math.prod(self.patch)

    def __str__(self) -> str:
        return f"{self.pixels}x{self.filters}x{self.channels} of {self.patch[0]}x{self.patch[1]}"


def axes(problem: Problem, c: Configuration) -> tuple[Axis, Axis, int]:
    """How patches meet the taps, and how many columns one access of z takes."""
    g, size = problem.geometry, SIZES[problem.dtype]
    rows = Axis(c.patch[0], g.r, g.stride_h, g.pad_h, g.dilation_h, False)
    chunk = store = 1
    if problem.layout is Layout.NCHW:
        chunk = math.gcd(g.w, c.patch[1] * g.stride_w, 16 // size)
        store = math.gcd(g.q, c.patch[1], 16 // size)
    return rows, Axis(c.patch[1], g.s, g.stride_w, g.pad_w, g.dilation_w, False, chunk), store


def is_wide(problem: Problem, c: Configuration, n: int) -> bool:
    """Do indices of pixels, counted to the end of patches, or offsets in a tensor of a batch of n take 64 bits?"""
    g = problem.geometry
    pixels = n * (g.p + c.patch[0]) * (g.q + c.patch[1])
    largest = max(pixels, n * g.p * g.q * problem.filters, g.k * problem.filters)
    return largest > LARGEST_INDEX or geometry.is_wide(g._replace(n=n))


def arguments(problem: Problem, c: Configuration, n: int, stores: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """What both kernels take of a problem: `sizes` (forward.py, sizes_of_pair) and compile-time arguments. `stores`:
    pixels of z side by side."""
    g, filters, nhwc = problem.geometry, problem.filters, problem.layout is Layout.NHWC
    rows, columns, store = axes(problem, c)
    store = store if stores else 1
    unit, pointwise_unit = math.gcd(g.c, 8) if nhwc else 1, math.gcd(g.k, filters, 8)
    image = n, g.c // unit, g.h, g.w // columns.chunk
    constants = {
        "ROWS": rows,
        "COLUMNS": columns,
        "MULTIPLIER": g.k // g.c,
        "UNIT": unit,
        "POINTWISE_UNIT": pointwise_unit,
        "STORE": store,
        "NHWC": nhwc,
        "WIDE": is_wide(problem, c, n),
        "LANES": c.lanes,
        "CHANNELS": c.channels,
        "FILTERS": c.filters,
        "num_warps": c.warps,
        "num_stages": 2,
        "maxnreg": MOST_REGISTERS,
    }
    return (*image, g.k // pointwise_unit, g.p, g.q // store, filters // pointwise_unit), constants


def _registers(problem: Problem, c: Configuration) -> int:
    """A thread's: sums of both convolutions, and what is loaded for a row of taps."""
    size, threads = SIZES[problem.dtype], 32 * c.warps
    words = max(1, size // 4)
    _, columns, _ = axes(problem, c)
    lanes = max(1, c.lanes * c.channels // threads)
    filters = columns.taps * words * (lanes if problem.layout is Layout.NHWC else 1)
    held = math.ceil(lanes * columns.chunk * size / 4) * len(columns.chunks)
    products = c.pixels * c.filters // threads * words
    return products + lanes * math.prod(c.patch) * words + filters + held


def cost(problem: Problem, c: Configuration) -> float:
    """Relative time: waves of programs, padding included."""
    g = problem.geometry
    patches = math.ceil(g.p / c.patch[0]) * math.ceil(g.q / c.patch[1])
    programs = math.ceil(NOMINAL_BATCH * patches / c.lanes) * math.ceil(problem.filters / c.filters)
    _, columns, _ = axes(problem, c)
    each = g.r * (g.s + LOAD_COST * len(columns.read) / c.patch[1]) + PRODUCT_COST[problem.dtype] * c.filters
    turns = math.ceil(g.k / c.channels)
    waves = math.ceil(programs / gpu_of(problem.arch).processors)
    return waves * (turns * c.pixels * c.channels * each + START_COST)


def _exact(problem: Problem, rows: int) -> bool:
    """Does a product of `rows` rows keep its type's precision?"""
    return problem.dtype != "fp32" or family(problem.arch) != 100 or rows < TENSOR_CORE_ROWS


def candidates(problem: Problem) -> list[Configuration]:
    """The configurations whose sums fit the registers, in the table's order; the smallest one where none does."""
    if problem.arch == 0:
        return [_of(TABLE["interpreted"])]
    kind = family(problem.arch)
    rows = [
        row for row in TABLE["candidates"] if problem.dtype in row["dtypes"] and kind in row.get("families", [kind])
    ]
    nhwc = problem.layout is Layout.NHWC
    found = [c for c in map(_of, rows) if _exact(problem, c.pixels if nhwc else c.filters)]
    feasible = [c for c in found if _registers(problem, c) <= REGISTERS]
    return feasible or [min(found, key=lambda c: _registers(problem, c))]


def _of(row: dict[str, Any]) -> Configuration:
    return Configuration(row["lanes"], tuple(row["patch"]), row["channels"], row["filters"], row["warps"])


@functools.lru_cache(maxsize=4096)
def choose(problem: Problem) -> Configuration:
    """The configuration of a problem."""
    return min(candidates(problem), key=lambda c: cost(problem, c))


# Of the backward kernel, whose gradient [filters, channels] stays in registers beside the forward's sums. In NCHW,
# where each element of the error has an address of its own, they hold less. By the compiler's output: no spills.
MOST_FILTERS_BACKWARD = 64
REGISTERS_BACKWARD = {Layout.NHWC: REGISTERS, Layout.NCHW: 110}


@functools.lru_cache(maxsize=4096)
def choose_backward(problem: Problem) -> Configuration:
    """The configuration of the backward kernel: the forward's, where its registers serve."""

    def registers(c: Configuration) -> int:
        words = max(1, SIZES[problem.dtype] // 4)
        return _registers(problem, c) + (c.pixels + c.filters) * c.channels // (32 * c.warps) * words

    able = [c for c in candidates(problem) if c.filters <= MOST_FILTERS_BACKWARD]
    found = [c for c in able if _exact(problem, c.filters)]  # the rows of the gradient
    feasible = [c for c in found if registers(c) <= REGISTERS_BACKWARD[problem.layout]] or [min(found, key=registers)]
    return min(feasible, key=lambda c: cost(problem, c))
