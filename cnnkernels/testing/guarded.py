"""Tensors that end, or begin, flush against an inaccessible page.

A kernel that reads or writes one byte out of such a tensor's bounds is a KernelFault, in the interpreter and in the
emulator, where it would otherwise have read the allocator's next block unnoticed.
"""

from __future__ import annotations

import ctypes
import weakref
from types import ModuleType

import torch
from torch import Tensor

from .. import backends, native


class _Memory:
    """Guarded bytes; what is made from them by the buffer protocol keeps them alive."""

    def __init__(self, nbytes: int, after: bool, module: ModuleType) -> None:
        self.pointer: int = module.guarded_alloc(nbytes, after)
        weakref.finalize(self, module.guarded_free, self.pointer)


def guarded(tensor: Tensor, after: bool = True, module: ModuleType | None = None) -> Tensor:
    """A copy of a dense CPU tensor, with its strides, in guarded memory.

    after=True puts the inaccessible page right behind the last element, False right before the first. With
    after=True the data is aligned to its element only, unless its size is a multiple of 4 KB. `module` is the native
    module whose kernels will use it, that of CPU tensors if none is named.
    """
    count = tensor.numel()
    if not torch.empty_like(tensor).stride() == tensor.stride():
        raise ValueError(f"expected a dense tensor, got strides {tensor.stride()} for shape {tuple(tensor.shape)}")
    if count == 0:
        return torch.empty_like(tensor)
    nbytes = count * tensor.element_size()
    memory = _Memory(nbytes, after, module or native.load(backends.CPU_MODULE).module)
    buffer = (ctypes.c_char * nbytes).from_address(memory.pointer)
    buffer._memory = memory  # type: ignore[attr-defined]
    flat = torch.frombuffer(buffer, dtype=tensor.dtype)
    copy = flat.as_strided(tensor.shape, tensor.stride())
    return copy.copy_(tensor)
