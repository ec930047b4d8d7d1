"""An operator called on the backend that serves it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..backends import serving


def served(op: str, operator: Callable[..., Any], dtype: torch.dtype, *arguments: Any) -> Any:
    """operator(*arguments, backend); the first argument is a tensor, the dtype what backends are asked about."""
    backend = serving(op, arguments[0].device, dtype)
    if not isinstance(backend, str):
        backend = backend.choose(arguments, functools.partial(served, op, operator, dtype))
    return operator(*arguments, backend)
