"""The calls that a model makes, found by one forward pass and, where it trains, one backward pass.

PyTorch's own operators serve them meanwhile, so nothing unproven runs. The model is left as it was: its buffers, its
gradients and the random number generators.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import recording
from ..nn.layer import KernelLayer
from ..records.choice import Key, key_of
from ..records.measured import Call, Recorder

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Found:
    """A call, once however many layers make it.

    Attributes:
        dtype: that backends are asked about.
        arguments: those of the first such call, tensors detached but with their `requires_grad`.
        layers: the names of the layers that make it, once for each time.
        grad_stride: of the output's gradient, None where none came.
        layout: "contiguous" or "channels_last" where its images were laid out anew, else "".
    """

    operator: str
    dtype: torch.dtype
    arguments: tuple[Any, ...]
    again: Callable[..., Any]
    key: Key
    layers: list[str] = field(default_factory=list)
    grad_stride: tuple[int, ...] | None = None
    layout: str = ""

    @property
    def name(self) -> tuple[str, Key]:
        return self.operator, self.key

    @property
    def device(self) -> torch.device:
        return self.arguments[0].device  # type: ignore[no-any-return]

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(self.arguments))

    def laid_out(self, layout: str) -> Found:
        """The same call with all images and filters contiguous or channels_last."""

        def lay_out(tensor: Tensor) -> Tensor:
            if tensor.dim() != 4:
                return tensor
            return tensor.contiguous(memory_format=FORMATS[layout]).requires_grad_(tensor.requires_grad)

        with torch.no_grad():
            arguments = map_tensors(lay_out, self.arguments)
        return Found(self.operator, self.dtype, arguments, self.again, key_of(arguments), self.layers, None, layout)


def map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """The same tuples, named ones too, with each tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if not isinstance(value, tuple):
        return value
    items = [map_tensors(change, item) for item in value]
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


def tensors_of(value: Any) -> list[Tensor]:
    """Those in tuples, lists and the values of dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in tensors_of(item)] if isinstance(value, (tuple, list)) else []


def run(model: nn.Module, example: Any) -> Any:
    """A tensor, a tuple or list of arguments, or a dict of named ones."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, (tuple, list)) else model(example)


def step(model: nn.Module, example: Any, training: bool) -> None:
    """A forward pass, and where it trains the gradients of all parameters, which go nowhere."""
    with torch.set_grad_enabled(training):
        outputs = [t for t in tensors_of(run(model, example)) if t.requires_grad]
        wanted = [t for t in (*model.parameters(), *tensors_of(example)) if t.requires_grad]
        if training and outputs and wanted:
            torch.autograd.grad(outputs, wanted, [torch.ones_like(t) for t in outputs], allow_unused=True)


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Puts back what a pass changes: buffers, and the state of the random number generators."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({t.device.index for t in model.parameters() if t.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def find(model: nn.Module, example: Any, training: bool) -> list[Found]:
    """The calls of a model's layers, in the order in which they first came."""
    grads: dict[int, tuple[int, ...]] = {}
    with unchanged(model), recording() as recorder, _named(model, recorder, grads):
        step(model, example, training)
    found: dict[tuple[str, Key], Found] = {}
    for place, call in enumerate(recorder.calls):
        one = found.setdefault((call.operator, call.key), _found(call, grads.get(place)))
        one.layers.append(call.layer)
    return list(found.values())


def _found(call: Call, grad_stride: tuple[int, ...] | None) -> Found:
    arguments = map_tensors(lambda t: t.detach().requires_grad_(t.requires_grad), call.arguments)
    return Found(call.operator, call.dtype, arguments, call.again, call.key, [], grad_stride)


@contextlib.contextmanager
def _named(model: nn.Module, recorder: Recorder, grads: dict[int, tuple[int, ...]]) -> Iterator[None]:
    """Calls get the names of their layers, and `grads` the strides of their outputs' gradients."""
    hooks: list[Any] = []

    def enter(name: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any) -> None:
            recorder.layer = name

        return note

    def leave(_: nn.Module, __: Any, output: Any) -> None:
        place, (first, *_rest) = len(recorder.calls) - 1, (*tensors_of(output), None)
        if first is not None and first.requires_grad:
            first.register_hook(lambda grad: grads.update({place: grad.stride()}))

    for name, module in model.named_modules():
        if isinstance(module, KernelLayer):
            hooks.append(module.register_forward_pre_hook(enter(name or "the model")))
            hooks.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
