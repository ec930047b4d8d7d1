"""What is asked of a model before its layers are put together: its graphs, its hooks, whose arithmetic a layer has."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from typing import Any

import torch
from torch import fx

from ..nn.layer import KernelLayer

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


class Tracer(fx.Tracer):
    """Takes whole every module that a chain may be made of, ours and subclasses too.

    What the code does to a buffer goes into the graph, not to the buffer.
    """

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        known = torch.nn.Conv2d, torch.nn.BatchNorm2d, KernelLayer, *ACTIVATIONS
        return isinstance(m, known) or super().is_leaf_module(m, module_qualified_name)


def note_reads(model: torch.nn.Module, *kinds: type[torch.nn.Module]) -> dict[str, set[str]]:
    """Lets the modules of these kinds note which of their parameters and buffers are read: by their name in the model.

    While torch.fx traces, only the code around them does: of what is taken whole nothing runs.
    """
    reads: dict[str, set[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            module.__class__ = _noting(type(module), reads.setdefault(name, set()))
    return reads


def _noting(cls: type[torch.nn.Module], noted: set[str]) -> type[torch.nn.Module]:
    def read(self: torch.nn.Module, name: str) -> Any:
        if name in self._parameters or name in self._buffers:
            noted.add(name)
        return cls.__getattr__(self, name)

    return type(cls.__name__, (cls,), {"__module__": cls.__module__, "__getattr__": read})


def only_calls(cls: type, attribute: str) -> bool:
    """Whether a class's code does nothing with self.<attribute> but call it: it might look into a Sequential."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return False
    uses, calls = 0, 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Load):
            uses += 1
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == attribute:
            calls += 1
    return uses == calls > 0


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
