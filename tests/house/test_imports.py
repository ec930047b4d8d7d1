"""Who may know whom: rooms of csrc by their includes, Triton's, Python's and the tests' by their imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# A room of csrc may include its own files and these rooms'. Every room that is not named is an operator's.
CSRC = {
    "interpreter": set(),
    "emulator": {"common"},  # its runtime the table of GPUs alone: two readings of the hardware stay two
    "ptx": {"common", "interpreter"},  # its models of instructions are fibers'
    "common": {"ptx", "interpreter"},  # types convert by the one, device.h takes its words from the other
    "gemm": {"common", "ptx"},
    "int8": {"common", "ptx", "gemm"},
}
OPERATOR = {"common", "ptx", "gemm", "int8"}

# Triton's operators share their vocabulary, and know the operators that they are made of.
TRITON = {
    "common": set(),
    "int8": {"common"},
    "depthwise_conv": {"common", "conv"},  # what no patch serves is conv's
    "depthwise_separable_conv": {"common", "depthwise_conv"},
    "int8_conv": {"common", "int8", "depthwise_conv", "int8_gemm"},
}
TRITON_OPERATOR = {"common", "int8"}

# From the top down: a room may import what stands below it, and itself.
PYTHON = (
    "cli", "learn", "visualize", "quantization", "convert", "proof", "tuning", "nn", "functional", "ops", "testing",
    "backends", "certified", "emulator", "mixed", "native", "triton_kernels", "records", "int8", "epilogue", "geometry",
    "activation", "operators", "scope", "dtypes", "scripting", "environment", "package",
)  # fmt: skip


def csrc_edges() -> Iterator[tuple[str, str]]:
    """(file, room it includes from) of every include that leaves its room."""
    csrc = ROOT / "csrc"
    for path in sorted(csrc.rglob("*")):
        if path.suffix not in (".h", ".cuh", ".cu", ".cpp") or path.parent == csrc:
            continue
        room = path.relative_to(csrc).parts[0]
        for name in re.findall(r'#\s*include\s+"([^"]+)"', path.read_text()):
            target = (path.parent / name).resolve()
            if not target.exists():
                target = (csrc / name).resolve()
            if target.exists() and (other := target.relative_to(csrc).parts[0]) != room:
                yield str(path.relative_to(csrc)), other


def test_rooms_of_csrc() -> None:
    edges = set(csrc_edges())
    assert len(edges) > 100
    breaches = {(file, room) for file, room in edges if room not in CSRC.get(file.split("/")[0], OPERATOR)}
    assert not breaches
    assert {file for file, _ in edges if file.startswith("emulator/")} == {"emulator/runtime/device.h"}


def imports(path: Path, package: str) -> Iterator[str]:
    """Dotted names that a file imports, made absolute; `from x import y` gives x.y."""
    base = package.split(".")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = base[: len(base) - node.level + 1] if node.level else []
            parts = [*parts, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def python_edges(folder: Path, root: str) -> Iterator[tuple[str, str]]:
    """(file, room it imports from) within a package, of every import that leaves its room."""
    rooms = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()} - {"__init__"}
    if root == "cnnkernels":
        rooms.add("triton_kernels")
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder)
        if len(name.parts) == 1 and name.stem in ("__init__", "__main__"):
            continue
        package = ".".join([root, *name.parts[:-1]])
        room = name.parts[0].removesuffix(".py")
        for target in imports(path, package):
            if target.startswith(root + ".") and (other := target.split(".")[root.count(".") + 1]) in rooms - {room}:
                yield str(name), other


def test_rooms_of_triton_kernels() -> None:
    edges = set(python_edges(ROOT / "triton_kernels", "cnnkernels.triton_kernels"))
    assert len(edges) > 30
    breaches = {(file, room) for file, room in edges if room not in TRITON.get(file.split("/")[0], TRITON_OPERATOR)}
    assert not breaches
    named = {(word, room) for word, rooms in TRITON.items() for room in rooms}
    assert named <= {(file.split("/")[0], room) for file, room in edges}, "an edge that nothing takes any more"


def test_python_imports_downwards() -> None:
    edges = set(python_edges(ROOT / "cnnkernels", "cnnkernels"))
    assert len(edges) > 60
    order = {room: place for place, room in enumerate(PYTHON)}
    unknown = {room for file, other in edges for room in (file.split("/")[0].removesuffix(".py"), other)} - set(order)
    assert not unknown, "a room without a place in the order"
    breaches = {(f, room) for f, room in edges if order[room] < order[f.split("/")[0].removesuffix(".py")]}
    assert not breaches


def test_tests_share_by_helpers() -> None:
    """A test, or what helps it, takes nothing from a test: neither from its folder nor from another."""
    tests = ROOT / "tests"
    files = sorted(path for path in tests.rglob("*.py") if "csrc" not in path.parts)
    assert len(files) > 100
    shared = {"helpers", "oracles"}
    own = {path.stem for path in files if path.relative_to(tests).parts[0] not in shared}
    own |= {path.name for path in tests.iterdir() if path.is_dir()} - shared - {"benchmarks"}  # the project's, too
    breaches = {
        (str(path.relative_to(tests)), name)
        for path in files
        for name in imports(path, "")
        if name.split(".")[0] in own
    }
    assert not breaches


@pytest.mark.parametrize("module", ["torch", "triton", "cnnkernels"])
def test_the_interpreter_and_the_kernels_know_nothing_of(module: str) -> None:
    """csrc takes pointers, sizes and a stream, so it works with any version of torch."""
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix in (".h", ".cuh", ".cu", ".cpp"):
            assert not re.search(rf"#\s*include\s*[<\"]({module}|ATen|c10)/", path.read_text()), path
