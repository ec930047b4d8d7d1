"""Which backend is asked for: by `use_backend` in a scope, by CNNKERNELS_BACKEND for a process."""

from __future__ import annotations

import contextlib
import os
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Literal, get_args

from torch.compiler import is_compiling

Backend = Literal["cuda", "triton", "reference"]
Request = Literal["cuda", "triton", "reference", "auto"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)  # in the order in which auto prefers them
KERNEL_BACKENDS: tuple[Backend, ...] = BACKENDS[:-1]


def checked(name: str, source: str) -> Request:
    if name not in get_args(Request):
        raise ValueError(f"{source} must be one of {', '.join(get_args(Request))}, but got {name!r}")
    return name  # type: ignore[return-value]


_PROCESS: Request = checked(os.environ.get("CNNKERNELS_BACKEND") or "auto", "CNNKERNELS_BACKEND")

scope: ContextVar[Request] = ContextVar("cnnkernels_backend", default=_PROCESS)


class Traced:
    """The innermost scope again, as a plain attribute: torch.compile can guard on it, on a ContextVar it can not."""

    request: Request = _PROCESS


traced = Traced()
traced.request = _PROCESS


class use_backend(contextlib.ContextDecorator):
    """Ask for a backend in a `with` block or a decorated function.

    Args:
        name: "cuda", "triton", "reference" (PyTorch's own operators) or "auto".

    Raises:
        ValueError: for any other name.

    A backend asked for by name serves the call or raises with the reason; only "auto" chooses another. Each thread
    and each asyncio task has its own scope. A backward pass runs on the backend of its forward pass, wherever it is
    called. Code under torch.compile is compiled once per backend asked for; there the scope is the process's last
    one, so threads that run compiled code under different backends need a lock of their own.

    Example:
        >>> with cnnkernels.use_backend("reference"):
        ...     cnnkernels.functional.max_pool2d(torch.arange(4.0).reshape(1, 1, 2, 2), 2)
        tensor([[[[3.]]]])
    """

    def __init__(self, name: str) -> None:
        self.name = checked(name, "backend")
        self._token: Token[Request] | None = None
        self._outer: Request = "auto"

    def _recreate_cm(self) -> use_backend:
        return use_backend(self.name)  # a decorated function may be running more than once

    def __enter__(self) -> use_backend:
        if is_compiling():
            self._outer = traced.request
        else:
            self._token = scope.set(self.name)
        traced.request = self.name
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if is_compiling():
            traced.request = self._outer
        elif self._token is not None:
            scope.reset(self._token)
            traced.request = scope.get()


def requested() -> Request:
    """The backend asked for here: the innermost `use_backend`, else CNNKERNELS_BACKEND, else "auto"."""
    return traced.request if is_compiling() else scope.get()
