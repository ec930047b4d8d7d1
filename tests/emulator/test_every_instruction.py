"""Each instruction has a test of its own: those that the build's kernels contain, and each word that decides in the
emulator's decoders what an instruction does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DECODERS = TESTS.parent.parent / "csrc" / "emulator"
FILES = ["test_integers.py", "test_floats.py", "test_comparisons.py", "test_conversions.py", "test_control_flow.py"]
ARITHMETIC = re.compile(
    r"(abs|add|and|bfe|bfi|brev|clz|cnot|copysign|cos|cvt|div|dp[24]a|elect|ex2|fma|lg2|lop3|mad|max|min|mov|mul|neg|not"
    r"|or|popc|prmt|rcp|rem|rsqrt|sad|selp|set|setp|shfl|shl|shr|shf|sin|slct|sqrt|sub|tanh|testp|vote|xor)\b"
)


@cache
def tried() -> frozenset[str]:
    """The instructions in the texts of the unit tests, by a process that runs none of them."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-p"]
    command += ["helpers.instructions.tried", *(str(TESTS / file) for file in FILES)]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(command, env=environment, cwd=TESTS.parent.parent, capture_output=True, text=True)
    (found,) = [line for line in done.stdout.splitlines() if line.startswith("tried: ")]
    return frozenset(found.split()[1:])


def spelled_alike(opcode: str) -> str:
    """Types that are but bits, and words that change no result: state spaces, caches."""
    opcode = re.sub(r"^(mov|selp)\.[usfb](16|32|64)$", r"\1.b\2", opcode)
    opcode = re.sub(r"^(add|sub|mul\.lo|mad\.lo)\.[us](16|32|64)$", r"\1.s\2", opcode)
    opcode = re.sub(r"^(add|sub|mul|fma)\.(f32|f64)$", r"\1.rn.\2", opcode)
    return re.sub(r"^(setp\.(?:eq|ne))\.[usb](16|32|64)$", r"\1.b\2", opcode)


def test_arithmetic_of_the_kernels() -> None:
    pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")
    from helpers.every_kernel import archive, text_of

    statement = re.compile(r"^\s*(?:@!?%?\w+\s+)?([a-z][a-z0-9]*(?:\.[\w:]+)*)\s", re.MULTILINE)
    used = {opcode for image in archive() for opcode in statement.findall(text_of(image["file"]))}
    arithmetic = {opcode for opcode in used if ARITHMETIC.match(opcode)}
    assert len(arithmetic) > 150
    known = {spelled_alike(opcode) for opcode in tried()}
    assert sorted(opcode for opcode in arithmetic if spelled_alike(opcode) not in known) == []


def test_words_of_the_decoders() -> None:
    words = {word for opcode in tried() for word in opcode.split(".")}
    text = "".join(path.read_text() for path in sorted((DECODERS / "arithmetic").glob("*.cpp")))
    asked = re.findall(r'(?:\b(?:has|starts)\(|[=!]= ?)"([\w:.]+)"', text)
    assert len(asked) > 100
    assert sorted({word for each in asked for word in each.split(".")} - words) == ["rs"]  # refused, as Blackwell's
