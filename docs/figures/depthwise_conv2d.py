"""The tables of docs/depthwise_conv2d.md: bytes, operations and floors of the depthwise layers of public networks, and
what the plans of csrc/depthwise_conv2d/select.h will read. `python docs/figures/depthwise_conv2d.py` writes them.

No number here is a measurement. The two rates are a device copy on one H200 and its fp32 multiply-adds.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from cnnkernels import native
from cnnkernels.geometry import Conv2dGeometry, Layout, conv_output_size

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "depthwise_conv2d.md"
NETWORKS = ("mobilenet_v2", "efficientnet_b0", "convnext_tiny", "replknet_31b")
COPY = 4.3e12  # bytes a second
FMA = 67e12  # operations a second in fp32, a multiply-add is two
BATCH, BYTES, BFLOAT16 = 32, 2, 3


def layers() -> list[tuple[str, Conv2dGeometry]]:
    """The distinct depthwise layers, by network."""
    networks = json.loads((ROOT / "benchmarks" / "workloads.json").read_text())["networks"]
    found: dict[Conv2dGeometry, str] = {}
    for name in NETWORKS:
        for row in networks[name]["layers"]:
            if row["op"] != "conv2d" or not row["groups"] == row["C"] > 1:
                continue
            (r, s), stride, pad, dilation = (row[key] for key in ("kernel", "stride", "padding", "dilation"))
            p = conv_output_size(row["H"], r, stride[0], pad[0], pad[0], dilation[0])
            q = conv_output_size(row["W"], s, stride[1], pad[1], pad[1], dilation[1])
            sizes = (BATCH, row["C"], row["H"], row["W"], row["K"], r, s, p, q)
            found.setdefault(Conv2dGeometry(*sizes, *stride, *pad, *dilation, row["C"]), name)
    return [(name, geometry) for geometry, name in found.items()]


def patch(results: int, total: int, taps: int, stride: int, size: int) -> float:
    """Elements of one axis read for each element of the source, by blocks of so many results."""
    blocks = math.ceil(total / results)
    return min(size, (min(results, total) - 1) * stride + taps) * blocks / size


def plan_of(module: Any, direction: str, g: Conv2dGeometry, layout: Layout) -> Any:
    which = getattr(module.DepthwiseConv2dDirection, direction)
    return module.depthwise_conv2d_plan(which, BFLOAT16, int(layout), module.Conv2dGeometry(*g))


def forward_reads(module: Any, g: Conv2dGeometry, layout: Layout) -> float:
    """How often a block fetches each byte of the input into its SM: what lies between blocks is fetched again, from
    the L2 cache where they run together. Needs strip_of of csrc/depthwise_conv2d/axis.h."""
    plan = plan_of(module, "forward", g, layout)
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
        moved, computed = size / COPY, work / FMA
        reads = [forward_reads(module, g, layout) for layout in (Layout.NHWC, Layout.NCHW)]
        splits = plan_of(module, "backward_weight", g, Layout.NHWC).splits
        lines.append(
            f"| {name} | {g.h}x{g.w}, {g.c} | {g.r}x{g.s}, stride {g.stride_h} | {size / 1e6:.1f} | {work / 1e9:.2f} "
            f"| {max(moved, computed) * 1e6:.1f} | {'copy' if moved >= computed else 'fp32'} "
            f"| {reads[0]:.2f} | {reads[1]:.2f} | {splits} | | |"
        )
    return "\n".join(lines)


def main() -> None:
    begin, end = "<!-- table: docs/figures/depthwise_conv2d.py -->\n", "<!-- end of table -->"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(f"{before}{begin}{table()}\n{end}{rest.split(end, 1)[1]}")


if __name__ == "__main__":
    main()
