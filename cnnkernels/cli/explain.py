"""`cnnkernels explain`: what a convolution costs, which kernel serves it on a GPU, and why; nothing is launched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from .. import backends as choice
from .. import certified
from ..dtypes import ELEMENTS
from ..native import load
from ..ops.depthwise_conv import is_depthwise
from ..records import tuned
from ..tuning.problem import (
    Floor,
    Problem,
    chosen_whole,
    depthwise_problem,
    floor,
    host_module,
    machine,
    triton_problem,
)


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:.1f}"


def describe(problem: Problem, gpu: Any) -> Iterator[str]:
    """Sizes, work and floor."""
    g, f = problem.geometry, floor(problem, gpu)
    layout, what = problem.layout.name.lower(), problem.direction
    yield (
        f"conv2d {what}, {problem.dtype}, {layout}, on {gpu.name} (compute capability {gpu.architecture // 10}."
        f"{gpu.architecture % 10}, {gpu.processors} SMs)"
    )
    sizes = (problem.input_size, problem.weight_size, problem.output_size)
    yield "  input {}, weight {}, output {}".format(*(list(size) for size in sizes))
    yield (
        f"  stride {(g.stride_h, g.stride_w)}, padding before {(g.pad_h, g.pad_w)}"
        + (f" ({g.padding_mode.name.lower()})" if g.padding_mode else "")
        + f", dilation {(g.dilation_h, g.dilation_w)}, groups {g.groups}"
    )
    yield (
        f"  {problem.operations / 1e9:.2f} GFLOP on {problem.bytes / 1e6:.1f} MB, each tensor once: "
        f"{problem.operations / problem.bytes:.0f} a byte"
    )
    yield f"  floor {_micro(f.seconds)} us: {_bound(f)}"


def _bound(f: Floor) -> str:
    module = host_module()
    return (
        f"arithmetic {_micro(f.arithmetic)} us at {f.rate / 1e12:.1f} TFLOP/s, "
        f"memory {_micro(f.memory)} us at {f.bandwidth / 1e12:.2f} TB/s (assumed: "
        f"{module.reached_of_peak:.0%} and {module.reached_of_memory:.0%} of the data sheet's)"
    )


def _cost_line(candidate: Any, mark: str) -> str:
    c = candidate.cost
    numbers = (c.arithmetic, c.operands, c.filling, c.writing, c.memory, c.seconds)
    return (
        f"  {mark} {candidate.plan!r:<56}{c.tiles:>8}{c.waves:>8.2f}{c.useful:>8.0%}"
        + "".join(f"{_micro(x):>10}" for x in numbers)
        + f"  {bound(c)}"
    )  # fmt: skip


def bound(cost: Any) -> str:
    """What the model says a plan is held up by: tensor, shared (memory), issue (of instructions), L2 or DRAM; or
    latency, where filling pipelines and writing tiles takes more than any of them."""
    limits = {cost.limit: cost.arithmetic, "L2": cost.operands, "latency": cost.filling + cost.writing}
    limits["DRAM"] = cost.memory
    return max(limits, key=lambda name: limits[name])


_HEAD = (
    f"    {'plan':<56}{'tiles':>8}{'waves':>8}{'useful':>8}"
    + "".join(f"{name:>10}" for name in ("arithm.", "operands", "filling", "writing", "memory", "total us"))
    + "  bound"
)


def _ranked(candidates: list[Any], chosen: int) -> Iterator[str]:
    """Those that can serve by their cost, then the others with their reasons."""
    best = candidates[chosen] if chosen >= 0 else None
    able = [c for c in candidates if c.why_not is None]
    for candidate in sorted(able, key=lambda c: c.cost.seconds):
        yield _cost_line(candidate, "*" if best is not None and candidate.plan == best.plan else " ")
    refused: dict[str, list[str]] = {}
    for candidate in candidates:
        if candidate.why_not is not None:
            engine, _, rest = repr(candidate.plan).partition(" ")
            refused.setdefault(candidate.why_not, []).append(f"{engine} {rest.partition(',')[0]}")
    for reason, names in refused.items():
        yield f"    not {', '.join(names)}: {reason}"


def _loaders(name: str, loaders: list[tuple[Any, str | None]]) -> str:
    """The loader that serves an operand, and why those before it do not."""
    refused: list[str] = []
    for loader, why in loaders:
        words = loader.name.replace("_", " ")
        if why is None:
            how = "one element at a time" if words == "elements" else f"in 16 bytes {words}"
            return f"    {name} is loaded {how}" + "".join(f"; not {text}" for text in refused)
        refused.append(f"{words}: {why}")
    raise AssertionError("unreachable: one element at a time can always be loaded")


def explain_cuda(problem: Problem, gpu: Any) -> Iterator[str]:
    """The candidates of csrc/conv/select.h, grouped/select.h and sm90/select.h, their costs and the choice."""
    module = host_module()
    direction = getattr(module.ConvDirection, problem.direction)
    geometry = module.ConvGeometry(*problem.geometry)
    _, _, dtype, tf32 = ELEMENTS[problem.dtype]
    preferred = _preferred(problem, gpu)
    found = module.conv_explain(direction, dtype, int(problem.layout), tf32, geometry, gpu, preferred)
    yield f"cuda: {_choice_of_cuda(found)}"
    yield from _packing(found)
    before = chosen_whole(found)
    for engine in ("grouped", "wgmma"):
        if candidates := getattr(found, engine):
            yield _HEAD
            yield from _ranked(candidates, getattr(found, f"chosen_{engine}"))
        else:
            yield f"    not {engine}: {getattr(found, f'why_not_{engine}')}"
    seen: dict[str, int] = {}
    for number, part in enumerate(found.parts):
        size = f"{part.rows} x {part.columns} outputs, depth {part.depth}, groups {part.groups}"
        if size in seen:  # phases of a stride mostly repeat each other
            yield f"  implicit GEMM {number}: as {seen[size]}"
            continue
        seen[size] = number
        yield f"  implicit GEMM {number}: {size}" + (f" ({before.plan.engine.name} goes before it)" if before else "")
        yield _loaders("A", part.a)
        yield _loaders("B", part.b)
        yield _HEAD
        yield from _ranked(part.candidates, -1 if before else part.chosen)


def explain_depthwise(problem: Problem, gpu: Any, backend: str) -> Iterator[str]:
    """The plan of csrc/depthwise_conv/select.h, or of depthwise_conv/select.py."""
    serves = f"{backend}: depthwise_conv2d's kernels serve a filter a channel, with the plan"
    if backend == "cuda":
        module = host_module()
        direction = getattr(module.DepthwiseConvDirection, problem.direction)
        numbers = ELEMENTS[problem.dtype].code, int(problem.layout), module.ConvGeometry(*problem.geometry)
        yield f"{serves} '{module.depthwise_conv_plan(direction, *numbers)!r}'"
        return
    from ..triton_kernels.depthwise_conv import select

    asked = depthwise_problem(problem, gpu.architecture)
    if chosen := select.choose(asked):
        yield f"{serves} '{chosen[0]}'"
        return
    yield "triton: no patch of depthwise_conv2d's kernels can serve, so conv2d's do"
    yield from explain_triton(problem, gpu)


def _packing(found: Any) -> Iterator[str]:
    """Whether tensors are copied first into memory that the fast kernels read, and what was weighed."""
    if found.packing.name != "none":
        yield (
            f"    packed {found.packing.name} (csrc/conv/packing/packing.h), as they lie {found.why_packed}: copies "
            f"move {found.copy_bytes / 1e6:.1f} MB in {found.copy_launches} launches, {_micro(found.copy_seconds)} us"
        )
    judged = {"gathered": found.judged_none, "channels": found.judged_channels, "rows": found.judged_rows}
    if found.judged_none > 0:
        weighed = ", ".join(f"{name} {_micro(seconds)} us" for name, seconds in judged.items() if seconds > 0)
        yield f"    the rule weighs, at a batch of 32, whatever the batch is: {weighed}"


def _choice_of_cuda(found: Any) -> str:
    how = "measured to be the fastest (a tuned table)" if found.tuned else "the least time by the model"
    if whole := chosen_whole(found):
        return f"{whole.plan!r}, {how}: {_micro(whole.cost.seconds + found.copy_seconds)} us"
    chosen = [part.candidates[part.chosen] for part in found.parts]
    seconds = sum(c.cost.seconds for c in chosen) + found.copy_seconds
    plans = list(dict.fromkeys(repr(c.plan) for c in chosen))
    phases = f" in {len(chosen)} launches" if len(chosen) > 1 else ""
    return f"{'; '.join(plans)}{phases}, {how}: {_micro(seconds)} us"


def _preferred(problem: Problem, gpu: Any) -> Any | None:
    """The tuned plan of a problem on a GPU, if one was measured."""
    name = _driver_name(gpu)
    key = tuned.key(problem.direction, problem.dtype, problem.layout, problem.geometry)
    fields = tuned.plans(name, "cuda", gpu.wgmma).get(key)
    return fields and load("interpreter").plan(fields, binding=False)


def _driver_name(gpu: Any) -> str:
    """What a machine's driver calls it, as far as a tuned table tells."""
    return next((name for name in tuned.gpus() if gpu.device in name), "")


def explain_triton(problem: Problem, gpu: Any) -> Iterator[str]:
    """The configurations of conv/select.py, their relative costs and the choice."""
    from ..triton_kernels.conv import select

    name = _driver_name(gpu)
    asked = triton_problem(problem, name, gpu.architecture)
    chosen = select.choose(asked)
    considered = select.considered(asked)
    feasible = [c for c, able in considered if able]
    if chosen.direct:
        yield f"triton: {_configuration(chosen)}: multiply and add, as a group is too narrow for a matrix product"
        return
    costs = {c: select.cost(asked, c) for c in feasible}
    measured = tuned.plans(name, "triton") and chosen not in costs
    how = "measured to be the fastest (a tuned table)" if measured else "the least cost by the model"
    yield f"triton: {_configuration(chosen)}, {how}"
    yield f"    {'configuration':<72}{'cost':>8}"
    least = min(costs.values(), default=1.0)
    for configuration, cost in sorted(costs.items(), key=lambda item: item[1]):
        mark = "*" if configuration == chosen else " "
        yield f"  {mark} {_configuration(configuration):<72}{cost / least:>7.2f}x"
    for configuration, able in considered:
        if not able:
            yield f"    not {_configuration(configuration)}: it would not fit the registers or shared memory"


def _configuration(c: Any) -> str:
    block = f"{c.block_m}x{c.block_n}" + ("" if c.direct else f"x{c.block_k}")
    flat = f", taps flattened with {c.flat} channels" if c.flat else ""
    splits = f", splits {c.splits}" if c.splits > 1 else ""
    return f"{'elementwise' if c.direct else 'dot'} {block}, {c.warps} warps, {c.stages} stages{flat}{splits}"


def _border(problem: Problem, gpu: Any, backend: str) -> tuple[str, Problem]:
    """What a backend does about the border of a padding mode, and what is then left to its convolution."""
    g, module = problem.geometry, host_module()
    size = (g.p - 1) * g.stride_h + (g.r - 1) * g.dilation_h + 1, (g.q - 1) * g.stride_w + (g.s - 1) * g.dilation_w + 1
    without = problem._replace(geometry=g.on_padded_image(*size))
    if problem.direction == "backward_input":
        return "its border is folded back after the gradient of the padded image", without
    if is_depthwise(g):
        why = "depthwise_conv2d's kernels pad with zeros alone"
    elif backend == "triton":
        from ..triton_kernels.conv.launch import why_copy_border

        why = why_copy_border(triton_problem(problem, _driver_name(gpu), gpu.architecture))
    else:
        _, _, dtype, tf32 = ELEMENTS[problem.dtype]
        why = module.conv_why_copy_border(
            getattr(module.ConvDirection, problem.direction), dtype, int(problem.layout), tf32,
            module.ConvGeometry(*g), gpu=gpu,
        )  # fmt: skip
    return (f"the border is copied first: {why}", without) if why else ("the border is read through the index", problem)


def explain(problem: Problem, gpu: Any, backends: tuple[str, ...] = ("cuda", "triton")) -> Iterator[str]:
    """The whole explanation, line by line."""
    yield from describe(problem, gpu)
    if problem.is_empty:
        yield "  no kernel: input or output has no element"
        return
    for backend in backends:
        yield ""
        asked = problem
        if problem.geometry.padding_mode:
            line, asked = _border(problem, gpu, backend)
            yield f"{backend}: {line}"
        if is_depthwise(problem.geometry):
            yield from explain_depthwise(asked, gpu, backend)
        else:
            yield from explain_cuda(asked, gpu) if backend == "cuda" else explain_triton(asked, gpu)


def who_serves(problem: Problem, device: torch.device) -> str:
    """The choice of "auto" there, and what is certified."""
    return str(choice.choose(choice.problem_on("conv2d", device, ELEMENTS[problem.dtype].dtype), "auto"))


def run(problems: Iterable[Problem], gpu: str | None, backends: tuple[str, ...]) -> int:
    """Prints it for each; always 0."""
    device = None  # the GPU at hand, where it is the one that is explained
    if gpu is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        certified.certificate(device)  # engines that failed there give way
    at = machine(gpu)
    for number, problem in enumerate(problems):
        if device is not None:
            print("\n" * (number > 0) + who_serves(problem, device))
        print("\n" * (number > 0) + "\n".join(explain(problem, at, backends)))
    return 0
