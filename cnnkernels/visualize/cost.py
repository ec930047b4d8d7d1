"""What each layer of a model costs: parameters, operations, bytes, and the time that a GPU cannot be faster than."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..native import load


class Layer(NamedTuple):
    """One call of a module without children; bytes are of its inputs, outputs and parameters, each once."""

    name: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    parameters: int
    operations: int
    bytes: int
    floor: float  # in seconds, by a model: data sheet's rates at the shares that are assumed to be within reach


class Cost(NamedTuple):
    """The layers in the order in which they ran; printable."""

    gpu: str
    layers: tuple[Layer, ...]
    parameters: int  # of the whole model; one that two layers share counts once

    @property
    def operations(self) -> int:
        return sum(layer.operations for layer in self.layers)

    @property
    def floor(self) -> float:
        return sum(layer.floor for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "kind", "input", "output", "parameters", "MFLOP", "MB", "floor us")]
        for layer in self.layers:
            numbers = _numbers(layer.parameters, layer.operations, layer.bytes, layer.floor)
            rows.append((layer.name, layer.kind, _shape(layer.input), _shape(layer.output), *numbers))
        total = sum(layer.bytes for layer in self.layers)
        rows.append(("all", "", "", "", *_numbers(self.parameters, self.operations, total, self.floor)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = []
        for row in rows:
            words = [f"{cell:<{width}}" for cell, width in zip(row[:4], widths[:4], strict=True)]
            figures = [f"{cell:>{width}}" for cell, width in zip(row[4:], widths[4:], strict=True)]
            lines.append("  ".join([*words, *figures]).rstrip())
        lines.append(f"floors are a model's, for an {self.gpu}: operations or bytes at its data sheet's rates")
        return "\n".join(lines)


def _numbers(parameters: int, operations: int, size: int, floor: float) -> tuple[str, str, str, str]:
    return f"{parameters:,}", f"{operations / 1e6:,.1f}", f"{size / 1e6:,.2f}", f"{1e6 * floor:.1f}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _rate(gpu: Any, dtype: torch.dtype) -> float:
    """FLOP/s within reach: tensor cores for 16 bits and for fp32, which PyTorch may round to TF32."""
    peak = {torch.float64: gpu.fma64, torch.float32: gpu.tensor_tf32}.get(dtype, gpu.tensor16)
    return float(load("interpreter").module.reached_of_peak * peak)


def cost(model: nn.Module, *inputs: Any, gpu: str = "h200") -> Cost:
    """Runs the model once, without gradients, and notes what each of its layers does.

    Operations are PyTorch's own count (`torch.utils.flop_counter`), which knows products and convolutions; additions,
    activations, norms and pools count 0 there, and cost their bytes. What a model computes outside of its layers, in
    `forward`, is not seen.

    Args:
        model: any module.
        inputs: what it is called with.
        gpu: a GPU of csrc/common/gpu.h whose rates make the floors.

    Raises:
        ValueError: there is no such GPU.
    """
    module = load("interpreter").module
    machine = module.gpu_named(gpu)
    bandwidth = module.reached_of_memory * machine.memory
    layers: list[Layer] = []
    hooks: list[Any] = []
    counter = FlopCounterMode(display=False)
    before: list[int] = []

    def begin(_: nn.Module, __: Any, ___: Any) -> None:
        before.append(counter.get_total_flops())

    def end(name: str) -> Any:
        def note(layer: nn.Module, args: Any, named: Any, output: Any) -> None:
            operations = counter.get_total_flops() - before.pop()
            read, written = list(_tensors([args, named])), list(_tensors(output))
            own = list(layer.parameters())
            size = sum(t.numel() * t.element_size() for t in (*read, *written, *own))
            dtype = next((t.dtype for t in read if t.is_floating_point()), torch.float32)
            floor = max(operations / _rate(machine, dtype), size / bandwidth)
            taken, made = (tuple(found[0].shape) if found else () for found in (read, written))
            count = sum(p.numel() for p in own)
            layers.append(Layer(name, type(layer).__name__, taken, made, count, operations, size, floor))

        return note

    for name, layer in model.named_modules():
        if not any(True for _ in layer.children()):
            hooks.append(layer.register_forward_pre_hook(begin, with_kwargs=True))
            hooks.append(layer.register_forward_hook(end(name or "the model"), with_kwargs=True))
    try:
        with torch.no_grad(), counter:
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(machine.name, tuple(layers), sum(p.numel() for p in model.parameters()))
