"""`cnnkernels tune`: times every plan that can serve a convolution on the GPU at hand, writes a table of the winners.

The table (cnnkernels/records/tuned.py) has a row where a plan beat the cost model's choice by more than `MARGIN`;
elsewhere the model's choice stands, and no row hides a later, better model.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..dtypes import ELEMENTS, PRODUCTS
from ..geometry import ConvGeometry, Layout
from ..ops.checks import conv_geometry
from ..ops.depthwise_conv import is_depthwise
from ..records import tuned
from . import explain
from .problem import Problem, host_module, triton_problem

# A plan must be faster than the model's choice by this factor: timings of one kernel scatter by a percent or two.
MARGIN = 1.03
REPETITIONS = 20

# (problem, backend, the plan's fields) -> microseconds
Timer = Callable[[Problem, str, dict[str, Any]], float]


def cuda_plans(problem: Problem, gpu: Any) -> Iterator[dict[str, Any]]:
    """The plans that can serve every part of a problem, the model's choice for the first part first."""
    module = host_module()
    element = ELEMENTS[problem.dtype]
    found = module.conv_explain(
        getattr(module.ConvDirection, problem.direction),
        element.code,
        int(problem.layout),
        element.tf32,
        module.ConvGeometry(*problem.geometry),
        gpu,
    )
    parts = [{repr(c.plan): c.plan for c in part.candidates if c.why_not is None} for part in found.parts]
    common = [plan for name, plan in parts[0].items() if all(name in part for part in parts)]
    able = [c.plan for c in [*found.grouped, *found.wgmma] if c.why_not is None] + common
    chosen = explain.chosen_whole(found) or found.parts[0].candidates[found.parts[0].chosen]
    for plan in sorted(able, key=lambda plan: plan != chosen.plan):
        yield {
            "engine": plan.engine.name, "tile": list(plan.tile_shape), "a": plan.a.name, "b": plan.b.name,
            "splits": plan.splits, "packing": plan.packing.name,
        }  # fmt: skip


def triton_plans(problem: Problem, gpu: Any) -> Iterator[dict[str, Any]]:
    """The feasible configurations, the model's choice first; none for elementwise kernels, which have but one."""
    from ..triton_kernels.conv import select

    asked = triton_problem(problem, "", gpu.architecture)
    chosen = select.choose(asked)
    for c in sorted(select.candidates(asked), key=lambda c: c != chosen):
        if not c.direct:
            yield {"block": [c.block_m, c.block_n, c.block_k], "warps": c.warps, "stages": c.stages}


PLANS = {"cuda": cuda_plans, "triton": triton_plans}


def why_not(problem: Problem) -> str:
    """Why a problem has no plans to choose from; empty where it has."""
    if problem.is_empty:
        return "input or output has no element"
    if is_depthwise(problem.geometry):
        return "depthwise_conv2d's kernels serve it, which have no table"
    return ""


def tune(
    problems: Iterable[Problem], names: Sequence[str], gpu: Any, time: Timer, say: Callable[[str], None] = print
) -> list[tuned.Row]:
    """The rows of a table.

    Args:
        problems: what to tune.
        names: the backends, of "cuda" and "triton".
        gpu: the machine, of csrc/common/gpu.h, that selection takes it for.
        time: how long a plan takes on it; infinity for one that fails.
        say: takes a line for each problem and backend.
    """
    rows = []
    for problem in problems:
        if why := why_not(problem):
            say(f"{problem.direction} {problem.dtype} {list(problem.input_size)} {list(problem.weight_size)}: {why}")
            continue
        for name in names:
            plans = list(PLANS[name](problem, gpu))
            if len(plans) < 2:
                continue
            taken = [time(problem, name, plan) for plan in plans]
            best = min(range(len(plans)), key=taken.__getitem__)
            what = f"{name} {problem.direction} {problem.dtype} {list(problem.input_size)} {list(problem.weight_size)}"
            say(f"{what}: {len(plans)} plans, the model's {taken[0]:.1f} us, the best {taken[best]:.1f} us")
            if taken[0] > MARGIN * taken[best] and math.isfinite(taken[best]):
                rows.append(_row(problem, name, plans[best], taken[best], taken[0]))
    return rows


def _row(problem: Problem, backend: str, plan: dict[str, Any], best: float, selected: float) -> tuned.Row:
    geometry = problem.geometry if backend == "cuda" else triton_problem(problem, "", 90).geometry
    fields = tuned.geometry_fields(problem.direction, geometry)
    layout = problem.layout.name.lower()
    return tuned.Row(
        backend, problem.direction, problem.dtype, layout, fields, plan, round(best, 2), round(selected, 2)
    )  # fmt: skip


class Stopwatch:
    """The median time of a plan on the current CUDA device, in microseconds, with a cold L2."""

    def __init__(self) -> None:
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")

    def __call__(self, problem: Problem, backend: str, plan: dict[str, Any]) -> float:
        launch = _launch(problem, backend, plan)
        try:
            for _ in range(3):
                launch()
        except (RuntimeError, ValueError) as error:  # a plan that does not fit this GPU is no candidate for its table
            print(f"  {plan} fails: {error}", file=sys.stderr)
            return math.inf
        taken = []
        for _ in range(REPETITIONS):
            self.flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            launch()
            end.record()
            end.synchronize()
            taken.append(1e3 * start.elapsed_time(end))
        return statistics.median(taken)


def _launch(problem: Problem, backend: str, plan: dict[str, Any], device: str = "cuda") -> Callable[[], None]:
    """One launch of a plan on random tensors."""
    dtype, tf32 = PRODUCTS[problem.dtype]
    memory = problem.layout.memory_format

    def random(size: tuple[int, ...]) -> Tensor:
        return torch.randn(size, device=device, dtype=dtype).contiguous(memory_format=memory)

    x, w, y = (random(size) for size in (problem.input_size, problem.weight_size, problem.output_size))
    operands: dict[str, tuple[Any, ...]] = {
        "forward": (x, w, None, y), "backward_input": (y, w, x), "backward_weight": (y, x, w)
    }  # fmt: skip
    kernels = backends.kernels(backend, device)
    function = getattr(kernels, f"conv_{problem.direction}")
    arguments = (*operands[problem.direction], problem.geometry, problem.layout, tf32)
    if backend == "cuda":
        bound = kernels.plan(plan)
        return lambda: function(*arguments, plan=bound)
    from ..triton_kernels.conv import select

    asked = triton_problem(problem, "", 90)
    configuration = select.sized(asked, tuple(plan["block"]), plan["warps"], plan["stages"])
    return lambda: function(*arguments, configuration=configuration)


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


def run(problems: list[Problem] | None, args: argparse.Namespace) -> int:
    """Tunes and writes the table; 2, with the reason, where nothing can be timed."""
    if not torch.cuda.is_available():
        print("cnnkernels tune: it times kernels on a GPU, and PyTorch finds none here", file=sys.stderr)
        return 2
    if problems is None:
        if args.shapes is None:
            print(
                "cnnkernels tune: name a convolution (--input, --weight) or a file of them (--shapes)", file=sys.stderr
            )
            return 2
        layout = Layout[args.layout.upper()]
        problems = layers(Path(args.shapes), args.batch, args.direction or tuned.DIRECTIONS, args.dtype, layout)
    name = torch.cuda.get_device_name()
    able = [backend for backend in args.backend or ("cuda", "triton") if backend in backends.available_backends("cuda")]
    rows = tune(problems, able, explain.machine(None), Stopwatch())
    path = Path(args.output or f"{name.lower().replace(' ', '-')}.json")
    tuned.save(tuned.Table(name, datetime.date.today().isoformat(), versions(), tuple(rows)), path)
    print(f"{len(rows)} rows in {path}; the kernels read it where CNNKERNELS_TUNED={path}")
    return 0


def versions() -> dict[str, str]:
    """What a measurement depends on."""
    found = {name: importlib.metadata.version(name) for name in ("cnnkernels", "torch")}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["triton"] = importlib.metadata.version("triton")
    return found | {"cuda": torch.version.cuda or "none"}
