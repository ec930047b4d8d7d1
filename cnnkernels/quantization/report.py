"""What quantizing a model did: each layer's fate, ranges, sizes, and how far the INT8 model is from the float one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..convert.graph import LAYERS, call
from ..convert.replace import Layer
from .data import batches
from .errors import Errors, Ratio, measured
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

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
        >>> quantized = cnnkernels.quantize(model, torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8))
        >>> [layer.names for layer in quantized.quantized], quantized.kept
        ([('0 + 1',)], ())
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
        notes = [*self.notes, _ON_A_CPU] if self.quantized and self._on_a_cpu() else self.notes
        lines += [f"  note      {note}" for note in notes]
        lines += [f"  quantized {layer}" for layer in self.quantized]
        lines += [f"  kept      {layer}" for layer in self.kept]
        return "\n".join(lines)

    def _on_a_cpu(self) -> bool:
        return all(buffer.device.type == "cpu" for buffer in self.model.buffers())

    def errors(self, model: nn.Module, images: Tensor | Iterable[Any]) -> Errors:
        """How far each INT8 layer is from its float form, by itself and in the model, and what the model returns.

        Args:
            model: the float model that was quantized.
            images: batches, as `quantize` takes them.

        Raises:
            ValueError: there is no batch.
        """
        return measured(self, model, batches(images, model))

    def in_plain_float(self) -> AbstractContextManager[None]:
        """Within it `observed` is the float model in evaluation, neither values nor weights rounded."""
        return nullcontext() if self.observed is None else _plain(self.observed)

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
        ratios = [Ratio() for _ in self.values]
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
                    ratios[i].add(x, number)
        if not seen:
            raise ValueError("signal_to_noise: expected at least one batch of data")
        return tuple(Noise(value, ratio.decibels()) for value, ratio in zip(self.values, ratios, strict=True))


_ON_A_CPU = "on a CPU, INT8 is for checking, not for speed: it is computed as the reference, and slower than floats"


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
    # What is seen as more than there is, as an expanded tensor, takes what there is.
    return sum(
        min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
        for t in tensors.values()
        if not nn.parameter.is_lazy(t)
    )
