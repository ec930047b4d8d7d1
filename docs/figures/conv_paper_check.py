"""The paper check of docs/conv.md: ten layers' work, floor, tiles and predicted time on one GPU; --write renews it.

python docs/figures/conv_paper_check.py

Nothing is launched. The measured columns are for whoever has that GPU; they are never computed.
"""

from __future__ import annotations

import json
from pathlib import Path

import output

from cnnkernels.cli import explain
from cnnkernels.dtypes import ELEMENTS
from cnnkernels.geometry import Layout
from cnnkernels.ops.checks import conv_geometry
from cnnkernels.tuning.problem import Problem, floor, host_module

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conv.md"
BEGIN, END = (
    "<!-- paper check: docs/figures/conv_paper_check.py writes this -->\n",
    "<!-- end of the paper check -->\n",
)
GPU, BATCH, DTYPE = "h200", 32, "bf16"

# Of benchmarks/workloads.json: a network, and what tells the layer from its others.
LAYERS = (
    ("resnet50", {"C": 3}),
    ("resnet50", {"C": 64, "K": 256}),
    ("resnet50", {"C": 64, "K": 64, "kernel": [3, 3]}),
    ("resnet50", {"C": 128, "stride": [2, 2]}),
    ("resnet50", {"C": 512, "H": 7, "kernel": [3, 3]}),
    ("vgg16", {"C": 3}),
    ("vgg16", {"C": 512, "H": 28}),
    ("unet", {"C": 64, "K": 64}),
    ("deeplabv3_resnet50", {"C": 2048, "dilation": [24, 24]}),
    ("resnext50_32x4d", {"C": 128, "K": 128, "groups": 32}),
)
HEAD = (
    "| layer | GFLOP | MB | floor, us | plan | tiles | waves | predicted, us | measured, us | of the floor |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def problem(network: str, wanted: dict[str, object]) -> Problem:
    """A layer of the workloads as a problem."""
    networks = json.loads((ROOT / "benchmarks" / "workloads.json").read_text())["networks"]
    layers = [layer for layer in networks[network]["layers"] if layer["op"] == "conv2d"]
    layer = next(layer for layer in layers if wanted.items() <= layer.items())
    sides = [pad for pad in layer["padding"] for _ in range(2)]
    size, weight = (BATCH, layer["C"], layer["H"], layer["W"]), (layer["K"], layer["C"] // layer["groups"])
    geometry = conv_geometry(
        size, (*weight, *layer["kernel"]), layer["stride"], sides, layer["dilation"], layer["groups"]
    )
    return Problem("forward", DTYPE, Layout.NHWC, geometry)


def name(network: str, asked: Problem) -> str:
    g = asked.geometry
    extras = [f"stride {g.stride_h}"] * (g.stride_h > 1) + [f"dilation {g.dilation_h}"] * (g.dilation_h > 1)
    extras += [f"groups {g.groups}"] * (g.groups > 1)
    return f"{network.split('_')[0]} {g.r}x{g.s}, {g.c} to {g.k} at {g.h}" + "".join(f", {extra}" for extra in extras)


def row(network: str, asked: Problem) -> str:
    module, gpu = host_module(), explain.machine(GPU)
    found = module.conv_explain(
        module.ConvDirection.forward, ELEMENTS[DTYPE].code, int(asked.layout), False,
        module.ConvGeometry(*asked.geometry), gpu,
    )  # fmt: skip
    part = found.parts[0]
    chosen = explain.chosen_whole(found) or part.candidates[part.chosen]
    plan = repr(chosen.plan).removesuffix(", splits 1")
    return (
        f"| {name(network, asked)} | {asked.operations / 1e9:.1f} | {asked.bytes / 1e6:.0f} "
        f"| {1e6 * floor(asked, gpu).seconds:.1f} | {plan} | {chosen.cost.tiles} | {chosen.cost.waves:.1f} "
        f"| {1e6 * (chosen.cost.seconds + found.copy_seconds):.1f} |  |  |\n"
    )


def table() -> str:
    return HEAD + "".join(row(network, problem(network, wanted)) for network, wanted in LAYERS)


def made() -> str:
    return output.filled(PAGE.read_text(), BEGIN, END, table())


if __name__ == "__main__":
    output.run(__doc__, PAGE, table, made)
