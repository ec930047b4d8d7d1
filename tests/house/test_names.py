"""Names and sizes: what is private stays in its file, what a comment names exists, rooms do not overflow."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from helpers.sources import ROOT, tracked

EXAMPLE = "global_avg_pool"  # the operator that docs/add_an_operator.md makes
NATIVE = "_cuda", "_emulated", "_emulator", "_interpreter"  # modules, private to the package
MOST_LINES = 400
MOST_SUBJECTS = 24  # of a folder


def private(name: str) -> bool:
    """A named tuple's own methods begin with an underscore, too."""
    return name.startswith("_") and not name.startswith("__") and name not in ("_fields", "_replace", "_asdict")


def private_names_taken(path: Path) -> set[str]:
    """Private names of another file of the project: imported, or read from a module that was."""
    tree = ast.parse(path.read_text())
    modules: set[str] = set()
    taken: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("cnnkernels")):
            for alias in node.names:
                modules.add(alias.asname or alias.name)
                if private(alias.name) and alias.name not in NATIVE:
                    taken.add(alias.name)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and private(node.attr)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            taken.add(f"{node.value.id}.{node.attr}")
    return taken


def test_private_names_stay_in_their_file() -> None:
    files = tracked("cnnkernels/*.py", "triton_kernels/*.py", "benchmarks/*.py")
    assert len(files) > 100
    breaches = {(str(path.relative_to(ROOT)), name) for path in files for name in private_names_taken(path)}
    assert breaches == set()


def test_files_have_one_subject() -> None:
    files = tracked("*.py", "*.cu", "*.cuh", "*.h", "*.cpp")
    assert len(files) > 400
    assert [f"{p.relative_to(ROOT)}: {n}" for p in files if (n := len(p.read_text().splitlines())) > MOST_LINES] == []


ELEMENT_TYPES = {"float16", "bfloat16", "tf32", "float32", "float64", "exact"}


def test_folders_have_room() -> None:
    """x.h and x.cpp are one subject, and so are the instantiations of a kernel for each element type."""
    subjects: dict[str, set[str]] = {}
    for path in tracked("csrc", "cnnkernels", "triton_kernels", "benchmarks", "tests"):
        if path.suffix not in (".py", ".cu", ".cuh", ".h", ".cpp"):
            continue
        stem = "_".join(word for word in path.stem.split("_") if word not in ELEMENT_TYPES)
        subjects.setdefault(str(path.parent.relative_to(ROOT)), set()).add(stem)
    assert len(subjects) > 30
    assert {room for room, names in subjects.items() if len(names) > MOST_SUBJECTS} == set()


GROUND = {"common", "emulator", "ptx", "interpreter"}  # rooms of csrc whose words are everyone's
FORWARD_DECLARATION = r"(?:enum class|struct|class) \w+(?: : \w+)?;.*"


def test_operators_have_a_namespace_each() -> None:
    """The folder's: two may have types of one name. Elsewhere they only say that something exists."""
    opened = 0
    for path in tracked("csrc"):
        room = path.relative_to(ROOT / "csrc").parts[0]
        if path.suffix not in (".cu", ".cuh", ".h", ".cpp") or room in GROUND or path.parent.name == "csrc":
            continue
        for name, body in re.findall(r"^namespace ([\w:]+) \{\n(.*?)^\}", path.read_text(), re.MULTILINE | re.DOTALL):
            opened += 1
            if not f"{name}::".startswith(f"cnnkernels::{room}::"):
                assert [line for line in body.splitlines() if not re.fullmatch(FORWARD_DECLARATION, line)] == [], path
    assert opened > 150


def test_paths_that_are_named_exist() -> None:
    """In comments, docstrings and documents: by as much of the path as tells which file is meant."""
    missing = Counter()
    looked_at = 0
    places = [f"/{path.relative_to(ROOT)}" for path in tracked()]
    for path in tracked("*.py", "*.cu", "*.cuh", "*.h", "*.cpp", "*.md", "*.sh", "Makefile"):
        if path.name == "CHANGELOG.md" or "tests" in path.relative_to(ROOT).parts:  # tests make files up
            continue
        for name in re.findall(
            r"(?<![\w/.{*<-])(?:[\w-]+/)+[\w-]+\.(?:py|h|cuh|cu|cpp|md|json|sh)(?![\w*])", path.read_text()
        ):
            looked_at += 1
            if EXAMPLE not in name and not any(place.endswith(f"/{name}") for place in places):
                missing[f"{path.relative_to(ROOT)}: {name}"] += 1
    assert looked_at > 200
    assert not missing
