"""What a model was called with, in what its own code raises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor


@contextlib.contextmanager
def called_with(batch: Any) -> Iterator[None]:
    """Says of what the model's own code raises which batch it was called with."""
    try:
        yield
    except Exception as error:
        told = f"the model raises {type(error).__name__} for {_shape(batch)}: {error}"
        if isinstance(batch, Tensor) and batch.dim() == 3:
            told = f"{told} (one image is a batch of one: [1, {', '.join(map(str, batch.shape))}])"
        raise ValueError(told) from error


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, dict):
        return ", ".join(f"{name}={_shape(part)}" for name, part in value.items())
    return ", ".join(map(_shape, value)) if isinstance(value, (tuple, list)) else repr(value)
