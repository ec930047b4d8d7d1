"""One word for an operator, in every folder: who knows it finds its kernels, launchers, tests, page and benchmark."""

from __future__ import annotations

import re

import pytest

from benchmarks.families import FAMILIES
from cnnkernels.operators import OPERATORS
from helpers.bench import ROOT

WORDS = sorted({operator.word for operator in OPERATORS.values()})
SHARED = {"common", "emulator", "gemm", "int8", "interpreter", "ptx"}  # the rooms of csrc that are no operator's
ROOMS = (
    "csrc/{}", "triton_kernels/{}", "cnnkernels/ops/{}.py", "cnnkernels/native/{}.py", "cnnkernels/functional/{}.py",
    "tests/{}", "docs/{}.md",
)  # fmt: skip

# May only shrink: operators that nothing measures.
NOT_MEASURED = {"int8_pool", "int8_weight_only_linear", "norm", "quantize"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_word_has_its_rooms(room: str) -> None:
    assert len(WORDS) > 7
    assert [word for word in WORDS if not (ROOT / room.format(word)).exists()] == []


def test_every_operator_is_in_the_list() -> None:
    """A folder of csrc or triton_kernels that is not shared is an operator's."""
    for place, shared in (("csrc", SHARED), ("triton_kernels", {"common", "int8"})):
        folders = {path.name for path in (ROOT / place).iterdir() if path.is_dir() and path.name != "__pycache__"}
        assert folders - shared == set(WORDS), place


def test_what_is_measured_is_what_the_list_says() -> None:
    measured = {name: operator for operator in OPERATORS.values() for name in operator.measured}
    assert set(FAMILIES) == set(measured)
    assert set(WORDS) - {operator.word for operator in measured.values()} == NOT_MEASURED


def namespaces(text: str) -> set[str]:
    """Those that a file puts something into: declarations of what stands elsewhere do not count."""
    found = set()
    for name, body in re.findall(
        r"^namespace (\w[\w:]*) \{(.*?)(?=^namespace |^\})", re.sub(r"//.*", "", text), re.MULTILINE | re.DOTALL
    ):
        if re.sub(r"\b(?:struct|class|enum class) \w+(?: : int)?;|\s", "", body):
            found.add(name if name.startswith("cnnkernels") else f"cnnkernels::{name}")
    return found


def test_the_lint_sees_namespaces() -> None:
    declared = "namespace cnnkernels {\nenum class DType : int;  // types.h\n}\n"
    assert namespaces(declared + "namespace cnnkernels::pool {\nint x;\n}\n") == {"cnnkernels::pool"}
    assert namespaces("namespace cnnkernels {\nstruct Site {};\n}\n") == {"cnnkernels"}
    assert namespaces("namespace cnnkernels {\nstruct tf32;\n\nnamespace pool {\nint x;\n}\n}\n") == {
        "cnnkernels::pool"
    }


@pytest.mark.parametrize("word", WORDS)
def test_a_namespace_is_called_as_its_folder(word: str) -> None:
    """Two operators that call a type alike must not mean one to the linker."""
    files = [p for p in (ROOT / "csrc" / word).rglob("*") if p.suffix in (".h", ".cuh", ".cu", ".cpp")]
    assert files
    own = f"cnnkernels::{word}"
    for path in files:
        others = {name for name in namespaces(path.read_text()) if name != own and not name.startswith(own + "::")}
        assert not others, path
