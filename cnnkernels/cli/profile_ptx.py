"""Anybody's kernel for `cnnkernels profile --ptx`: its launch and its arguments, as words of the command line."""

from __future__ import annotations

import argparse
import importlib
import re
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..dtypes import ELEMENTS
from ..emulator.profile import of_ptx
from .arguments import ints
from .profile_report import Measured

# A scalar's bytes, by its type.
SCALARS = {"int8": "<b", "uint8": "<B", "int32": "<i", "int64": "<q", "fp32": "<f", "fp64": "<d"}


def add_options(options: argparse._ArgumentGroup) -> None:
    """Those of a launch."""
    options.add_argument("--ptx", metavar="FILE", help="instead of an operator: what `nvcc -ptx` wrote")
    options.add_argument("--entry", metavar="NAME", help="the kernel, mangled as in FILE (default: the only one there)")
    options.add_argument("--grid", type=ints(1, 2, 3), default=(1,), metavar="X[,Y,Z]")
    options.add_argument("--block", type=ints(1, 2, 3), default=(32,), metavar="X[,Y,Z]", help="default: 32 threads")
    options.add_argument("--cluster", type=ints(1, 2, 3), default=(1,), metavar="X[,Y,Z]")
    options.add_argument("--shared", type=int, default=0, metavar="BYTES", help="of dynamic shared memory")
    options.add_argument(
        "--parameters",
        nargs="*",
        default=[],
        metavar="TYPE[N]|TYPE=X",
        help="in order: fp32[4096] is memory with so many random numbers, int32=7 a number",
    )


def parameter(word: str) -> Tensor | bytes:
    """Memory, or a number's bytes; ValueError for a word that is neither."""
    memory, number = re.fullmatch(r"(\w+)\[(\d+)\]", word), re.fullmatch(r"(\w+)=(\S+)", word)
    if memory is not None and memory[1] in ELEMENTS:
        dtype, count = ELEMENTS[memory[1]].dtype, int(memory[2])
        return torch.rand(count).to(dtype) if dtype.is_floating_point else torch.randint(0, 10, (count,)).to(dtype)
    if number is not None and number[1] in SCALARS:
        try:
            value = float(number[2]) if number[1].startswith("fp") else int(number[2])
            return struct.pack(SCALARS[number[1]], value)
        except (ValueError, struct.error) as error:
            raise ValueError(f"--parameters: {word}: {error}") from None
    raise ValueError(
        f"--parameters must be TYPE[N] of {', '.join(ELEMENTS)} or TYPE=X of {', '.join(SCALARS)}, but got {word}"
    )


def profiled(args: argparse.Namespace) -> Measured:
    """Raises ValueError for what the file and the kernel do not have; an EmulatorFault is let through."""
    emulator: Any = importlib.import_module("cnnkernels._emulator")
    if not Path(args.ptx).is_file():
        raise ValueError(f"--ptx: there is no file {args.ptx}")
    program = emulator.parse(Path(args.ptx).read_text(), args.ptx)
    entries = {entry.name: entry for entry in emulator.entries(program)}
    name = next(iter(entries)) if args.entry is None and len(entries) == 1 else args.entry
    if name not in entries:
        raise ValueError(f"--entry must be one of {', '.join(entries)}, but got {name}")
    entry = entries[name]
    given = [parameter(word) for word in args.parameters]
    if len(given) != len(entry.parameters):
        raise ValueError(f"{entry.name} has {len(entry.parameters)} parameters, but --parameters has {len(given)}")
    values = bytearray(max((p.offset + p.bytes for p in entry.parameters), default=0))
    tensors: dict[str, Tensor] = {}
    for number, (value, declared) in enumerate(zip(given, entry.parameters, strict=True)):
        if isinstance(value, Tensor):
            tensors[f"parameter {number}"] = value
        packed = struct.pack("<Q", value.data_ptr()) if isinstance(value, Tensor) else value
        if len(packed) != declared.bytes:
            raise ValueError(f"--parameters: number {number} has {declared.bytes} bytes, not {len(packed)}")
        values[declared.offset : declared.offset + declared.bytes] = packed
    launch: dict[str, Any] = {
        name: (*getattr(args, name), 1, 1)[:3] for name in ("grid", "block", "cluster")
    }  # fmt: skip
    found = of_ptx(
        program,
        entry.name,
        **launch,
        shared_bytes=args.shared,
        parameters=bytes(values),
        memory=[(tensor.data_ptr(), tensor.nbytes) for tensor in tensors.values()],
        blocks=args.blocks,
    )
    return Measured(f"{entry.name} of {args.ptx}", [found], tensors, 0.0, 0)
