"""What quantizing a model did: each layer's fate, ranges, sizes, and how far the INT8 model is from the float one."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..convert.graph import LAYERS, call
from ..convert.replace import Layer
from .lowering import Value
from .prepare import Tap
from .recipe import Recipe
from .units import Unit


class Noise(NamedTuple):
    """A value of the model and its signal-to-noise ratio in decibels: 10 log10(sum of x^2 / sum of (x - x_int8)^2)."""

    value: Value
    decibels: float


@dataclass(frozen=True)
class Quantization:
    """What `quantize` and `convert_qat` return.

    Attributes:
        model: to use; in evaluation mode.
        quantized: its INT8 layers, each named by the modules of the float model that it does the work of.
        kept: what stayed in float, each with its reason.
        notes: where the model's code could not be traced as a whole, and why.
        values: what was watched, in the order in which it is computed: ranges, scales and zero points.
        float_bytes, int8_bytes: of parameters and buffers before and after.
        observed: the float model with what watches its values; `signal_to_noise` runs it.
        recipe: what `save_quantized` keeps of how it was made.
    """

    model: nn.Module
    quantized: tuple[Layer, ...]
    kept: tuple[Layer, ...]
    notes: tuple[str, ...]
    values: tuple[Value, ...]
    float_bytes: int
    int8_bytes: int
    observed: nn.Module | None = field(default=None, repr=False)
    recipe: Recipe | None = field(default=None, repr=False)

    def __str__(self) -> str:
        ratio = f"{self.float_bytes / self.int8_bytes:.2f} times smaller" if self.int8_bytes else "empty"
        lines = [f"quantized {len(self.quantized)}, kept {len(self.kept)}, {ratio}"]
        lines += [f"  note      {note}" for note in self.notes]
        lines += [f"  quantized {layer}" for layer in self.quantized]
        lines += [f"  kept      {layer}" for layer in self.kept]
        return "\n".join(lines)

    def signal_to_noise(self, data: Tensor | Iterable[Any]) -> tuple[Noise, ...]:
        """How far each watched value of the INT8 model is from the float model's, over all of `data`.

        The noise of a value is all that has gathered up to it, not that of its own layer alone.

        Args:
            data: batches, as `quantize` takes them.

        Raises:
            ValueError: the model was not calibrated (mode "dynamic" or "weight_only"), or there is no data.
        """
        if self.observed is None:
            raise ValueError("signal_to_noise: there is no calibrated float model beside this one")
        signal, noise = [0.0] * len(self.values), [0.0] * len(self.values)
        seen = False
        for batch in batches(data, self.observed):
            seen = True
            with torch.no_grad(), _plain(self.observed):
                exact = _outputs(self.observed, [value.tap for value in self.values], batch)
                rounded = _outputs(self.model, [value.module for value in self.values], batch)
            for i, value in enumerate(self.values):
                for x, y in zip(exact[i], rounded[i], strict=True):
                    number = y.double()
                    if value.code is not None:
                        number = (number - value.code.zero_point) * value.code.scale
                    signal[i] += x.double().square().sum().item()
                    noise[i] += (x.double() - number).square().sum().item()
        if not seen:
            raise ValueError("signal_to_noise: expected at least one batch of data")
        return tuple(Noise(value, _decibels(*sums)) for value, *sums in zip(self.values, signal, noise, strict=True))


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def batches(data: Any, model: nn.Module) -> Iterator[Any]:
    """A tensor or dict is one batch; else each element is one, or begins with it where the model takes one argument.

    Raises:
        TypeError: it is nothing of this kind.
    """
    if isinstance(data, (Tensor, dict)):
        data = [data]
    if isinstance(data, str) or not isinstance(data, Iterable) or hasattr(data, "__array__"):
        kind = type(data).__name__
        raise TypeError(f"the data must be a tensor, a dict of arguments or an iterable of batches, not {kind}")
    signature = inspect.signature(model.forward)
    for batch in data:
        if isinstance(batch, (tuple, list)):
            try:
                signature.bind(*batch)
            except TypeError:
                batch = batch[0]  # (images, labels)
        if not isinstance(batch, (Tensor, tuple, list, dict)):
            raise TypeError(
                f"a batch must be a tensor, or a tuple, list or dict of arguments, not {type(batch).__name__}"
            )
        yield batch


@contextmanager
def _plain(observed: nn.Module) -> Iterator[None]:
    """The float model in evaluation, neither values nor weights rounded."""
    modes = {module: module.training for module in observed.modules()}
    taps = [module for module in observed.modules() if isinstance(module, Tap)]
    units = [module for module in observed.modules() if isinstance(module, Unit) and module.trains]
    observed.eval()
    for tap in taps:
        tap.open = True
    for unit in units:
        unit.trains = False
    try:
        yield
    finally:
        for tap in taps:
            tap.open = False
        for unit in units:
            unit.trains = True
        for module, mode in modes.items():
            module.training = mode


def _outputs(model: nn.Module, names: list[str], batch: Any) -> list[list[Tensor]]:
    """What the named modules made of a batch, one tensor for each time they ran."""
    made: list[list[Tensor]] = [[] for _ in names]

    def noting(place: int) -> Any:
        def note(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> None:
            if not kwargs:  # a tap around an average has some
                made[place].append(output.clone())  # what comes after may work in place

        return note

    handles = [
        model.get_submodule(name).register_forward_hook(noting(i), with_kwargs=True) for i, name in enumerate(names)
    ]
    try:
        call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return made


def kept_layers(model: nn.Module) -> list[Layer]:
    """The convolutions and linear layers still in a model, each with the reason."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (*LAYERS, nn.modules.conv._ConvNd)):
            names.setdefault(module, []).append(name or "(the model)")
    return [
        Layer(tuple(where), f"{type(module).__name__}({module.extra_repr()})", _reason(module))
        for module, where in names.items()
    ]


def _reason(module: nn.Module) -> str:
    if not isinstance(module, LAYERS):
        return "no INT8 kernel"
    return vars(module).get("int8_reason", "the code that runs it has no graph")


def size(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers, each counted once."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values() if not nn.parameter.is_lazy(t))
