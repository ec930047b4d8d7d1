"""The plans that can serve a convolution, timed on the GPU at hand: the winners are rows of a table.

There is a row (cnnkernels/records/tuned.py) where a plan beat the cost model's choice by more than `MARGIN`; elsewhere
the model's choice stands, and no row hides a later, better model.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..dtypes import ELEMENTS, PRODUCTS
from ..ops.depthwise_conv import is_depthwise
from ..records import tuned
from .problem import Problem, chosen_whole, host_module, triton_problem

# A plan must be faster than the model's choice by this factor: timings of one kernel scatter by a percent or two.
MARGIN = 1.03
REPETITIONS = 20

# (problem, backend, the plan's fields) -> microseconds
PlanTimer = Callable[[Problem, str, dict[str, Any]], float]


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
    chosen = chosen_whole(found) or found.parts[0].candidates[found.parts[0].chosen]
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


def best_plans(
    problems: Iterable[Problem], names: Sequence[str], gpu: Any, time: PlanTimer, say: Callable[[str], None] = print
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
        launch = launch_of(problem, backend, plan)
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


def launch_of(problem: Problem, backend: str, plan: dict[str, Any], device: str = "cuda") -> Callable[[], None]:
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
