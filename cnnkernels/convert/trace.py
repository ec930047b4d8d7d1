"""What is asked of a model before its layers are put together: its hooks, its readers, whose arithmetic a layer has."""

from __future__ import annotations

import copy
from typing import Any

import torch

ACTIVATIONS: dict[type[torch.nn.Module], str] = {
    torch.nn.ReLU: "relu",
    torch.nn.ReLU6: "relu6",
    torch.nn.LeakyReLU: "leaky_relu",
    torch.nn.SiLU: "silu",
    torch.nn.GELU: "gelu",
    torch.nn.Hardswish: "hardswish",
}
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def note_reads(model: torch.nn.Module, *kinds: type[torch.nn.Module]) -> dict[str, set[str]]:
    """Lets the modules of these kinds note which of their parameters and buffers the code around them reads: by their
    name in the model."""
    reads: dict[str, set[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            module.__class__ = _noting(type(module), reads.setdefault(name, set()))
    return reads


def _noting(cls: type[torch.nn.Module], noted: set[str]) -> type[torch.nn.Module]:
    running: list[str] = []

    def read(self: torch.nn.Module, name: str) -> Any:
        if not running and (name in self._parameters or name in self._buffers):
            noted.add(name)
        return cls.__getattr__(self, name)

    def run(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        running.append("forward")
        try:
            return cls.__call__(self, *args, **kwargs)
        finally:
            running.pop()

    members = {"__module__": cls.__module__, "__getattr__": read, "__call__": run}
    return type(cls.__name__, (cls,), members)


def own_arithmetic(module: torch.nn.Module, *bases: type[torch.nn.Module]) -> bool:
    """Whether a module computes something else than the one of `bases` that it is."""
    base = next(base for base in bases if isinstance(module, base))
    names = "__call__", "forward", "_conv_forward"
    return any(getattr(type(module), n, None) is not getattr(base, n, None) or n in vars(module) for n in names)


def hooked(module: torch.nn.Module) -> bool:
    """Whether somebody looks at a module's calls."""
    return any(getattr(module, hooks, None) for hooks in HOOKS)


def copy_sharing_tensors(model: torch.nn.Module) -> torch.nn.Module:
    """A deepcopy of the modules, with their containers, attributes and bound hooks, around the same tensors."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        # Tensors that are plain attributes too: what weight_norm or prune computed before the last call.
        for tensors in (module._parameters, module._buffers, vars(module)):
            memo.update((id(t), t) for t in tensors.values() if isinstance(t, torch.Tensor))
    return copy.deepcopy(model, memo)


def copy_of_its_own(model: torch.nn.Module) -> torch.nn.Module:
    """A copy that shares no tensor. What weight_norm or prune computed before the last call has a history, and is
    copied without it."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)
