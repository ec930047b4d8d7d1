"""`cnnkernels tune`: times on the GPU at hand what can serve a network's calls, or a convolution's plans, and keeps who
wins in a table that `auto` and the kernels follow (cnnkernels/records/tuned.py)."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import backends, visualize
from ..convert.tune import tune
from ..dtypes import PRODUCTS
from ..geometry import ConvGeometry, Layout
from ..ops.checks import conv_geometry
from ..records import tuned
from ..tuning.plans import Stopwatch, best_plans
from ..tuning.problem import Problem, machine
from .arguments import positive, there, writable
from .summary import model_of


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options beside those that name a convolution."""
    layers = "conv2d's layers, as benchmarks/workloads.json of a checkout has them"
    parser.add_argument("--shapes", type=there, metavar="FILE", help=layers)
    parser.add_argument("--batch", type=positive, default=32, help="of the layers of --shapes (default: %(default)s)")
    parser.add_argument("--inference", action="store_true", help="of a network: no gradients, in evaluation mode")
    parser.add_argument("--picture", type=writable, metavar="FILE", help="of a network: a picture of it as well")
    parser.add_argument("--merge", nargs="+", metavar="FILE", help="time nothing: make one table of several")
    cached = "the table to add to (default: the GPU's in the cache directory, which is always read)"
    parser.add_argument("--output", type=writable, metavar="FILE", help=cached)


def layers(path: Path, batch: int, directions: Sequence[str], dtype: str, layout: Layout) -> list[Problem]:
    """The convolutions of a file of networks' layers, each distinct one once."""
    found: dict[Problem, None] = {}
    for network in json.loads(path.read_text())["networks"].values():
        for layer in network["layers"]:
            if layer["op"] == "conv2d":
                geometry = _geometry(layer, batch)
                found |= {Problem(direction, dtype, layout, geometry): None for direction in directions}
    return list(found)


def _geometry(layer: dict[str, Any], batch: int) -> ConvGeometry:
    sides = [pad for pad in layer["padding"] for _ in range(2)]
    input_size = (batch, layer["C"], layer["H"], layer["W"])
    weight_size = (layer["K"], layer["C"] // layer["groups"], *layer["kernel"])
    return conv_geometry(input_size, weight_size, layer["stride"], sides, layer["dilation"], layer["groups"])


def merge(paths: Sequence[str], output: str | None) -> int:
    """Makes one table of several; 2, with the reason, where they do not belong together."""
    try:
        table = tuned.merge([tuned.load(Path(path)) for path in paths])
    except (ValueError, OSError) as error:
        print(f"cnnkernels tune: {error}", file=sys.stderr)
        return 2
    path = Path(output) if output else tuned.cached_path(table.gpu)
    tuned.save(table, path)
    print(f"{len(table.rows)} plans and {len(table.choices)} choices of {table.gpu} in {path}")
    return 0


def run(problems: list[Problem] | None, args: argparse.Namespace) -> int:
    """Tunes and writes the table; 2, with the reason, where nothing can be timed."""
    if not torch.cuda.is_available():
        print("cnnkernels tune: it times kernels on a GPU, and PyTorch finds none here", file=sys.stderr)
        return 2
    return network(args, "cuda") if args.what != "conv2d" else _convolutions(problems, args)


def network(args: argparse.Namespace, device: str) -> int:
    """Tunes a network; 2, with the reason, where no input is named.

    Raises:
        ValueError: there is no such model.
    """
    if not args.input:
        print("cnnkernels tune: give an input of the network (--input)", file=sys.stderr)
        return 2
    memory = Layout[args.layout.upper()].memory_format if args.layout else torch.preserve_format
    model = model_of(args.what).train(not args.inference).to(device=device, memory_format=memory)  # type: ignore[call-overload]
    if args.dtype:
        dtype, tf32 = PRODUCTS[args.dtype]
        model = model.to(dtype)
        if dtype is torch.float32:
            torch.backends.cudnn.conv.fp32_precision = "tf32" if tf32 else "ieee"  # type: ignore[attr-defined]
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    inputs = []
    for sizes in args.input:
        made = torch.randn(*sizes, device=device, dtype=dtype)
        inputs.append(made.to(memory_format=memory) if made.dim() == 4 else made)
    found = tune(model, tuple(inputs), path=args.output, say=print)
    print(found)
    if args.picture is not None:
        visualize.draw_tuning(found).savefig(args.picture)
        print(f"wrote {args.picture}")
    return 0


def _convolutions(problems: list[Problem] | None, args: argparse.Namespace) -> int:
    if problems is None:
        if args.shapes is None:
            print(
                "cnnkernels tune: name a convolution (--input, --weight) or a file of them (--shapes)", file=sys.stderr
            )
            return 2
        layout, directions = Layout[(args.layout or "nhwc").upper()], args.direction or tuned.DIRECTIONS
        problems = layers(Path(args.shapes), args.batch, directions, args.dtype or "bf16", layout)
    name = torch.cuda.get_device_name()
    problem = backends.problem_on("conv2d", torch.device("cuda"), PRODUCTS[args.dtype or "bf16"][0])
    why_not = backends.why_not if args.backend else backends.why_not_taken  # by name they need not be certified
    able = []
    for backend in args.backend or backends.KERNEL_BACKENDS:
        if why := why_not(backend, problem):
            print(f"{backend} is left out: {why}")
        else:
            able.append(backend)
    rows = best_plans(problems, able, machine(None), Stopwatch())
    path = Path(args.output) if args.output else tuned.cached_path(name)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    tuned.add(tuned.Table(name, date, tuned.versions(), tuple(rows)), path)
    print(f"{len(rows)} rows in {path}" + f"; the kernels read it where CNNKERNELS_TUNED={path}" * bool(args.output))
    return 0
