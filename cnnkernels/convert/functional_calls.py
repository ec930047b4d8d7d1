"""Serves the calls of torch.nn.functional that a model's own code makes."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .. import functional
from ..backends import use_backend


def _with_indices(function: Callable[..., Any]) -> Callable[..., Any]:
    """PyTorch asks about a max pool with indices by a name of its own, with return_indices as it was left."""
    return lambda *arguments, **named: function(*arguments, **named | {"return_indices": True})


# Each of PyTorch's functions that has a namesake here, which takes the same arguments in the same order.
_SERVED_BY: dict[Callable[..., Any], Callable[..., Any]] = {
    getattr(torch.nn.functional, name): (
        _with_indices(getattr(functional, name.removesuffix("_with_indices")))
        if name.endswith("_with_indices")
        else getattr(functional, name)
    )
    for name in functional.__all__
    if hasattr(torch.nn.functional, name)
}


class _Calls(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        return _SERVED_BY.get(function, function)(*arguments, **(named or {}))


class _Scopes(threading.local):
    depth = 0


_scopes = _Scopes()


class patch_functional(contextlib.ContextDecorator):
    """Serves torch.nn.functional's calls by `cnnkernels.functional` in a `with` block or a decorated function.

    For models that call functions rather than layers, and for layers whose own code prepares weights or padding and
    then calls `torch.nn.functional`, `super().forward` or `_conv_forward`. Every function of `torch.nn.functional` that
    has a namesake in `cnnkernels.functional` goes there, from whatever code; all others stay. Nothing of PyTorch is
    changed: the scope is the thread's (of `torch.overrides.TorchFunctionMode`), and other threads call PyTorch as ever.
    `replace_layers(functional=True)` makes a scope of each call of a module instead.

    Args:
        backend: "cuda", "triton", "reference" or "auto", as `use_backend`'s; None leaves it to the one in force.

    Raises:
        ValueError: no backend is called so.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> with cnnkernels.patch_functional():
        ...     torch.nn.functional.max_pool2d(image, 2)
        tensor([[[[ 5.,  7.],
                  [13., 15.]]]])
    """

    def __init__(self, backend: str | None = None) -> None:
        if backend is not None:
            use_backend(backend)  # raises for what is no backend
        self._backend = backend
        self._entered = contextlib.ExitStack()

    def _recreate_cm(self) -> patch_functional:
        return patch_functional(self._backend)

    def __enter__(self) -> None:
        if self._backend is not None:
            self._entered.enter_context(use_backend(self._backend))
        if _scopes.depth == 0:  # one mode serves all scopes in it
            self._entered.enter_context(_Calls())
        _scopes.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _scopes.depth -= 1
        self._entered.close()


def serve_calls(module: torch.nn.Module, backend: str | None) -> None:
    """Makes a scope of `patch_functional` of each call of `module`'s forward."""
    cls: type = type(module)
    module.__class__ = _serving(cls, backend)


def has_own_code(module: torch.nn.Module) -> bool:
    """Whether a module's forward is neither PyTorch's, nor this project's, nor served already."""
    cls = type(module)
    forward = getattr(cls.forward, "__module__", "")
    scripted = isinstance(module, torch.jit.ScriptModule) or "forward" in vars(module)
    return not scripted and not hasattr(cls, "_serves_calls") and not forward.startswith(("torch.nn.", "cnnkernels."))


@functools.cache
def _serving(cls: type, backend: str | None) -> type[torch.nn.Module]:
    """A subclass whose forward is in a scope. No module holds it, so a pickle names `cls` and makes it anew."""

    def forward(self: Any, *arguments: Any, **named: Any) -> Any:
        with patch_functional(backend):
            return cls.forward(self, *arguments, **named)  # type: ignore[attr-defined]

    members = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__reduce_ex__": lambda self, protocol: (_empty_serving, (cls, backend), self.__getstate__()),
        "_serves_calls": True,
        "forward": functools.wraps(cls.forward)(forward),  # type: ignore[attr-defined]
    }
    return type(cls.__name__, (cls,), members)


def _empty_serving(cls: type, backend: str | None) -> torch.nn.Module:
    served = _serving(cls, backend)
    return served.__new__(served)
