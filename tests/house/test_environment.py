"""Environment variables: how a switch is read, and that nothing reads one in another way or one that the docs lack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cnnkernels import environment
from cnnkernels.cli import info
from cnnkernels.environment import flag

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = "CNNKERNELS_INTERPRET"


@pytest.mark.parametrize("word", ["1", "true", "yes", "on", "True", "YES", "oN"])
def test_on(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(NAME, word)
    assert flag(NAME) is True


@pytest.mark.parametrize("word", ["0", "false", "no", "off", "False", "NO", "oFF"])
def test_off(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(NAME, word)
    assert flag(NAME) is False


def test_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "")
    assert flag(NAME) is None
    monkeypatch.delenv(NAME)
    assert flag(NAME) is None


@pytest.mark.parametrize("word", ["2", "maybe", "-1", " ", "1 ", "truee"])
def test_any_other_word_is_refused(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(NAME, word)
    with pytest.raises(ValueError, match=f"^{NAME} must be one of 1, true, .* but got {word!r}$"):
        flag(NAME)


def sources() -> dict[str, str]:
    patterns = ("*.py", "Makefile", "cnnkernels/**/*.py", "triton_kernels/**/*.py", "benchmarks/*.py", "csrc/**/*.cpp")
    paths = [path for pattern in (*patterns, "csrc/**/*.h", "tests/*.sh") for path in ROOT.glob(pattern)]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def test_every_variable_is_in_the_table() -> None:
    named = {name for text in sources().values() for name in re.findall(r"\bCNNKERNELS_[A-Z_]*[A-Z]\b", text)}
    assert named == {name for name in environment.VARIABLES if name.startswith("CNNKERNELS_")}


def test_switches_are_read_in_one_place() -> None:
    """Nowhere else is one fetched from the environment, to be compared in its own way."""
    switches = "|".join(name for name, variable in environment.VARIABLES.items() if variable.values == "switch")
    reads = re.compile(rf'(?:environ\.get\(|environ\[|getenv\()"(?:{switches})"')
    assert reads.search('os.environ.get("CNNKERNELS_DEBUG") == "1"')
    assert [name for name, text in sources().items() if reads.search(text)] == []
    flags = {name for text in sources().values() for name in re.findall(r'flag\("(\w+)"\)', text)}
    assert flags == set(switches.split("|"))


def test_info_says_what_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKERNELS_INTERPERT", "1")
    monkeypatch.setenv("CNNKERNELS_SEED", "3")
    lines = info._variables()
    assert "CNNKERNELS_INTERPERT=1 (nobody reads it)" in lines and "CNNKERNELS_SEED=3" in lines
