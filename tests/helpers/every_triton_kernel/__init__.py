"""Launches in the emulator that together reach every Triton kernel in every configuration that may be chosen, as
Triton compiles it for a GPU.

A room has trials, small problems of small integers, each compared with PyTorch; and what it wants to have seen, from
the tables that selection reads. `python -m helpers.every_triton_kernel.found`, a process for each GPU, runs and prints.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import triton

from cnnkernels import triton_kernels

# What the same code is compiled to differs in: by the GPU, and by where the sources lay when it was compiled, which
# Triton's cache does not ask about.
ASIDE = re.compile(
    r"^\.(?:version|target) .*|^\s*\.(?:file|loc)\s.*|^\s*\.section\s+\.debug[\s\S]*|//.*|sm_\d+a?", re.MULTILINE
)


class Trial(NamedTuple):
    name: str
    is_right: Callable[[], bool]


class Launch(NamedTuple):
    """A kernel with its compile-time arguments, the type of its first tensor, and what was compiled, as a number."""

    kernel: str
    constants: dict[str, Any]
    element: torch.dtype
    arguments: str  # what it was specialised for
    compiled: str

    def has(self, **constants: Any) -> bool:
        return all(self.constants.get(name) == value for name, value in constants.items())


class Wanted(NamedTuple):
    """A kernel in a configuration. `every_gpu`: it has products or bf16, for which GPUs differ in instructions; any
    other is the same PTX for all, and is launched on one."""

    kernel: str
    configuration: str
    seen: Callable[[Launch], bool]
    every_gpu: bool

    @property
    def name(self) -> str:
        return f"{self.kernel}, {self.configuration}"


def in_turn(items: list[Any], number: int) -> Any:
    return items[number % len(items)]


def name_of(function: triton.JITFunction) -> str:
    """As conv.forward.forward_kernel."""
    return f"{function.fn.__module__.removeprefix(triton_kernels.__name__ + '.')}.{function.fn.__name__}"


def functions() -> list[triton.JITFunction]:
    """All that are compiled."""
    found = []
    for module in pkgutil.walk_packages(triton_kernels.__path__, triton_kernels.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, triton.JITFunction) and value.fn.__module__ == module.name:
                found.append(value)
    return found


def kernels() -> list[str]:
    """Those that no other calls."""
    called = {
        id(each.fn.__globals__.get(node.id))
        for each in functions()
        for node in ast.walk(ast.parse(each.src))
        if isinstance(node, ast.Name)
    }
    return [name_of(each) for each in functions() if id(each) not in called]


@contextlib.contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches within it."""
    launches: list[Launch] = []
    run = triton.JITFunction.run

    def noted(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=warmup, **options)
        tensor = next(each for each in args if isinstance(each, torch.Tensor))
        constants = {name: value for name, value in options.items() if name in self.arg_names or "num_" in name}
        compiled = hashlib.sha256(ASIDE.sub("", kernel.asm["ptx"].decode()).encode()).hexdigest()
        arguments = f"{kernel.src.signature} {kernel.src.constants} {kernel.src.attrs}"
        launches.append(Launch(name_of(self), constants, tensor.dtype, arguments, compiled))
        return kernel

    triton.JITFunction.run = noted
    try:
        yield launches
    finally:
        triton.JITFunction.run = run


@contextlib.contextmanager
def with_64_bits() -> Iterator[None]:
    """Kernels within it take every tensor to be beyond what 32 bits index."""
    modules = [
        module
        for each in pkgutil.walk_packages(triton_kernels.__path__, triton_kernels.__name__ + ".")
        if hasattr(module := importlib.import_module(each.name), "LARGEST_INDEX")
    ]
    before = [module.LARGEST_INDEX for module in modules]
    try:
        for module in modules:
            module.LARGEST_INDEX = 0  # type: ignore[attr-defined]
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.LARGEST_INDEX = value  # type: ignore[attr-defined]
