"""What Triton's masked loads put where there is no element.

Triton 3.7 compiles a constant of 8 or 16 bits with its highest bit set into a register of which all elements but the
first are -1; its interpreter does not. So loads fill with zeros, or with a number of the launch
(triton_kernels/common/types.py, load_filled).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cnnkernels.triton_kernels
import pytest

from cnnkernels.testing.quantize_aot import POOLS, Int8PoolCall
from cnnkernels.testing.triton_aot import Compiled, compile_all

ROOM = Path(cnnkernels.triton_kernels.__file__).parent
SOURCES = {str(path.relative_to(ROOM)): path.read_text() for path in sorted(ROOM.rglob("*.py"))}
# Loads of more than 16 bits, and floating ones, are filled with any constant: max_unpool2d's indices have 64 bits.
ALLOWED = {"0", "0.0", "float('-inf')"}
EXCEPT = {"pool/max_unpool.py": {"-1"}, "common/types.py": {"tl.cast(fill, pointers.dtype.element_ty)"}}


def fills(source: str) -> list[str]:
    """What the source's loads are filled with."""
    loads = [
        call
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("tl.load", "load", "triton.language.load")
    ]
    return [ast.unparse(word.value) for call in loads for word in call.keywords if word.arg == "other"] + [
        ast.unparse(call.args[2]) for call in loads if len(call.args) > 2
    ]


@pytest.mark.parametrize("name", SOURCES)
def test_loads_are_filled_with_zeros(name: str) -> None:
    assert set(fills(SOURCES[name])) <= ALLOWED | EXCEPT.get(name, set())


def test_the_lint_sees_fills() -> None:
    assert sum(len(fills(source)) for source in SOURCES.values()) > 50
    assert fills("x = tl.load(p, mask=m, other=OTHER).to(tl.int32)\ny = tl.load(p, m, -128)") == ["OTHER", "-128"]


def test_a_number_of_the_launch_fills() -> None:
    """load_filled's fill is a parameter of a kernel all the way up, or is computed from one."""
    calls = {
        name: ast.unparse(call.args[2])
        for name, source in SOURCES.items()
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "load_filled"
    }
    assert calls == {"int8_conv/forward.py": "fill", "int8_pool/int8_pool.py": "outside"}


@pytest.fixture(scope="module")
def pools() -> list[Compiled]:
    two = POOLS[1]
    calls = [Int8PoolCall(two, arch) for arch in (80, 90, 100)] + [Int8PoolCall(two, 90, unsigned=True)]
    return list(compile_all(calls, processes=1))


def test_int8_pools_are_filled_with_no_constant_but_zero(pools: list[Compiled]) -> None:
    """The maximum of int8 with a register, of a number of the launch; the others with zeros."""
    constant, register = (
        re.compile(rf"begin inline asm\s+(?:mov\.u32 %r\d+, ({what});\s+)+@%p\d+ ld\.global")
        for what in ("0x[0-9a-f]+", r"%r\d+")
    )
    filled = [
        (k.arch, k.specialization.split()[0], set(constant.findall(k.ptx)), register.search(k.ptx)) for k in pools
    ]
    assert [(arch, dtype) for arch, dtype, _, by in filled if by] == [(80, "int8"), (90, "int8"), (100, "int8")]
    zeros = [(arch, dtype) for arch, dtype, constants, _ in filled if constants == {"0x0"}]
    assert sorted(zeros) == [(80, "int8"), (90, "int8"), (90, "uint8"), (90, "uint8"), (100, "int8")]
    assert len(filled) == len(zeros) + 3
