"""A table of measured plans for one case of conv2d; a clock for `cnnkernels.tune` whose times are the test's, and who
served a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnnkernels import backends
from cnnkernels.records import tuned
from cnnkernels.testing.cases import ConvCase
from cnnkernels.tuning.candidates import Asked

CASE = ConvCase("", 2, 8, 6, 6, 16, 3, 3, padding=(1, 1, 1, 1))
PLAN = {"engine": "mma", "tile": [128, 32], "a": "along_depth", "b": "along_depth", "splits": 1}
ROW = tuned.Row(
    "cuda", "forward", "bf16", "nhwc", tuned.geometry_fields("forward", CASE.geometry), PLAN, 41.2, 45.0
)  # fmt: skip


TABLE = tuned.Table("NVIDIA H200", "2026-01-31", {"torch": "2.11.0"}, (ROW, replace(ROW, dtype="fp16")))


def forget() -> None:
    tuned.plans.cache_clear()
    tuned._tables.cache_clear()


class Clock:
    """10 us for PyTorch's own operator; of the kernels `ours` for every direction, or by direction."""

    def __init__(self, ours: float | dict[str, float] = 5.0) -> None:
        self.ours = ours
        self.asked: list[Asked] = []

    def __call__(self, asked: Asked, makes: Mapping[str, Any]) -> dict[str, float]:
        self.asked.append(asked)
        ours = self.ours if isinstance(self.ours, float) else self.ours.get(asked.direction, 10.0)
        return {name: 10.0 if name == "reference" else ours for name in makes}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory of the test's own; of the kernels' backends only cuda's are timed."""
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path))
    monkeypatch.delenv("CNNKERNELS_TUNED", raising=False)
    monkeypatch.setattr(backends, "KERNEL_BACKENDS", ("cuda",))
    anew(monkeypatch)
    yield tmp_path
    monkeypatch.undo()
    tuned.forget()


def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: what is known of tables is what their files say."""
    monkeypatch.setattr(tuned, "_used", [])
    tuned.forget()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends whose kernels are asked for, call by call."""
    asked: list[str] = []
    kernels = backends.kernels

    def noted(backend: str, device: str) -> Any:
        asked.append(backend)
        return kernels(backend, device)

    monkeypatch.setattr(backends, "kernels", noted)
    return asked
