"""How a call finds the backend that was measured to be the fastest at it, and how calls are noted to be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from . import tuned
from .choice import Key, key_of


class Measured:
    """The measured calls of one operator on one GPU."""

    def __init__(self, otherwise: str, rows: dict[Key, tuple[str | None, str | None]]) -> None:
        self.otherwise = otherwise
        self.rows = rows

    def choose(self, arguments: tuple[Any, ...], again: Callable[..., Any]) -> str:
        """The backend that serves a call of these arguments; where it was not measured, whom "auto" takes anyway."""
        first = arguments[0]
        if type(first) not in (Tensor, Parameter) or first.layout is not torch.strided:  # somebody looks on
            return self.otherwise
        row = self.rows.get(key_of(arguments))
        if row is None:
            return self.otherwise
        inference, training = row
        if inference != training and torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return training or self.otherwise
        return inference or self.otherwise


class Call(NamedTuple):
    """A call that was noted: `again(*arguments)` repeats it, `layer` is the module that made it."""

    operator: str
    dtype: torch.dtype  # that backends are asked about
    arguments: tuple[Any, ...]
    again: Callable[..., Any]
    layer: str
    key: Key


class Recorder:
    """Notes the calls that layers make, which PyTorch's own operators serve meanwhile. It is the request in force."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.layer = ""

    def of(self, operator: str, dtype: torch.dtype) -> _Noting:
        return _Noting(self, operator, dtype)


class _Noting(Measured):
    def __init__(self, recorder: Recorder, operator: str, dtype: torch.dtype) -> None:
        super().__init__("reference", {})
        self.recorder, self.operator, self.dtype = recorder, operator, dtype

    def choose(self, arguments: tuple[Any, ...], again: Callable[..., Any]) -> str:
        if arguments[0].numel() > 0:
            name, key = (self.operator, self.dtype), key_of(arguments)
            self.recorder.calls.append(Call(*name, arguments, again, self.recorder.layer, key))
        return "reference"


def measured(operator: str, device: torch.device, otherwise: str, serves: Callable[[str], bool]) -> str | Measured:
    """The measured calls of an operator on a device, or `otherwise` where there are none.

    Args:
        otherwise: whom "auto" takes for a call that was not measured.
        serves: whether a backend can serve the operator here. A choice of one that can not is left out.
    """
    found = tuned.choices(tuned.gpu_name(device)).get(operator, ())
    rows = {
        choice.key: (choice.inference, choice.training)
        for choice in found
        if all(serves(name) for served in (choice.inference, choice.training) if served for name in served.split("/"))
    }
    return Measured(otherwise, rows) if rows else otherwise
