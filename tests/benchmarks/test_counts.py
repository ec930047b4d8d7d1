"""The table of what kernels execute on the workloads' shapes: what grows fails the audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cnnkernels.operators import MEASURED

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))
import counts

BEFORE = {"a100: conv2d: tile": {"warps": 100, "wavefronts": 40}, "a100: conv2d: pack": {"warps": 10, "wavefronts": 0}}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(counts, "TABLE", tmp_path / "counts.json")
    monkeypatch.setattr(counts, "compiler", lambda: "13.0")
    counts.write(BEFORE)
    return tmp_path / "counts.json"


def found(monkeypatch: pytest.MonkeyPatch, now: counts.Table) -> tuple[list[str], list[str]]:
    monkeypatch.setattr(counts, "in_a_process", lambda: now)
    monkeypatch.setattr(counts, "built", lambda: True)
    return counts.compare()


def test_what_grows_is_a_fault(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, BEFORE) == ([], [])
    tile = "a100: conv2d: tile"
    (fault,), notes = found(monkeypatch, BEFORE | {tile: {"warps": 100, "wavefronts": 41}})
    assert fault.startswith(f"{tile}: 41 wavefronts, 40 before") and counts.ACCEPT in fault and not notes
    faults, _ = found(monkeypatch, BEFORE | {tile: {"warps": 101, "wavefronts": 41}})
    assert len(faults) == 2


def test_what_shrinks_is_new_or_gone_is_told(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults, (note,) = found(monkeypatch, {"a100: conv2d: tile": {"warps": 99, "wavefronts": 40}, "new": {"warps": 1}})
    assert not faults
    assert "1 counts are less, 1 kernels are not in it, 1 no longer run" in note


def test_another_compilers_counts_are_not_compared(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "compiler", lambda: "13.1")
    faults, (note,) = found(monkeypatch, {"a100: conv2d: tile": {"warps": 1000, "wavefronts": 1000}})
    assert not faults and "not compared" in note


def test_a_build_without_the_emulators_runtime_is_told(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "built", lambda: False)
    faults, (note,) = counts.compare()
    assert not faults and "not built" in note


def test_the_committed_table_has_every_operator_and_both_gpus() -> None:
    lines = json.loads(counts.TABLE.read_text())["counts"]
    for gpu in counts.GPUS:
        families = {line.split(": ")[1].split()[0] for line in lines if line.startswith(f"{gpu}: ")}
        assert families == set(MEASURED)
    assert any("sm90::convolution" in line for line in lines) and any("implicit_gemm" in line for line in lines)
    for line, of_line in lines.items():
        assert set(of_line) == set(counts.COUNTED) and of_line["warps"] > 0, line
