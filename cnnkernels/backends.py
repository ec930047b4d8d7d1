"""Which backend serves a call: cuda, triton, reference or auto.

`use_backend` asks for one in a scope, CNNKERNELS_BACKEND for a process; `choose` says which one serves a call,
why, and why the others do not. CNNKERNELS_INTERPRET=1 makes CPU tensors run the kernels in the interpreters.
Both variables are read once, when the package is imported.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .native import BUILD_HINT, load

Backend = Literal["cuda", "triton", "reference"]
Request = Literal["cuda", "triton", "reference", "auto"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)  # in the order in which auto prefers them
KERNEL_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
OLDEST_CAPABILITY = (8, 0)


def _checked(name: str, source: str) -> Request:
    if name not in get_args(Request):
        raise ValueError(f"{source} must be one of {', '.join(get_args(Request))}, but got {name!r}")
    return name  # type: ignore[return-value]


_PROCESS: Request = _checked(os.environ.get("CNNKERNELS_BACKEND") or "auto", "CNNKERNELS_BACKEND")
INTERPRETING = os.environ.get("CNNKERNELS_INTERPRET", "0") not in ("", "0")
if INTERPRETING:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # triton reads it when the kernels' module is imported

_scope: ContextVar[Request] = ContextVar("cnnkernels_backend", default=_PROCESS)


class _Traced:
    """The innermost scope again, as a plain attribute: torch.compile can guard on it, on a ContextVar it can not."""

    request: Request = _PROCESS


_traced = _Traced()
_traced.request = _PROCESS


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
    """

    def __init__(self, name: str) -> None:
        self.name = _checked(name, "backend")
        self._token: Token[Request] | None = None
        self._outer: Request = "auto"

    def _recreate_cm(self) -> use_backend:
        return use_backend(self.name)  # a decorated function may be running more than once

    def __enter__(self) -> use_backend:
        self._outer = _traced.request
        _traced.request = self.name
        if not torch.compiler.is_compiling():
            self._token = _scope.set(self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _traced.request = self._outer
        if not torch.compiler.is_compiling() and self._token is not None:
            _scope.reset(self._token)


def requested() -> Request:
    """The backend asked for here: the innermost `use_backend`, else CNNKERNELS_BACKEND, else "auto"."""
    return _traced.request if torch.compiler.is_compiling() else _scope.get()


class Problem(NamedTuple):
    """What the choice depends on; `capability` is the CUDA device's, None elsewhere."""

    op: str
    device: str
    dtype: torch.dtype
    capability: tuple[int, int] | None = None


class Decision(NamedTuple):
    """The backend that serves a call and why; `backend` is None where the one asked for can not."""

    problem: Problem
    request: Request
    backend: Backend | None
    reason: str
    rejected: tuple[tuple[Backend, str], ...] = ()

    def __str__(self) -> str:
        op, device, dtype, _ = self.problem
        lines = [f"{op} of {dtype} on {device}, asked for {self.request}: {self.backend or 'none'}, {self.reason}"]
        lines += [f"  not {name}: {why}" for name, why in self.rejected]
        return "\n".join(lines)
