"""What ARCHITECTURE.md says must stay true, as far as words in the sources tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
KERNELS = {
    str(path.relative_to(ROOT)): re.sub(r"//.*", "", path.read_text())
    for path in sorted((ROOT / "csrc").rglob("*"))
    if path.suffix in (".h", ".cuh", ".cu", ".cpp")
}
TRITON = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "triton_kernels").rglob("*.py"))}

# word, where it may stand
FORBIDDEN = {
    "inline assembly": (r"\basm\b", r"csrc/ptx/|csrc/interpreter/fiber\.cpp"),
    "a launch": (r"<<<", r"$^"),
    "shared memory of its own": (r"\b__shared__\b", r"csrc/common/device\.h"),
    "torch": (r"\b(?:torch|ATen|at|c10)(?:::|/)", r"$^"),
    # Maxima of integers and a count of blocks: the same in any order.
    "atomics": (r"\batomic(?!Max\b)[A-Z]\w*", r"csrc/interpreter/|csrc/quantize/absmax\.cuh"),
    "a fault that is passed over": (r"\bcatch\s*\(", r"csrc/(?:interpreter|emulator)/"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_kernels_do_without(what: str) -> None:
    word, allowed = FORBIDDEN[what]
    assert [name for name, text in KERNELS.items() if re.search(word, text) and not re.match(allowed, name)] == []
    assert len(KERNELS) > 200
    if allowed != "$^":  # else the pattern might see nothing at all
        assert any(re.search(word, text) for name, text in KERNELS.items() if re.match(allowed, name))


def test_atomics_are_of_integers() -> None:
    """One adds up: it counts blocks. Triton's are maxima."""
    found = [
        line.strip() for text in KERNELS.values() for line in text.splitlines() if re.search(r"\batomicAdd\(m", line)
    ]
    assert found == ["is_last[0] = atomicAdd(maxima.blocks, 1u) + 1 == gridDim.x;"]
    used = {name for text in TRITON.values() for name in re.findall(r"\btl\.atomic_\w+", text)}
    assert used == {"tl.atomic_max"}


def test_sums_of_triton_are_in_an_order_of_their_own_or_exact() -> None:
    """tl.sum's order is that of a layout, which depends on pointers and sizes (triton_kernels/common/sums.py)."""
    lines = [
        line.strip()
        for text in TRITON.values()
        for line in text.splitlines()
        if re.search(r"\btl\.(sum|reduce)\(", line)
    ]
    assert len(lines) == 4 and [line for line in lines if "  # exact: " not in line] == []


# Files of the cache are nobody's request: of these alone one that cannot be read is passed over, and a warning says so.
SAYS_SO = "cnnkernels/records/left_out.py"
# What a call goes through, from the function to the launch.
ON_THE_WAY = ("nn", "functional", "ops", "native", "int8", "records", "backends.py", "dtypes.py", "geometry.py")


def called(*nodes: ast.AST) -> set[str]:
    return {ast.unparse(call.func) for node in nodes for call in ast.walk(node) if isinstance(call, ast.Call)}


def silent(tree: ast.AST) -> Iterator[int]:
    """Lines that catch an error and go on without it: neither do they raise, nor does what follows at once, nor do
    they ask the same function again."""
    for node in ast.walk(tree):
        for body in (value for _, value in ast.iter_fields(node) if isinstance(value, list)):
            for place, statement in enumerate(body):
                if isinstance(statement, ast.Try):
                    after = body[place + 1 :]
                    falls_into = bool(after) and isinstance(after[0], ast.Raise)
                    for handler in statement.handlers:
                        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
                        again = bool(called(*statement.body)) and called(*statement.body) <= called(*handler.body)
                        if not raises and not again and not (falls_into and isinstance(handler.body[0], ast.Pass)):
                            yield handler.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "contextlib.suppress",
            "suppress",
            "warnings.warn",
        ):
            yield node.lineno


def test_nothing_falls_back_in_silence() -> None:
    """No error is swallowed and no warning stands for one: a call is served as asked, or says why it is not."""
    paths = [path for room in ON_THE_WAY for path in sorted((ROOT / "cnnkernels" / room).rglob("*.py"))]
    paths += [ROOT / "cnnkernels" / room for room in ON_THE_WAY if room.endswith(".py")]
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in paths} | TRITON
    assert len(texts) > 80
    lines = [f"{name}:{line}" for name, text in texts.items() for line in silent(ast.parse(text))]
    assert [line.partition(":")[0] for line in lines] == [SAYS_SO] * 2, lines  # the one that is caught, and the warning


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("try:\n  f()\nexcept ValueError:\n  g()", [3]),
        ("try:\n  f()\nexcept ValueError:\n  pass\ng()", [3]),
        ("try:\n  f()\nexcept ValueError:\n  pass\nraise TypeError", []),
        ("try:\n  f()\nexcept ValueError as error:\n  raise TypeError from error", []),
        ("try:\n  f(x)\nexcept TypeError:\n  f(tuple(x))", []),
        ("with contextlib.suppress(ValueError):\n  f()", [1]),
        ("def f():\n  warnings.warn('slow')", [2]),
    ],
)
def test_the_lint_sees_what_is_silent(text: str, lines: list[int]) -> None:
    assert list(silent(ast.parse(text))) == lines


def test_the_reference_is_pytorchs_own() -> None:
    """A function calls PyTorch's operator for the reference and for what is empty, and in no other case."""
    calls = 0
    for path in sorted((ROOT / "cnnkernels/functional").glob("*.py")):
        tree = ast.parse(path.read_text())
        chosen = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "'reference'" in ast.unparse(node.test)
        ]
        served = {call.lineno for test in chosen for part in test.body for call in reference_calls(part)}
        assert {call.lineno for call in reference_calls(tree)} <= served, path
        calls += len(served)
    assert calls > 3


def reference_calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in ("_reference", "_plain"):
            yield node
