"""What a captured graph asks of its inputs: modules in the graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..nn.numbered import refuse_training


class Sizes(nn.Module):
    """Refuses inputs of sizes that the graph is not for, and the graph in another floating type.

    Args:
        conditions: on the tensors `given`, in Python.
        names: of these tensors.
        dtype: of the first that is floating, or None. Constants and codes were made for it.
    """

    only_for_inference = False  # as of an INT8 layer

    def __init__(self, conditions: tuple[str, ...], names: tuple[str, ...], dtype: torch.dtype | None) -> None:
        super().__init__()
        self.conditions, self.names, self.dtype = conditions, names, dtype
        self._is_impure = True  # it has no reader, and stays
        source = ["def check(*given):"]
        for condition in conditions:
            told = condition
            for place, name in enumerate(names):
                told = told.replace(f"given[{place}]", name)
            sentence = f"the captured model is for inputs with {told}: capture it again for others"
            source += [f"  if not ({condition}):", f"    raise ValueError({sentence!r})"]
        from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP  # here: it takes seconds to import

        namespace: dict[str, Any] = {**SYMPY_INTERP, "math": math}
        exec("\n".join([*source, "  return"]), namespace)
        self.check = torch._dynamo.dont_skip_tracing(namespace["check"])

    def forward(self, *given: Tensor) -> None:
        self.check(*given)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        made = fn(torch.empty(0, dtype=self.dtype or torch.float32)).dtype
        if made is not (self.dtype or torch.float32):
            raise TypeError(
                f"this model was captured in {self.dtype}: convert the float model to {made}, then quantize it"
            )
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> Any:
        if mode and self.only_for_inference:
            refuse_training()
        return super().train(mode)

    def __reduce__(self) -> Any:
        return _sizes, (self.conditions, self.names, self.dtype, self.only_for_inference)

    def __deepcopy__(self, memo: dict[int, Any]) -> Sizes:
        return _sizes(self.conditions, self.names, self.dtype, self.only_for_inference)


def _sizes(
    conditions: tuple[str, ...], names: tuple[str, ...], dtype: torch.dtype | None, only_for_inference: bool
) -> Sizes:
    made = Sizes(conditions, names, dtype).eval()
    made.only_for_inference = only_for_inference
    return made


class Fixed(nn.Module):
    """An argument that is no tensor: it chose the way through the code."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__()
        self.name, self.value = name, value
        self._is_impure = True

    def forward(self, given: Any) -> None:
        if given is not self.value and (type(given) is not type(self.value) or given != self.value):
            raise ValueError(f"the captured model is for {self.name}={self.value!r}, but got {self.name}={given!r}")


def conditions_of(given: list[fx.Node], program: Any) -> list[str]:
    """What the sizes of the inputs must be, in Python."""
    found = []
    for place, node in enumerate(given):
        for dim, size in enumerate(node.meta["val"].shape):
            if isinstance(size, int):
                found.append(f"given[{place}].size()[{dim}] == {size}")
    for condition in program._guards_code:
        for place in range(len(given)):
            condition = condition.replace(f"L['tensors'][{place}]", f"given[{place}]")
        found.append(condition.replace("\n", " "))
    return list(dict.fromkeys(found))
