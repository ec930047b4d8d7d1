"""Times the calls of a model's layers, backend beside backend, and keeps the winners."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import backends
from ..records import tuned
from ..records.choice import Choice
from . import plans
from .calls import FORMATS, Found, find, step, tensors_of, unchanged
from .candidates import (
    Asked,
    Make,
    Timer,
    cudnn_benchmark,
    directions_of,
    fastest,
    make_of,
    names_for,
    not_certified,
    problems_of,
    served_in_training,
    timed_on_gpu,
)
from .problem import machine


@dataclass(frozen=True)
class Line:
    """A call of a step: its layers, and microseconds of all its directions once.

    Attributes:
        layout: of its images, where they were laid out anew; "" as the model has them.
        reference: PyTorch's own operator's; None where it failed.
        ours: of the fastest backend of ours; None where none can serve or all failed.
        chosen: as the winners take them together.
        winner: who serves the call from now on; None where nothing could be timed.
        failed: why a backend has no times.
    """

    layers: tuple[str, ...]
    what: str
    layout: str
    reference: float | None
    ours: float | None
    chosen: float | None
    winner: str | None
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuning:
    """What was measured; printable. `step`: microseconds of a whole step by PyTorch's own operators."""

    gpu: str
    training: bool
    lines: tuple[Line, ...]
    others: tuple[Line, ...]
    step: float | None
    path: Path | None

    def total(self, what: str, layout: str = "") -> float:
        """Of "reference" or "chosen": microseconds of all calls of a step, of those that have both times."""
        lines = self.lines if layout == "" else [line for line in self.others if line.layout == layout]
        both = [line for line in lines if line.reference is not None and line.chosen is not None]
        return sum(len(line.layers) * getattr(line, what) for line in both)

    @property
    def gain(self) -> float:
        """Microseconds that a step is expected to be shorter by."""
        return self.total("reference") - self.total("chosen")

    def __str__(self) -> str:
        rows = [("layer", "call", "PyTorch us", "ours us", "winner")]
        for line in self.lines:
            layers = line.layers[0] + (f" and {len(line.layers) - 1} more" if len(line.layers) > 1 else "")
            rows.append((layers, line.what, _us(line.reference), _us(line.ours), line.winner or "nobody"))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        text = [
            f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
            for a, b, c, d, e in rows
        ]
        for line in self.lines:
            text += [f"  {line.layers[0]}: {name} is left out: {why}" for name, why in line.failed.items()]
        kind = "a training step" if self.training else "a forward pass"
        text.append(
            f"on {self.gpu} these calls of {kind} take PyTorch {self.total('reference'):.1f} us, as chosen "
            f"{self.total('chosen'):.1f} us"
        )
        if self.step:
            share = f"{self.gain / self.step:.1%}"
            text.append(f"a whole step takes PyTorch {self.step:.1f} us; expected to become {share} shorter")
        for layout in FORMATS:
            if any(line.layout == layout for line in self.others):
                reference, chosen = self.total("reference", layout), self.total("chosen", layout)
                text.append(f"all {layout} they would take PyTorch {reference:.1f} us, as chosen {chosen:.1f} us")
        if self.path is not None:
            text.append(f"kept in {self.path}; `auto` follows it")
        return "\n".join(text)


def _us(time: float | None) -> str:
    return "-" if time is None else f"{time:.1f}"


def tune_layers(
    model: nn.Module,
    example: Any,
    training: bool | None = None,
    path: Path | None = None,
    timer: Timer | None = None,
    plan_timer: plans.PlanTimer | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Tuning:
    """Times the calls of a model's layers of `cnnkernels.nn`; the arguments are `cnnkernels.tune`'s.

    Args:
        timer, plan_timer: what takes the time of calls and of plans; None for the GPU's. With a timer of the caller's
            plans are timed where `plan_timer` is given, too.

    Raises:
        ValueError: no layer makes a call that "auto" would serve, or the calls are not on a GPU.
    """
    training = model.training if training is None else training
    found = find(model, example, training)
    if not found:
        raise ValueError(
            "tune: no layer of the model that follows `auto` made a call: layers with a backend of their own and "
            "models under torch.compile do not"
        )
    device = found[0].device
    if timer is None and device.type != "cuda":
        raise ValueError(
            f"tune: it times kernels on a GPU, but the model's tensors are on {device.type}: move the model and "
            "example_input to a CUDA device"
        )
    gpu = tuned.gpu_name(device)
    path = path or tuned.cached_path(gpu)
    if timer is None:
        timer, plan_timer = timed_on_gpu, plan_timer or plans.Stopwatch()
    variants = [*found, *_laid_out(found)]
    rows: list[tuned.Row] = []
    measured: dict[Any, Choice] = {}
    with cudnn_benchmark(), _current(device):
        try:
            if plan_timer is not None:
                rows = _best_plans(variants, training, plan_timer, say)
                tuned.use(_table(gpu, rows, ()))
            for one in variants:
                if one.name not in measured:
                    say(_named(one))
                    measured[one.name] = _measure(one, training, timer)
            whole = _step(model, example, training, device, timer)
        finally:
            choices = tuple(choice for choice in measured.values() if choice.inference or choice.training)
            if rows or choices:
                table = _table(gpu, rows, choices)
                tuned.add(table, path)
                tuned.use(table)
    lines = [_line(one, measured[one.name]) for one in variants]
    return Tuning(gpu, training, tuple(lines[: len(found)]), tuple(lines[len(found) :]), whole, path)


def _current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _laid_out(found: list[Found]) -> list[Found]:
    """The calls in each layout; those without images have none."""
    images = [one for one in found if one.arguments[0].dim() == 4]
    return [one.laid_out(layout) for layout in FORMATS for one in images]


def _table(gpu: str, rows: list[tuned.Row], choices: tuple[Choice, ...]) -> tuned.Table:
    return tuned.Table(gpu, _now(), tuned.versions(), tuple(rows), choices)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def _best_plans(
    found: list[Found], training: bool, time: plans.PlanTimer, say: Callable[[str], None]
) -> list[tuned.Row]:
    problems = {problem: None for one in found for problem in problems_of(one, directions_of(one, training))}
    able = [name for name in backends.KERNEL_BACKENDS if any(name in names_for(one) for one in found)]
    return plans.best_plans(problems, able, machine(None), time, say)


def _measure(found: Found, training: bool, timer: Timer) -> Choice:
    """One call's times. A backend that fails in any direction is left out, with the reason."""
    names = names_for(found)
    failed = not_certified(found)
    times: dict[str, dict[str, float]] = {}
    for direction, wanted in directions_of(found, training).items():
        makes = {}
        for name in names:
            make = make_of(found, name, wanted)
            if name not in failed and not _fails(name, make, found.device, failed):
                makes[name] = make
        if makes:
            asked = Asked(found.operator, direction, found, found.bytes)
            times[direction] = {name: float(taken) for name, taken in timer(asked, makes).items()}
    for by_backend in times.values():
        for name in failed:
            by_backend.pop(name, None)
    return Choice(
        found.operator,
        found.key,
        fastest(times.get("forward", {})),
        served_in_training(found, times),
        {direction: {name: round(taken, 2) for name, taken in by.items()} for direction, by in times.items()},
        failed,
        _now(),
    )


def _fails(name: str, make: Make, device: torch.device, failed: dict[str, str]) -> bool:
    try:
        make(0)()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except Exception as error:  # whatever a kernel says: it is no candidate here
        failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return True
    return False


def _step(model: nn.Module, example: Any, training: bool, device: torch.device, timer: Timer) -> float | None:
    """Microseconds of a whole step by PyTorch's own operators; None where they cannot be taken."""

    def make(_: int) -> Callable[[], None]:
        def work() -> None:
            with backends.use_backend("reference"):
                step(model, example, training)

        return work

    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *tensors_of(example)])
    failed: dict[str, str] = {}
    with unchanged(model):
        if _fails("reference", make, device, failed):
            return None
        return timer(Asked("model", "step", None, size), {"reference": make}).get("reference")


def _line(found: Found, choice: Choice) -> Line:
    times = choice.microseconds
    names = [name for name in names_for(found) if times and all(name in by for by in times.values())]
    totals = {name: sum(by[name] for by in times.values()) for name in names}
    winner = choice.training if len(times) > 1 else choice.inference
    return Line(
        tuple(found.layers),
        _named(found),
        found.layout,
        totals.get("reference"),
        min((taken for name, taken in totals.items() if name != "reference"), default=None),
        None if winner is None else _chosen(winner, times),
        winner,
        choice.failed,
    )


def _chosen(winner: str, times: Mapping[str, Mapping[str, float]]) -> float:
    if "/" not in winner:
        return sum(by[winner] for by in times.values())
    return sum(min(by.values()) if fastest(by) != "reference" else by["reference"] for by in times.values())


def _named(found: Found) -> str:
    input, *others = tensors_of(found.arguments)
    weight = f" by {_size(others[0])}" if others and others[0].dim() > 1 else ""
    last = "channels_last" if input.dim() == 4 and not input.is_contiguous() else ""
    dtype = str(found.key[0] or input.dtype).removeprefix("torch.")
    return " ".join(word for word in (found.operator, _size(input) + weight, dtype, last) if word)


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
