"""Networks of torchvision, timm, segmentation-models, MONAI and transformers, quantized beside PyTorch's own way.

    python tests/quantized_networks.py                             those whose libraries are installed
    python tests/quantized_networks.py --only resnet mobilenet
    python tests/quantized_networks.py --log rows.jsonl            goes on where that file ends
    python tests/quantized_networks.py --log rows.jsonl --write docs/quantized_networks.md

A line a network: layers in INT8, what stays in float and why, and how far the output is from the float model's in
decibels, ours and that of torch.ao.quantization's FX mode with its settings for x86, after the same calibration by four
images of noise. Weights are random, and batch norms have the statistics of a batch: nobody trained these networks.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import cnnkernels
from cnnkernels.quantization.errors import Ratio
from helpers.models.libraries import Network, networks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="PART", help="networks whose names hold one of these")
    parser.add_argument("--log", type=Path, help="a line of JSON a network; those in it are not run again")
    parser.add_argument("--write", type=Path, help="writes the table behind the first heading of that page")
    arguments = parser.parse_args()
    log = arguments.log
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log and log.exists() else []
    done = {(row["library"], row["name"]) for row in rows}
    for network in networks():
        if (network.library, network.name) in done or not chosen(network, arguments.only):
            continue
        rows.append(tried(network))
        print(line(rows[-1]), flush=True)
        if log:
            with log.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    if arguments.write:
        text = arguments.write.read_text()
        arguments.write.write_text(text[: text.index("\n| ")] + "\n" + "\n".join(table(rows)) + "\n")
    return any("error" in row for row in rows)


def chosen(network: Network, only: list[str] | None) -> bool:
    installed = importlib.util.find_spec(network.library.partition(".")[0]) is not None
    return installed and (only is None or any(part in network.name for part in only))


def tried(network: Network) -> dict[str, Any]:
    """What became of a network, in words that JSON knows."""
    row: dict[str, Any] = {"library": network.library, "name": network.name}
    calibration, held = network.images(4, 1), network.images(2, 3)
    try:
        model = network.build()
        began = time.process_time()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            result = cnnkernels.quantize(model, [calibration])
            row["seconds"] = round(time.process_time() - began, 1)
            row["ours"] = decibels(model(held), result.model(held))
    except Exception as error:  # whatever such a library raises: the other networks are run all the same
        return row | {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    row["layers"] = sum(isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)) for part in model.modules())
    row |= {"int8": len(result.quantized), "whole": not result.notes, "notes": list(result.notes)}
    row["kept"] = Counter(f"{kept.layer.partition('(')[0]}: {kept.reason}" for kept in result.kept).most_common()
    try:
        row["theirs"] = decibels(model(held), pytorchs(model, calibration)(held))
    except Exception as error:  # as of code that torch.fx does not follow
        row["theirs"] = type(error).__name__
    return row


def decibels(exact: Any, rounded: Any) -> float:
    ratio = Ratio()
    for a, b in zip(pytree.tree_leaves(exact), pytree.tree_leaves(rounded), strict=True):
        if isinstance(a, Tensor):
            ratio.add(a.detach(), b.detach())
    return round(ratio.decibels(), 1)


def pytorchs(model: nn.Module, calibration: Tensor) -> nn.Module:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("x86"), (calibration,))
        prepared(calibration)
        made: nn.Module = convert_fx(prepared)
    return made


def line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['library']} {row['name']}: {row['error']}"
    beside = f"{row['ours']} dB, PyTorch's {row['theirs']}"
    return f"{row['library']} {row['name']}: {row['int8']} of {row['layers']} layers, {beside}, {row['seconds']} s"


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| network | INT8 layers | of | whole | dB | PyTorch's dB | CPU-seconds | in float |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in sorted(rows, key=lambda row: (row["library"], row["name"])):
        name = f"{row['library'].partition('.')[0]} {row['name']}"
        if "error" in row:
            yield f"| {name} | | | | | | | {row['error']} |"
            continue
        whole = "yes" if row["whole"] else "in parts"
        theirs = row["theirs"] if isinstance(row["theirs"], float) else "not converted"
        kept = "; ".join(f"{count} {what}" for what, count in row["kept"])
        cells = row["int8"], row["layers"], whole, row["ours"], theirs, row["seconds"], kept
        yield f"| {name} | {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
