"""Profiles of small kernels written as PTX: what the profiler's tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from cnnkernels import _emulator
from cnnkernels.emulator.profile import Profile, of_ptx
from helpers.emulated.launches import parameter_bytes, parsed
from helpers.instructions.ptx import kernel

SHARED = ".shared .align 1024 .b8 memory[32768];\n"


def profile(body: str, *tensors: Any, threads: int = 32, outside: str = SHARED, **options: Any) -> Profile:
    """Of a kernel `test` around `body`, whose parameters are `out` and `x`; in %r90 is the thread's number."""
    names = ["out", "x"][: len(tensors)]
    ptx = kernel(f"  mov.u32 %r90, %tid.x;\n{body}", parameters=names, outside=outside)
    return profile_text(ptx, *tensors, threads=threads, **options)


def profile_text(
    ptx: str, *tensors: Any, threads: int = 32, grid: Sequence[int] = (1, 1, 1), **options: Any
) -> Profile:
    program = parsed(ptx, "test.ptx")
    ((declared, _),) = [(entry.parameters, entry) for entry in _emulator.entries(program)]
    packed = bytearray(declared[-1].offset + declared[-1].bytes if declared else 0)
    for parameter, value in zip(declared, tensors, strict=True):
        packed[parameter.offset : parameter.offset + parameter.bytes] = parameter_bytes(value, parameter.bytes)
    memory = [(tensor.data_ptr(), tensor.nbytes) for tensor in tensors if isinstance(tensor, torch.Tensor)]
    memory += options.pop("memory", [])
    return of_ptx(program, "test", grid=grid, block=(threads, 1, 1), parameters=bytes(packed), memory=memory, **options)


def row(profile: Profile, opcode: str) -> dict[str, Any]:
    """The one instruction whose name begins so."""
    (found,) = [row for row in profile.rows if row["opcode"].startswith(opcode)]
    return found


def aligned(count: int, dtype: torch.dtype = torch.int32, to: int = 128) -> torch.Tensor:
    """Zeros, whose address is a multiple of `to`."""
    memory = torch.zeros(count * dtype.itemsize + to, dtype=torch.uint8)
    start = -memory.data_ptr() % to
    return memory[start : start + count * dtype.itemsize].view(dtype)
