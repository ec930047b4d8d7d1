"""The tables of docs/depthwise_conv.md: bytes, operations and floors of the depthwise layers of public networks, and
what the plans of csrc/depthwise_conv/select.h will read. `python docs/figures/depthwise_conv.py` prints them.

No number here is a measurement of these kernels. The rates are a device copy and a large matrix product as one H200 was
seen to run them, its data sheet's fp32 multiply-adds, and the share of its tensor cores that mma.sync is known for.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import output

from cnnkernels import native
from cnnkernels.geometry import Axis, ConvGeometry, Layout, conv_output_size

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "depthwise_conv.md"
NETWORKS = ("mobilenet_v2", "efficientnet_b0", "convnext_tiny", "replknet_31b")
COPY = 4.3e12  # bytes a second: 90 % of an H200's data sheet, assumed
FMA = 67e12  # operations a second in fp32, a multiply-add is two
TENSOR = 790e12  # operations a second in bf16: 80 % of the data sheet's, assumed
MMA = 0.62 * 989e12  # the same by mma.sync, assumed
INSTRUCTION = 2 * 16 * 8 * 16  # operations of one
BATCH, BYTES, BFLOAT16 = 32, 2, 3


def layers() -> list[tuple[str, ConvGeometry]]:
    """The distinct depthwise layers, by network."""
    networks = json.loads((ROOT / "benchmarks" / "workloads.json").read_text())["networks"]
    found: dict[ConvGeometry, str] = {}
    for name in NETWORKS:
        for row in networks[name]["layers"]:
            if row["op"] != "conv2d" or not row["groups"] == row["C"] > 1:
                continue
            (r, s), stride, pad, dilation = (row[key] for key in ("kernel", "stride", "padding", "dilation"))
            axes = [
                Axis(size, taps, conv_output_size(size, taps, step, side, side, gap), step, side, gap)
                for size, taps, step, side, gap in zip((row["H"], row["W"]), (r, s), stride, pad, dilation, strict=True)
            ]
            found.setdefault(ConvGeometry.of_axes(BATCH, row["C"], row["K"], row["C"], axes), name)
    return [(name, geometry) for geometry, name in found.items()]


def patch(results: int, total: int, taps: int, stride: int, size: int) -> float:
    """Elements of one axis read for each element of the source, by blocks of so many results."""
    blocks = math.ceil(total / results)
    return min(size, (min(results, total) - 1) * stride + taps) * blocks / size


def plan_of(module: Any, direction: str, g: ConvGeometry, layout: Layout) -> Any:
    which = getattr(module.DepthwiseConvDirection, direction)
    return module.depthwise_conv_plan(which, BFLOAT16, int(layout), module.ConvGeometry(*g))


def forward_reads(module: Any, g: ConvGeometry, layout: Layout) -> float:
    """How often a block fetches each byte of the input into its SM: what lies between blocks is fetched again, from
    the L2 cache where they run together. Needs strip_of of csrc/depthwise_conv/axis.h."""
    plan = plan_of(module, "forward", g, layout)
    if plan.band:
        return patch(plan.strips, g.p, g.r, g.stride_h, g.h)
    sparse = g.stride_h > 1 and plan.chunk > 0
    strip = 4 if sparse or (plan.vector == 8 and plan.chunk <= 3) else 8
    if layout is Layout.NHWC:
        rows, columns = plan.lines, plan.strips * strip
    else:
        rows, columns = plan.strips * strip, plan.lines
    return patch(rows, g.p, g.r, g.stride_h, g.h) * patch(columns, g.q, g.s, g.stride_w, g.w)


def table() -> str:
    module = native.load("interpreter").module
    head = (
        "| layer | map, channels | kernel | MB | GFLOP | floor, µs | bound by | NHWC reads | NCHW reads | splits of dw "
        "| measured, µs | % of floor |"
    )
    lines = [head, "|" + " --- |" * 12]
    for name, g in layers():
        size = BYTES * (g.n * g.c * g.h * g.w + g.n * g.k * g.p * g.q + g.k * g.r * g.s)
        work = 2 * g.n * g.k * g.p * g.q * g.r * g.s
        band = plan_of(module, "forward", g, Layout.NHWC).band
        moved, computed = size / COPY, work / (TENSOR if band else FMA)
        reads = [forward_reads(module, g, layout) for layout in (Layout.NHWC, Layout.NCHW)]
        splits = plan_of(module, "backward_weight", g, Layout.NHWC).splits
        lines.append(
            f"| {name} | {g.h}x{g.w}, {g.c} | {g.r}x{g.s}, stride {g.stride_h} | {size / 1e6:.1f} | {work / 1e9:.2f} "
            f"| {max(moved, computed) * 1e6:.1f} | {'copy' if moved >= computed else 'tensor' if band else 'fp32'} "
            f"| {reads[0]:.2f} | {reads[1]:.2f} | {splits} | | |"
        )
    return "\n".join(lines)


def forward_instructions(plan: Any, g: ConvGeometry) -> int:
    """mma.sync instructions of the plan's warps, each 32 rows by `tiles` tiles of 8 columns (csrc band.h)."""
    steps, columns = (g.s + 7 + 15) // 16, math.ceil(g.q / (8 * plan.tiles))
    rows = math.ceil(plan.images * plan.strips / 32)
    blocks = math.ceil(g.c / plan.lanes) * math.ceil(g.p / plan.strips) * math.ceil(g.n / plan.images)
    return blocks * plan.lanes * rows * columns * g.r * 2 * plan.tiles * steps


def weight_instructions(g: ConvGeometry) -> int:
    taps = 16 if max(g.r, g.s) <= 16 else 32
    tiles, steps = math.ceil(g.r / taps) * math.ceil(g.s / taps), (g.q + 7 + 15) // 16
    return g.n * g.c * g.p * tiles * steps * (taps // 16) * (taps // 8)


def large_table() -> str:
    module = native.load("interpreter").module
    lines = [
        "| layer | map, channels | kernel | GFLOP | direction | useful | µs on fp32 units | µs by mma.sync | floor |"
    ]
    lines.append("|" + " --- |" * 9)
    for name, g in layers():
        plans = [plan_of(module, "forward", g, layout) for layout in (Layout.NHWC, Layout.NCHW)]
        if not plans[0].band:
            continue
        work = 2 * g.n * g.k * g.p * g.q * g.r * g.s
        floor = max(BYTES * (g.n * g.c * g.h * g.w + g.n * g.k * g.p * g.q) / COPY, work / TENSOR)
        directions = [("y, dx in NHWC", plans[0]), ("y, dx in NCHW", plans[1]), ("dw", None)]
        for direction, plan in directions:
            issued = INSTRUCTION * (weight_instructions(g) if plan is None else forward_instructions(plan, g))
            lines.append(
                f"| {name} | {g.h}x{g.w}, {g.c} | {g.r}x{g.s} | {work / 1e9:.2f} | {direction} | {work / issued:.0%} "
                f"| {work / FMA * 1e6:.1f} | {issued / MMA * 1e6:.1f} | {floor * MMA / issued:.0%} |"
            )
    return "\n".join(lines)


def tables() -> dict[str, str]:
    return {"table": table() + "\n", "large filters": large_table() + "\n"}


def made() -> str:
    page = PAGE.read_text()
    for name, text in tables().items():
        begin, end = f"<!-- {name}: docs/figures/depthwise_conv.py -->\n", f"<!-- end of {name} -->"
        page = output.filled(page, begin, end, text)
    return page


if __name__ == "__main__":
    output.run(__doc__, PAGE, lambda: "\n".join(tables().values()), made)
