"""What a captured graph asks of its inputs, and the form of what it gives back: modules in the graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class Sizes(nn.Module):
    """Refuses inputs of sizes that the graph is not for, and the graph in another floating type.

    Args:
        conditions: on the tensors `given`, in Python.
        names: of these tensors.
        dtype: of the first that is floating, or None. Constants and codes were made for it.
    """

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

    def __reduce__(self) -> Any:
        return Sizes, (self.conditions, self.names, self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Sizes:
        return Sizes(self.conditions, self.names, self.dtype)


class Fixed(nn.Module):
    """An argument that is no tensor: it chose the way through the code."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__()
        self.name, self.value = name, value
        self._is_impure = True

    def forward(self, given: Any) -> None:
        if given is not self.value and (type(given) is not type(self.value) or given != self.value):
            raise ValueError(f"the captured model is for {self.name}={self.value!r}, but got {self.name}={given!r}")


class Rebuilt(nn.Module):
    """Puts the values of an output into the form that the code returns them in."""

    def __init__(self, tree: pytree.TreeSpec) -> None:
        super().__init__()
        self.tree = tree

    def forward(self, *leaves: Any) -> Any:
        return pytree.tree_unflatten(leaves, self.tree)
