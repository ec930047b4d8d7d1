"""Kernels that compute nothing but note that they were called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Call(NamedTuple):
    """One call of a kernel."""

    backend: str
    name: str
    arguments: tuple[Any, ...]


class Recorder:
    """Kernels that compute nothing but note that they were called."""

    def __init__(self, backend: str, calls: list[Call]) -> None:
        self._backend, self._calls = backend, calls

    def __getattr__(self, name: str) -> Callable[..., None]:
        def note(*arguments: Any, **named: Any) -> None:
            self._calls.append(Call(self._backend, name, (*arguments, *named.values())))

        return note
