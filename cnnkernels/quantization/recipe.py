"""How a model was quantized, in words that a file can keep: enough to do it again without the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """What `load_quantized` does again, around the numbers that it reads.

    Attributes:
        how: "static", "dynamic" or "weight_only" as `quantize`'s mode, "qat" of `convert_qat`.
        left_out: the names of layers that the caller left in float.
        example: the first batch in words, as `described` makes them.
        integers: the tensors in it that are not floating, as they were: indices must be some that the model has.
    """

    how: str
    left_out: tuple[str, ...] = ()
    example: Any = None
    integers: tuple[Tensor, ...] = ()


def noting(
    left_out: Callable[[nn.Module, str], str],
) -> tuple[Callable[[nn.Module, str], str], list[str]]:
    """The same function, and the names that it leaves out, which it notes."""
    names: list[str] = []

    def noted(layer: nn.Module, name: str) -> str:
        reason = left_out(layer, name)
        if reason and name not in names:
            names.append(name)
        return reason

    return noted, names


def described(value: Any) -> tuple[Any, tuple[Tensor, ...]]:
    """A batch in words: of floating tensors size, type and range; the others apart."""
    integers: list[Tensor] = []

    def words(value: Any) -> Any:
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                integers.append(value.detach().cpu().clone())
                return {"integers": len(integers) - 1}
            low, high = (float(end) for end in torch.aminmax(value.detach())) if value.numel() else (0.0, 0.0)
            dtype = str(value.dtype).removeprefix("torch.")
            return {"size": list(value.shape), "dtype": dtype, "low": low, "high": high}
        if isinstance(value, dict):
            return {"dict": [[key, words(part)] for key, part in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__ if type(value) in (list, tuple) else "tuple": [words(part) for part in value]}
        return {"value": value}

    return words(value), tuple(integers)


def stand_in(words: Any, integers: dict[int, Tensor], device: torch.device) -> Any:
    """A batch of those words, of random numbers."""

    def made(words: Any) -> Any:
        if "size" in words:
            generator = torch.Generator().manual_seed(0)
            random = torch.rand(words["size"], generator=generator) * (words["high"] - words["low"]) + words["low"]
            return random.to(device, getattr(torch, words["dtype"]))
        if "integers" in words:
            return integers[words["integers"]].to(device)
        if "dict" in words:
            return {key: made(part) for key, part in words["dict"]}
        for kind in (list, tuple):
            if kind.__name__ in words:
                return kind(made(part) for part in words[kind.__name__])
        return words["value"]

    return made(words)
