"""The tables of docs/depthwise_separable_conv.md: what each pair of MobileNet moves, its floor, its tiles; --write
renews them.

python docs/figures/depthwise_separable_conv_paper_check.py

Nothing is launched. The measured columns are for whoever has that GPU; they are never computed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import output
import torch

from cnnkernels.cli import explain
from cnnkernels.dtypes import dtype_code
from cnnkernels.geometry import ConvGeometry, Layout
from cnnkernels.ops.checks import conv_geometry
from cnnkernels.tuning.problem import host_module

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "depthwise_separable_conv.md"
BEGIN, END = "<!-- {} made by docs/figures/depthwise_separable_conv_paper_check.py -->\n", "<!-- end -->\n"
GPU, BATCH, BYTES = "h200", 64, 2  # bf16
HEAD = (
    "| pair | two layers, MB | fused, MB | less by | pointwise, GFLOP | floor, us | tile | patch | depthwise made "
    "| input read from L2 | measured, us | of the floor |\n" + "| --- " * 12 + "|\n"
)


BACKWARD_HEAD = (
    "| pair | two layers, MB | composed, MB | fused, MB | fused, z saved, MB | less than two layers by | z made "
    "| kept for it by two layers, MB | kept here, MB |\n" + "| --- " * 9 + "|\n"
)
FILTERS_ONCE = 128  # of 16-bit types, whose gradient a block of the backward kernel keeps


class Pair(NamedTuple):
    network: str
    geometry: ConvGeometry
    filters: int

    @property
    def elements(self) -> tuple[int, int, int, int]:
        """Of input, intermediate, output and both filters."""
        g = self.geometry
        pixels = g.n * g.p * g.q
        return g.n * g.c * g.h * g.w, pixels * g.k, pixels * self.filters, g.k * (g.r * g.s + self.filters)

    @property
    def products(self) -> tuple[int, int]:
        """Multiply-adds of the depthwise and of the pointwise half."""
        g = self.geometry
        return g.n * g.p * g.q * g.k * g.r * g.s, g.n * g.p * g.q * g.k * self.filters


def pair(network: str, layer: dict[str, Any], filters: int) -> Pair:
    c = layer["C"]
    sides = [pad for pad in layer["padding"] for _ in range(2)]
    size = (BATCH, c, layer["H"], layer["W"])
    geometry = conv_geometry(size, (c, 1, *layer["kernel"]), layer["stride"], sides, layer["dilation"], c)
    return Pair(network, geometry, filters)


def pairs() -> list[Pair]:
    """MobileNetV1's pairs; MobileNetV2's depthwise layers, each with the projections that read what it makes."""
    networks = json.loads((ROOT / "benchmarks" / "workloads.json").read_text())["networks"]
    found = [pair("v1", layer, layer["K"]) for layer in networks["mobilenet_v1"]["layers"] if "groups" not in layer]
    convolutions = [layer for layer in networks["mobilenet_v2"]["layers"] if layer["op"] == "conv2d"]
    for layer in convolutions:
        if layer["groups"] != layer["C"]:
            continue
        made = layer["H"] // layer["stride"][0]
        for after in convolutions:
            projects = after["kernel"] == [1, 1] and after["K"] < after["C"]
            if projects and after["C"] == layer["K"] and after["H"] == made:
                found.append(pair("v2", layer, after["K"]))
    return found


def name(p: Pair) -> str:
    g = p.geometry
    return f"{p.network} {g.c} to {p.filters} at {g.h}" + (f", stride {g.stride_h}" if g.stride_h > 1 else "")


def backward_row(p: Pair) -> str:
    """The bytes of a backward pass with an activation between the two; filters are too few to count."""
    fuses = host_module().depthwise_separable_conv_fuses_backward(dtype_code(torch.bfloat16), p.filters, False)
    x, z, y, _ = (BYTES * count / 1e6 for count in p.elements)
    two, composed, fused, saved = 2 * x + 7 * z + 2 * y, 3 * x + 10 * z + 2 * y, 3 * x + 3 * z + y, 2 * x + 4 * z + y
    ours = f"{fused:.0f} | {saved:.0f} | {two / fused:.1f}x | {-(-p.filters // FILTERS_ONCE)}x" if fuses else " | | | "
    return f"| {name(p)} | {two:.0f} | {composed:.0f} | {ours} | {x + z:.0f} | {x:.0f} |\n"


def row(p: Pair) -> str:
    module, gpu, g = host_module(), explain.machine(GPU), p.geometry
    plan = module.depthwise_separable_conv_plan(
        dtype_code(torch.bfloat16), int(Layout.NHWC), False, module.ConvGeometry(*g), p.filters, gpu
    )
    x, z, y, w = (BYTES * count for count in p.elements)
    two, one = x + 2 * z + y + w, x + y + w
    taps, products = p.products
    peak, memory = module.reached_of_peak, module.reached_of_memory * gpu.memory
    floor = max(one / memory, 2 * products / (peak * gpu.tensor16), 2 * taps / (peak * gpu.fma32))
    rows, columns = plan.tile_shape
    wide = plan.patch_columns
    high = rows // wide
    halo = ((high - 1) * g.stride_h + g.r) * ((wide - 1) * g.stride_w + g.s) / (rows * g.stride_h * g.stride_w)
    times = 1 if plan.keeps else -(-p.filters // columns)
    tile = f"{rows}x{columns}" + (", kept" if plan.keeps else "") + (", wgmma" if plan.wgmma else "")
    return (
        f"| {name(p)} | {two / 1e6:.0f} | {one / 1e6:.0f} | {two / one:.1f}x "
        f"| {2 * products / 1e9:.1f} | {1e6 * floor:.1f} | {tile} | {high}x{wide} | {times}x "
        f"| {times * halo:.1f}x |  |  |\n"
    )


def tables() -> dict[str, str]:
    lines = {"forward": (HEAD, row), "backward": (BACKWARD_HEAD, backward_row)}
    return {name: head + "".join(map(line, pairs())) for name, (head, line) in lines.items()}


def made() -> str:
    page = PAGE.read_text()
    for name, table in tables().items():
        page = output.filled(page, BEGIN.format(name), END, table)
    return page


if __name__ == "__main__":
    output.run(__doc__, PAGE, lambda: "\n".join(tables().values()), made)
