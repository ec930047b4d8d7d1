"""Small kernels around one instruction, for tests of what it computes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from helpers.emulated.launches import launch

HEADER = ".version 8.6\n.target sm_90a\n.address_size 64\n"
LONGEST = 1024  # threads of a block


def kernel(body: str, *, parameters: Sequence[str] = (), directives: str = "", outside: str = "") -> str:
    """An entry `test` with 64-bit parameters, each in a register of its name."""
    declared = ", ".join(f".param .u64 {name}_parameter" for name in parameters)
    loads = "".join(f"  ld.param.u64 %{name}, [{name}_parameter];\n" for name in parameters)
    registers = "".join(f"  .reg .b64 %{name};\n" for name in parameters)
    return (
        f"{HEADER}{outside}.visible .entry test({declared}) {directives}\n{{\n"
        "  .reg .pred %p<9>;\n  .reg .b16 %h<9>;\n  .reg .b32 %r<99>;\n  .reg .b64 %d<99>;\n"
        f"{registers}{loads}{body}\n  ret;\n}}\n"
    )


def size_of(kind: str) -> int:
    """Bytes of a type's register: pred is kept as a byte."""
    if kind == "pred":
        return 1
    digits = kind.removesuffix("x2").lstrip("abcdefghijklmnopqrstuvwxyz")
    bits = {"e4m3": 8, "e5m2": 8, "tf32": 32}.get(kind.removesuffix("x2")) or int(digits)
    return bits * (2 if kind.endswith("x2") else 1) // 8


def evaluate(instruction: str, result: str, sources: Sequence[str], values: Sequence[Sequence[int]]) -> list[int]:
    """What `instruction`, with $d for its result and $a, $b, $c, $e for its sources, makes of rows of bits.

    Registers have at least two bytes, as PTX's; a predicate is 0 or 1. `$p` is a predicate's name for further use.
    """
    assert values
    results: list[int] = []
    for start in range(0, len(values), LONGEST):
        results += _evaluate(instruction, result, sources, values[start : start + LONGEST])
    return results


def _evaluate(instruction: str, result: str, sources: Sequence[str], values: Sequence[Sequence[int]]) -> list[int]:
    names = "abce"[: len(sources)]
    body = ["  .reg .b32 %thread;", "  mov.u32 %thread, %tid.x;", "  .reg .b64 %at;"]
    tensors = [torch.zeros(len(values) * max(size_of(result), 2), dtype=torch.uint8)]
    for name, kind, column in zip(names, sources, zip(*values, strict=True), strict=True):
        size = max(size_of(kind), 2)
        raw = b"".join((value % (1 << 8 * size)).to_bytes(size, "little") for value in column)
        tensors.append(torch.frombuffer(bytearray(raw), dtype=torch.uint8))
        body.append(f"  mad.wide.u32 %at, %thread, {size}, %{name};")
        body.append(f"  .reg .b{8 * size} %{name}_value;")
        body.append(f"  ld.global.b{8 * size} %{name}_value, [%at];")
        if kind == "pred":
            body.append(f"  .reg .pred %{name}_predicate;\n  setp.ne.b16 %{name}_predicate, %{name}_value, 0;")
    text = instruction.replace("$d", "%result_predicate" if result == "pred" else "%result")
    for name, kind in zip(names, sources, strict=True):
        text = text.replace(f"${name}", f"%{name}_predicate" if kind == "pred" else f"%{name}_value")
    size = max(size_of(result), 2)
    body.append(f"  .reg .b{8 * size} %result;")
    if result == "pred":
        body += ["  .reg .pred %result_predicate;", f"  {text}", "  selp.b16 %result, 1, 0, %result_predicate;"]
    else:
        body.append(f"  {text}")
    body += [f"  mad.wide.u32 %at, %thread, {size}, %out;", f"  st.global.b{8 * size} [%at], %result;"]
    ptx = kernel("\n".join(body), parameters=["out", *names])
    launch(ptx, "test", tensors, block=(len(values), 1, 1))
    found = bytes(tensors[0].tolist())
    return [int.from_bytes(found[i : i + size], "little") for i in range(0, len(found), size)]


def check(
    instruction: str, result: str, sources: Sequence[str], rows: Sequence[Sequence[int]], want: Callable[..., int]
) -> None:
    """Bits equal what `want` says of a row's, both taken modulo the result's size."""
    found = evaluate(instruction, result, sources, rows)
    modulus = 2 if result == "pred" else 1 << 8 * max(size_of(result), 2)
    wrong = [
        (instruction, [hex(bits) for bits in row], hex(bits), hex(want(*row) % modulus))
        for row, bits in zip(rows, found, strict=True)
        if bits != want(*row) % modulus
    ]
    assert wrong == []


def edges(kind: str) -> list[int]:
    """Bits that integers go wrong at, and some that are like none of them."""
    bits = 8 * size_of(kind)
    top = 1 << (bits - 1)
    plain = [0x5, 0x1234567890ABCDEF, 0xFEDCBA9876543210]
    return sorted({value % (1 << bits) for value in [0, 1, 2, -1, -2, top, top - 1, top + 1, *plain]})


def product(*columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(itertools.product(*columns))


def signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def number(value: int, kind: str) -> int:
    """What bits are as the integer type has them."""
    bits = 8 * size_of(kind)
    return signed(value, bits) if kind.startswith("s") else value % (1 << bits)


def run(ptx: str, tensors: list[Any], **options: Any) -> Any:
    return launch(ptx, "test", tensors, **options)
