"""Launches of PTX in cnnkernels._emulator, on tensors: what tests/emulator shares."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cnnkernels import _emulator
from helpers.triton_cases.cases import CASES, Box, Case

Triple = tuple[int, int, int]

# Orders of warps and moments of copies; races are looked for in all.
MODES = [
    {"late": False},
    {"late": True},
    {"late": True, "random": True, "seed": 1},
    {"late": True, "random": True, "seed": 2, "starve": True, "warps_meet": False},
]
# CUtensorMapDataType
MAP_TYPES = {
    torch.uint8: 0, torch.int8: 0, torch.float8_e4m3fn: 0, torch.float8_e5m2: 0, torch.uint16: 1, torch.int32: 3,
    torch.float16: 6, torch.float32: 7, torch.float64: 8, torch.bfloat16: 9,
}  # fmt: skip
TF32 = 11


@cache
def parsed(ptx: str, name: str) -> Any:
    return _emulator.parse(ptx, name)


def parameter_bytes(value: Any, size: int) -> bytes:
    if isinstance(value, torch.Tensor):
        value = value.data_ptr()
    if isinstance(value, float):
        return bytes(ctypes.c_float(value))
    return value if isinstance(value, bytes) else int(value).to_bytes(size, "little", signed=value < 0)


def launch(
    ptx: str,
    entry: str,
    values: list[Any],
    *,
    grid: Triple = (1, 1, 1),
    block: Triple = (32, 1, 1),
    cluster: Triple = (1, 1, 1),
    shared: int = 0,
    **mode: Any,
) -> Any:
    """Tensors are their addresses; bytes are passed by value; what a kernel takes beyond the values is zero."""
    program = parsed(ptx, f"{entry}.ptx")
    (declared,) = (each.parameters for each in _emulator.entries(program) if each.name == entry)
    assert len(values) <= len(declared)
    packed = bytearray(declared[-1].offset + declared[-1].bytes if declared else 0)
    for parameter, value in zip(declared, values, strict=False):
        packed[parameter.offset : parameter.offset + parameter.bytes] = parameter_bytes(value, parameter.bytes)
    return _emulator.run(
        program,
        entry,
        grid=grid,
        block=block,
        cluster=cluster,
        shared_bytes=shared,
        parameters=bytes(packed),
        mode=_emulator.Mode(**{"threads": 1, **mode}),
    )


def tiled_map(tensor: torch.Tensor, block: list[int], swizzle: int, nan_fill: bool = False, **more: Any) -> bytes:
    """Of a tensor whose dimensions, as the block's, are the outermost first."""
    strides = [stride * tensor.element_size() for stride in tensor.stride()[-2::-1]]
    size = list(tensor.shape[::-1])
    return _emulator.tiled_map(
        MAP_TYPES[tensor.dtype],
        tensor.data_ptr(),
        size,
        strides,
        block[::-1],
        swizzle=swizzle,
        nan_fill=nan_fill,
        **{"element_strides": [1] * tensor.dim(), **more},
    )


@cache
def compiled_triton() -> dict[str, dict[str, Any]]:
    """PTX and what its launch needs, of every case by its name. Compiled once, in a process that does not interpret."""
    tests = Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "CNNKERNELS_INTERPRET")}
    environment["PYTHONPATH"] = str(tests)
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "helpers.triton_cases.compiled", folder]
        done = subprocess.run(command, env=environment, cwd=tests, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(Path(folder, "compiled.json").read_text())


def triton_parameters(kernel: dict[str, Any], arguments: dict[str, Any]) -> list[Any]:
    values: list[Any] = []
    boxes = 0
    for name, value in arguments.items():
        if kernel["types"][name] == "constexpr":
            continue
        if isinstance(value, Box):
            tensor, swizzle = value.tensor, [0, 32, 64, 128][kernel["swizzles"][boxes]]
            values.append(tiled_map(tensor, kernel["blocks"][boxes], swizzle, value.padding == "nan"))
            values += [*tensor.shape, *tensor.stride()]
            boxes += 1
        else:
            values.append(value)
    return values


def run_case(case: Case, **mode: Any) -> list[str]:
    """Runs a case; the names of the arguments that are not what PyTorch computes."""
    kernel = compiled_triton()[case.name]
    arguments = case.arguments()
    expected = case.expected(arguments)
    values = triton_parameters(kernel, arguments)
    scratch = torch.zeros(
        max(kernel["scratch"], 1) * case.grid[0] * case.grid[1] * case.grid[2] + 128, dtype=torch.uint8
    )
    if kernel["scratch"]:
        values.append(-(-scratch.data_ptr() // 128) * 128)
    launch(
        kernel["ptx"],
        kernel["entry"],
        values,
        grid=(case.grid[0] * case.blocks, case.grid[1], case.grid[2]),
        block=(kernel["threads"], 1, 1),
        cluster=(case.blocks, 1, 1),
        shared=kernel["shared"],
        **mode,
    )
    found = {name: value.tensor if isinstance(value, Box) else value for name, value in arguments.items()}
    return [
        name for name, want in expected.items() if not torch.equal(found[name].nan_to_num(7e4), want.nan_to_num(7e4))
    ]


CASE_NAMES = [case.name for case in CASES]
