"""`quantize` with mode "dynamic" or "weight_only": linear layers alone, each in its place in the model's own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as ours
from ..convert.replace import Layer
from ..convert.trace import copy_of_its_own, hooked
from .recipe import Recipe
from .report import Quantization, kept_layers, size
from .units import own_arithmetic


def swap_linear_layers(
    model: nn.Module,
    mode: str,
    left_out: Callable[[nn.Module, str], str],
    names_left_out: list[str],
    backend: str | None,
) -> Quantization:
    """Swaps linear layers alone, which needs no graph: their inputs and outputs stay floats."""
    made = copy_of_its_own(model)
    names: dict[nn.Module, list[str]] = {}
    for name, module in made.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    quantized = []
    for module, where in names.items():
        if isinstance(module, nn.Conv2d):
            module.int8_reason = f"mode {mode!r} is for linear layers"  # type: ignore[assignment]
        if not isinstance(module, nn.Linear):
            continue
        if reason := left_out(module, where[0]) or _why_not(module):
            module.int8_reason = reason  # type: ignore[assignment]
            continue
        layer = Int8LinearAmongFloats.from_float(module, mode=mode)
        layer.backend = backend
        layer.only_for_inference = mode == "dynamic"  # "weight_only" passes gradients on to what is before it
        quantized.append(Layer(tuple(n or "(the model)" for n in where), f"Int8Linear({layer.extra_repr()})"))
        for name in where:
            if name:
                made.set_submodule(name, layer)
            else:
                made = layer
    recipe = Recipe(mode, tuple(names_left_out))
    return Quantization(made, tuple(quantized), tuple(kept_layers(made)), (), (), size(model), size(made), None, recipe)


def _why_not(layer: nn.Linear) -> str:
    if hooked(layer):
        return "it has hooks"
    if nn.utils.parametrize.is_parametrized(layer):
        return "it is parametrized"
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "torch.nn.MultiheadAttention multiplies by its weight itself"
    if own_arithmetic(layer):
        return f"{type(layer).__qualname__} has arithmetic of its own"
    if nn.parameter.is_lazy(layer.weight):
        return "its weight has no size yet"
    return "" if layer.weight.is_floating_point() else f"its weight is {layer.weight.dtype}"


class Int8LinearAmongFloats(ours.Int8Linear):
    """An INT8 layer in code that knows floats alone.

    Code that reads the weight gets the numbers that it stands for, in the type of the float model, which the output
    has too. Who goes through the model's parameters for types, devices, sizes and names finds the weight as it was: a
    parameter of one number, NaN, that is seen as many.
    """

    dtype: torch.dtype

    @classmethod
    def from_float(cls, layer: nn.Linear, **options: Any) -> Int8LinearAmongFloats:
        made: Any = ours.Int8Linear.from_float(layer, **options)
        made.__class__ = cls  # a property may not stand where a buffer is registered
        made.dtype = layer.weight.dtype
        made._show_weight()
        return made

    def _show_weight(self) -> None:
        number = torch.full((1, 1), torch.nan, dtype=self.dtype, device=self._integers.device)
        self._parameters["weight"] = nn.Parameter(number.expand(self._integers.shape), requires_grad=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_parameters": {}}  # a copy would be of all the numbers that are seen

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._show_weight()

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return (self._integers.float() * self.weight_scale.view(-1, 1)).to(self.dtype)

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        bias = self._buffers["bias"]
        return None if bias is None else bias.to(self.dtype)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """For code that asks the first for its type or device."""
        yield nn.Parameter(self.weight, requires_grad=False)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return super().forward(input, residual).to(input.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        self._parameters.clear()
        super()._apply(fn, recurse)
        self._show_weight()
        return self
