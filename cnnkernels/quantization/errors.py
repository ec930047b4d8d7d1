"""How far each INT8 layer is from its float form: by itself, and with all that has gathered before it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .. import functional as F
from ..convert.graph import call
from ..convert.trace import copy_of_its_own
from .lowering import Code
from .prepare import Tap, part
from .units import Unit


class LayerError(NamedTuple):
    """Signal-to-noise ratios in decibels, 10 log10(sum of x^2 / sum of (x - x_int8)^2), x the float model's value.

    Attributes:
        names: of the float model's modules.
        alone: of the layer given the float model's own values.
        gathered: in the INT8 model, with the noise of all before it.
    """

    names: tuple[str, ...]
    alone: float
    gathered: float


@dataclass(frozen=True)
class Errors:
    """Printable: a table, the worst layers named; `plot` draws it.

    Attributes:
        layers: in the order in which they run.
        output: of what the model returns, in decibels.
    """

    layers: tuple[LayerError, ...]
    output: float

    def worst(self, count: int = 5) -> tuple[LayerError, ...]:
        """The layers that lose most by themselves: those to leave in float first."""
        return tuple(sorted(self.layers, key=lambda layer: layer.alone)[:count])

    def __str__(self) -> str:
        names = [" + ".join(layer.names) or "(the model)" for layer in self.layers]
        width = max(map(len, ("layer", *names)))
        lines = [f"{'layer':{width}}   alone  gathered   signal to noise in dB"]
        rows = zip(names, self.layers, strict=True)
        lines += [f"{name:{width}} {layer.alone:7.1f} {layer.gathered:9.1f}" for name, layer in rows]
        lines.append(f"{'the output':{width}} {'':7} {self.output:9.1f}")
        worst = ", ".join(f"{' + '.join(layer.names)} ({layer.alone:.1f} dB)" for layer in self.worst(3))
        return "\n".join([*lines, f"worst by itself: {worst or 'none'}"])

    def plot(self, file: str | os.PathLike[str]) -> None:
        """Draws the table, a bar a layer.

        Raises:
            ModuleNotFoundError: matplotlib is not installed.
        """
        from matplotlib.figure import Figure

        figure = Figure((8, 1.2 + 0.22 * len(self.layers)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(self.layers))
        axes.barh(places, [_finite(layer.alone) for layer in self.layers], color="tab:blue", label="alone")
        axes.plot(
            [_finite(layer.gathered) for layer in self.layers], places, "o-", color="tab:orange", label="gathered"
        )
        axes.set_yticks(places, [layer.names[0] for layer in self.layers], fontsize=6)
        axes.invert_yaxis()
        axes.set_xlabel(f"signal to noise in dB; the output {self.output:.1f}")
        axes.legend()
        figure.savefig(os.fspath(file))


def _finite(decibels: float) -> float:
    """What can be drawn: 100 dB where nothing was rounded."""
    return max(min(decibels, 100.0), -20.0)


class Ratio:
    """Gathers a signal and its noise."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        exact, rounded = exact.double(), rounded.double()
        self.signal += exact.square().sum().item()
        self.noise += (exact - rounded).square().sum().item()

    def decibels(self) -> float:
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


class _Probe(NamedTuple):
    """A layer in both models."""

    names: tuple[str, ...]
    float_name: str
    int8_name: str
    code: Code | None


def measured(result: Any, model: nn.Module, data: Iterator[Any]) -> Errors:
    """See `Quantization.errors`."""
    exact = copy_of_its_own(model).eval()
    reference = exact if result.observed is None else result.observed
    probes = list(_swapped(result) if result.observed is None else _units(result))
    alone, gathered, whole = [Ratio() for _ in probes], [Ratio() for _ in probes], Ratio()
    seen = False
    for batch in data:
        seen = True
        with torch.no_grad(), result.in_plain_float():
            if reference is not exact:
                expected = call(exact, batch)
            with _noted(reference, [probe.float_name for probe in probes]) as floats:
                output = call(reference, batch)
            expected = output if reference is exact else expected
            with _noted(result.model, [probe.int8_name for probe in probes]) as codes:
                returned = call(result.model, batch)
            for i, probe in enumerate(probes):
                layer = result.model.get_submodule(probe.int8_name)
                for (arguments, value), (_, code) in zip(floats[i], codes[i], strict=True):
                    gathered[i].add(value, _number(code, probe.code))
                    alone[i].add(value, _number(layer(*_as_given(layer, arguments)), probe.code))
        for a, b in zip(pytree.tree_leaves(expected), pytree.tree_leaves(returned), strict=True):
            if isinstance(a, Tensor) and a.is_floating_point():
                whole.add(a, b)
    if not seen:
        raise ValueError("errors: expected at least one batch of images")
    lines = zip(probes, alone, gathered, strict=True)
    return Errors(tuple(LayerError(p.names, a.decibels(), g.decibels()) for p, a, g in lines), whole.decibels())


def _units(result: Any) -> Iterator[_Probe]:
    """Of a calibrated model: the units of the float model with observers, and the layers that they became."""
    unit_of: dict[str, str] = {}
    for name, module in result.observed.named_modules():
        if isinstance(module, fx.GraphModule):
            prefix = f"{name}." if name else ""
            for node in module.graph.nodes:
                if part(module, node, Tap) is not None and part(module, node.args[0], Unit) is not None:
                    unit_of[prefix + str(node.target)] = prefix + str(node.args[0].target)
    for value in result.values:
        if value.tap in unit_of:
            yield _Probe(value.names, unit_of[value.tap], value.module, value.code)


def _swapped(result: Any) -> Iterator[_Probe]:
    """Of a model whose linear layers were swapped."""
    for layer in result.quantized:
        name = "" if layer.names[0] == "(the model)" else layer.names[0]
        yield _Probe(layer.names, name, name, None)


@contextlib.contextmanager
def _noted(model: nn.Module, names: list[str]) -> Iterator[list[list[tuple[Any, Tensor]]]]:
    """What the named modules are called with and make, each time that they run."""
    noted: list[list[tuple[Any, Tensor]]] = [[] for _ in names]

    def noting(place: int) -> Any:
        def note(module: nn.Module, args: Any, output: Tensor) -> None:
            noted[place].append(([value.clone() for value in args], output.clone()))  # what follows may work in place

        return note

    handles = [model.get_submodule(name).register_forward_hook(noting(i)) for i, name in enumerate(names)]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def _as_given(layer: Any, arguments: list[Tensor]) -> list[Tensor]:
    """Floats as the INT8 layer gets them: it rounds its input itself, its residual comes rounded."""
    if len(arguments) == 1 or layer.residual_scale is None:
        return arguments
    input, residual = arguments
    return [input, F.quantize_per_tensor(residual, layer.residual_scale, layer.residual_zero_point)[0]]


def _number(value: Tensor, code: Code | None) -> Tensor:
    return value if code is None else (value.double() - code.zero_point) * code.scale
