"""What is measured: every layer of thirteen networks, corners and matrix products, from workloads.json.

A transposed convolution's problem is the convolution that it turns around, with input and output exchanged. A
convolution with one filter or more a channel belongs to depthwise_conv2d.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from cnnkernels.dtypes import ELEMENTS
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase, PoolCase

from .families import FAMILIES, Family, GemmCase, Problem, SeparableCase, samples, with_samples

BATCHES = (32, 256, 1)  # and types, layouts: what tells most comes first, as a long run may be cut
LAYOUTS = (Layout.NHWC, Layout.NCHW)
CORNERS, PRODUCTS = "corners", "products"
WORKLOADS = Path(__file__).with_name("workloads.json")


@dataclass(frozen=True)
class Case:
    """One thing to time: a direction of an operator on a problem, in a type and a layout."""

    family: str
    direction: str
    dtype: str
    layout: Layout
    problem: Problem
    networks: tuple[str, ...] = field(default=(), compare=False)

    @property
    def operator(self) -> Family:
        return FAMILIES[self.family]

    @property
    def torch_dtype(self) -> torch.dtype:
        return ELEMENTS[self.dtype].dtype

    @property
    def shape(self) -> str:
        """The problem in a few letters, without the reason why it is in the list."""
        return self.operator.describe(self.problem)

    @property
    def key(self) -> str:
        """Names the case in results: equal for equal work."""
        layout = f" {self.layout.name.lower()}" if self.operator.layouts else ""
        return f"{self.family} {self.direction} {self.dtype}{layout} {self.shape}"

    @property
    def flops(self) -> float:
        """Operations: a training step has the forward and one gradient an input."""
        return self.operator.flops(self.problem) * self._parts

    @property
    def bytes(self) -> float:
        """The least that moves: each part reads two of input, weight and output once and writes the third."""
        one = sum(_count(shape) for shape in self.operator.shapes(self.problem)) * self.torch_dtype.itemsize
        one += _count(self.operator.output(self.problem)) * self.output_dtype.itemsize
        return (one + self.operator.extra_bytes(self.problem)) * self._parts

    @property
    def output_dtype(self) -> torch.dtype:
        return self.operator.result or self.torch_dtype

    @property
    def samples(self) -> int:
        return samples(self.problem)

    @property
    def differentiated(self) -> tuple[int, ...]:
        """The inputs whose gradients are computed, as places."""
        return self.operator.directions[self.direction]

    @property
    def _parts(self) -> int:
        return 1 + len(self.differentiated) if self.direction == "training" else 1

    def with_samples(self, count: int) -> Case:
        return replace(self, problem=with_samples(self.problem, count))


def _count(shape: Sequence[int]) -> int:
    return functools.reduce(int.__mul__, shape, 1)


# --- from a row of workloads.json to a problem


def problem(row: dict[str, Any], n: int) -> tuple[str, Problem]:
    """The family that a row's layer belongs to, and the layer with batch n."""
    op, reason = row["op"], row.get("reason", "")
    sizes = (n, row["C"], row["H"], row["W"])
    window = tuple(row["kernel"])
    stride, padding, dilation = (tuple(row[name]) for name in ("stride", "padding", "dilation"))
    if op == "adaptive_avg_pool2d":
        return op, PoolCase(reason, *sizes, window, stride, bins=tuple(row["bins"]))
    if op in ("max_pool2d", "avg_pool2d"):
        return op, PoolCase(reason, *sizes, window, stride, padding, dilation, row["ceil_mode"])
    if op == "depthwise_separable_conv2d":
        return op, SeparableCase(reason, *sizes, row["K"], *window, stride, padding, dilation)
    both_sides = (padding[0], padding[0], padding[1], padding[1])
    if op == "conv_transpose2d":
        c, h, w, k = row["C"], row["H"], row["W"], row["K"]
        out = [
            (size - 1) * stride[i] - 2 * padding[i] + dilation[i] * (window[i] - 1) + 1 for i, size in enumerate((h, w))
        ]
        return op, ConvCase(reason, n, k, *out, c, *window, stride, both_sides, dilation, row["groups"])
    case = ConvCase(reason, *sizes, row["K"], *window, stride, both_sides, dilation, row["groups"])
    return ("depthwise_conv2d" if case.groups == case.c > 1 else "conv2d"), case


@functools.cache
def workloads() -> dict[str, Any]:
    return json.loads(WORKLOADS.read_text())


def networks() -> tuple[str, ...]:
    """The names that `--network` takes."""
    return (*workloads()["networks"], CORNERS, PRODUCTS)


def problems(batches: Iterable[int]) -> Iterator[tuple[str, str, Problem]]:
    """(network, family, problem) of everything there is; a layer's INT8 form comes beside it."""
    for n in batches:
        for network, about in workloads()["networks"].items():
            for row in about["layers"]:
                yield network, *problem(row, n)
    for row in workloads()["corners"]:
        yield CORNERS, *problem(row, row["N"])
    for row in workloads()["gemms"]:
        for family in ("int8_gemm", "int8_linear"):
            yield PRODUCTS, family, GemmCase(row["from"], row["M"], row["N"], row["K"])


def full(
    families: Collection[str] = (),
    networks: Collection[str] = (),
    dtypes: Collection[str] = (),
    batches: Collection[int] = (),
    layouts: Collection[Layout] = (),
    directions: Collection[str] = (),
) -> list[Case]:
    """Every case that passes the filters (an empty one lets all pass), each once, what tells most first."""
    found: dict[str, Case] = {}
    for network, family, shape in problems(batches or BATCHES):
        if networks and network not in networks:
            continue
        integers = isinstance(shape, ConvCase) and family != "conv_transpose2d"
        for name in (family, "int8_conv2d") if integers else (family,):
            operator = FAMILIES[name]
            if families and name not in families:
                continue
            for dtype, direction in itertools.product(operator.types, operator.directions):
                for layout in LAYOUTS if operator.layouts else LAYOUTS[:1]:
                    if (
                        (dtypes and dtype not in dtypes)
                        or (directions and direction not in directions)
                        or (layouts and operator.layouts and layout not in layouts)
                    ):
                        continue
                    case = Case(name, direction, dtype, layout, shape)
                    known = found.get(case.key, case).networks
                    found[case.key] = replace(case, networks=(*known, network) if network not in known else known)
    return interleaved(sorted(found.values(), key=_rank))


def _rank(case: Case) -> tuple[int, ...]:
    batch = BATCHES.index(case.samples) if case.samples in BATCHES else 0
    direction = list(case.operator.directions).index(case.direction)
    return (case.operator.types.index(case.dtype), LAYOUTS.index(case.layout), batch, direction)


def interleaved(cases: Iterable[Case]) -> list[Case]:
    """The families take turns, so that a run cut short has something of each."""
    queues: dict[str, list[Case]] = {}
    for case in cases:
        queues.setdefault(case.family, []).append(case)
    rounds = itertools.zip_longest(*queues.values())
    return [case for turn in rounds for case in turn if case is not None]


# --- the quick selection


SAME = (1, 1, 1, 1)
QUICK: dict[str, tuple[Problem, ...]] = {
    "conv2d": (
        ConvCase("resnet50's most frequent", 32, 256, 14, 14, 256, 3, 3, padding=SAME),
        ConvCase("1x1, expanding", 32, 64, 56, 56, 256, 1, 1),
        ConvCase("the first layer", 32, 3, 224, 224, 64, 7, 7, (2, 2), (3, 3, 3, 3)),
        ConvCase("strided", 32, 128, 56, 56, 128, 3, 3, (2, 2), SAME),
        ConvCase("vgg16, large", 32, 256, 56, 56, 256, 3, 3, padding=SAME),
        ConvCase("1x1, reducing", 32, 512, 28, 28, 128, 1, 1),
        ConvCase("few pixels", 32, 512, 7, 7, 512, 3, 3, padding=SAME),
        ConvCase("dilated", 32, 256, 64, 64, 256, 3, 3, padding=(12, 12, 12, 12), dilation=(12, 12)),
        ConvCase("grouped", 32, 128, 56, 56, 128, 3, 3, padding=SAME, groups=32),
        ConvCase("odd channels", 32, 255, 28, 28, 253, 3, 3, padding=SAME),
        ConvCase("a convolution of unet", 8, 128, 256, 256, 64, 3, 3, padding=SAME),
    ),
    "conv_transpose2d": (ConvCase("dcgan's", 128, 128, 16, 16, 256, 4, 4, (2, 2), SAME),),
    "max_pool2d": (
        PoolCase("resnet50's", 32, 64, 112, 112, (3, 3), (2, 2), (1, 1)),
        PoolCase("vgg16's first", 32, 64, 224, 224, (2, 2), (2, 2)),
        PoolCase("overlapping", 32, 256, 40, 40, (5, 5), (1, 1), (2, 2)),
    ),
    "avg_pool2d": (
        PoolCase("densenet121's first", 32, 128, 56, 56, (2, 2), (2, 2)),
        PoolCase("an inception branch", 32, 256, 28, 28, (3, 3), (1, 1), (1, 1)),
    ),
    "adaptive_avg_pool2d": (
        PoolCase("resnet50's head", 32, 2048, 7, 7, (1, 1), (1, 1), bins=(1, 1)),
        PoolCase("a pyramid's finest", 16, 2048, 60, 60, (1, 1), (1, 1), bins=(6, 6)),
    ),
    "depthwise_conv2d": (
        ConvCase("mobilenet_v2, first", 32, 32, 112, 112, 32, 3, 3, padding=SAME, groups=32),
        ConvCase("convnext_tiny, first stage", 32, 96, 56, 56, 96, 7, 7, padding=(3, 3, 3, 3), groups=96),
        ConvCase("efficientnet_b0", 32, 240, 28, 28, 240, 5, 5, padding=(2, 2, 2, 2), groups=240),
        ConvCase("mobilenet_v2, strided", 32, 144, 56, 56, 144, 3, 3, (2, 2), SAME, groups=144),
        ConvCase("replknet_31b, first stage", 32, 128, 56, 56, 128, 31, 31, padding=(15, 15, 15, 15), groups=128),
    ),
    "depthwise_separable_conv2d": (
        SeparableCase("mobilenet_v1's most frequent", 32, 512, 14, 14, 512, 3, 3, (1, 1), (1, 1)),
        SeparableCase("mobilenet_v1, first", 32, 32, 112, 112, 64, 3, 3, (1, 1), (1, 1)),
    ),
    "int8_gemm": (
        GemmCase("square", 4096, 4096, 4096),
        GemmCase("one row", 1, 4096, 4096),
        GemmCase("16 rows", 16, 8192, 8192),
        GemmCase("vit_b_16, up", 197 * 32, 3072, 768),
        GemmCase("odd sizes", 1023, 1021, 1019),
    ),
    "int8_linear": (
        GemmCase("square", 4096, 4096, 4096),
        GemmCase("one row", 1, 4096, 4096),
        GemmCase("vit_b_16, up", 197 * 32, 3072, 768),
    ),
    "int8_conv2d": (
        ConvCase("resnet50's most frequent", 32, 256, 14, 14, 256, 3, 3, padding=SAME),
        ConvCase("1x1, expanding", 32, 64, 56, 56, 256, 1, 1),
    ),
}  # fmt: skip


def quick() -> list[Case]:
    """A few telling problems of each family: in the type and layout that networks train in, then a few in others."""
    layouts = {name: LAYOUTS[:1] for name in FAMILIES} | {"depthwise_conv2d": LAYOUTS, "max_pool2d": LAYOUTS}
    found = []
    for name, some in QUICK.items():
        operator = FAMILIES[name]
        directions = [word for word in operator.directions if word != "training" or len(operator.directions) == 2]
        main = operator.types[0]
        found += [
            Case(name, direction, main, layout, shape, ("quick",))
            for layout in layouts[name]
            for shape in some
            for direction in directions
        ]
        if "tf32" in operator.types and name != "conv_transpose2d":  # its kernels are conv2d's
            found += [Case(name, word, "tf32", LAYOUTS[0], some[0], ("quick",)) for word in directions]
    return interleaved(found)


# --- every case in small, to see that it runs


def tiny(case: Case) -> Case:
    """The same kind of work on a handful of elements: window, stride, padding, dilation and whether there are groups,
    odd or few channels stay what they are."""
    p = case.problem
    if isinstance(p, GemmCase):
        return replace(case, problem=GemmCase(p.reason, min(p.m, 17 + p.m % 8), 8 + p.n % 8, 8 + p.k % 8))
    if isinstance(p, PoolCase) and p.bins is not None:  # which overlap still, or do not
        h, w = (min(size, size % bins + 2 * bins) for size, bins in zip((p.h, p.w), p.bins, strict=True))
        return replace(case, problem=replace(p, n=1, c=4 + p.c % 2, h=h, w=w))
    if isinstance(p, PoolCase):
        h, w = (_extent(p.kernel[i], p.stride[i], p.padding[i], p.dilation[i]) for i in (0, 1))
        return replace(case, problem=replace(p, n=1, c=4 + p.c % 2, h=h, w=w))
    pads = p.padding[::2] if isinstance(p, ConvCase) else p.padding
    h, w = (_extent((p.r, p.s)[i], p.stride[i], pads[i], p.dilation[i]) for i in (0, 1))
    if isinstance(p, SeparableCase):
        return replace(case, problem=replace(p, n=1, c=4, k=8, h=h, w=w))
    groups = min(p.groups, 2)
    channels = [1 if size == p.groups else min(size // p.groups, 4 + size // p.groups % 2) for size in (p.c, p.k)]
    c, k = (count * groups for count in channels)
    if p.groups > 1 and p.k > p.c == p.groups:
        k = groups * 2
    return replace(case, problem=replace(p, n=1, c=c, k=k, h=h, w=w, groups=groups))


def _extent(taps: int, stride: int, padding: int, dilation: int) -> int:
    """Just enough for two outputs, one of which may lie in the padding."""
    return max(2, dilation * (taps - 1) + 1 + stride - 2 * padding)


def smoke(cases: Iterable[Case]) -> list[Case]:
    """`cases` in small, one of each kind of problem and direction; types and layouts take turns."""
    kinds: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        small = tiny(case)
        kinds.setdefault((small.family, small.direction, small.shape), []).append(small)
    used = collections.Counter[tuple[str, str | Layout]]()
    chosen = []
    for (family, *_), members in kinds.items():
        turn = min(members, key=lambda case: (used[case.family, case.dtype], used[case.family, case.layout]))
        used[family, turn.dtype] += 1
        used[family, turn.layout] += 1
        chosen.append(turn)
    return chosen
