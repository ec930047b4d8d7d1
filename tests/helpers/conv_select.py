"""What selection says of conv2d's layers, those of well-known networks among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from helpers.conv import ELEMENTS, ConvRunner

WORKSPACE_LIMIT = 256 * 2**20
WORKLOADS = json.loads((Path(__file__).parent.parent.parent / "benchmarks" / "workloads.json").read_text())["networks"]
GPUS = ["a100", "h200", "rtx3090"]


def workload_cases(network: str) -> list[ConvCase]:
    """Every convolution of a network, at batch 32."""
    return [
        ConvCase(
            f"{network} {layer['C']} {layer['H']} {layer['K']} {layer['kernel']}", 32, layer["C"], layer["H"],
            layer["W"], layer["K"], *layer["kernel"], tuple(layer["stride"]),
            tuple(pad for pad in layer["padding"] for _ in range(2)), tuple(layer["dilation"]), layer["groups"],
        )
        for layer in WORKLOADS[network]["layers"]
        if layer["op"] == "conv2d"
    ]  # fmt: skip


def explain(
    runner: ConvRunner, direction: str, case: ConvCase, layout: Layout, element: str, gpu: str, tuned: Any = None
) -> Any:
    _, dtype, tf32 = ELEMENTS[element]
    m = runner.module
    which = getattr(m.ConvDirection, direction)
    return m.conv_explain(which, dtype, int(layout), tf32, runner.geometry(case), m.gpu_named(gpu), tuned)
