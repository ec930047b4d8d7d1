"""Children with time limits: what ends one costs its family alone. And one proof between several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnnkernels import backends, certified
from cnnkernels.certified import certificates
from cnnkernels.certified.families import FAMILIES
from cnnkernels.cli import main as cli
from cnnkernels.proof import run
from cnnkernels.records.cache import folders
from helpers.processes import child
from helpers.proving import CHILD, CPU, child_with

NAMES = [str(family) for family in FAMILIES[:8]]
FAULTS = {
    NAMES[1]: "never ends",
    NAMES[2]: "crashes",
    NAMES[3]: "exits",
    NAMES[4]: "wrong after another",
    NAMES[5]: "1 of 9 elements are wrong",
    NAMES[6]: "is killed half-way through its answer",
    NAMES[7]: "hangs half-way through its answer",
}
WHY = {
    NAMES[1]: "it took more than 0.5 s",
    NAMES[2]: "its process ended with signal 11",
    NAMES[3]: "its process ended with exit code 1: CUDA error: device-side assert triggered",
    NAMES[4]: "a trial: right alone, wrong after another: wrong after another",
    NAMES[5]: "a trial: 1 of 9 elements are wrong",
    NAMES[6]: "its process ended with signal 9",
    NAMES[7]: "it took more than 0.5 s",
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "LIMITS", {"cuda": 0.5, "triton": 0.5})
    yield tmp_path / "cache"
    certified._held.clear()
    certified.forget()
    backends.forget()


@pytest.mark.parametrize("workers", [1, 3])
def test_what_ends_a_child_costs_its_family_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "COMMAND", child_with(tmp_path / "log", FAULTS))
    made = run.prove_device(CPU, FAMILIES[:8], workers=workers, progress=True)
    assert made.failed == WHY
    assert list(made.families) == NAMES
    (path,) = cache.iterdir()
    assert json.loads(path.read_text())["families"] == made.families
    assert f"{WHY[NAMES[5]]}" in str(made) and "1 of 8 families of kernels certified" in str(made)
    assert "proving CPU [##############################] 8/8, 7 failed" in capsys.readouterr().err


def test_a_backend_that_is_not_there_is_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(run, "COMMAND", child_with(log, {"cuda": "the driver is too old"}))
    made = run.prove_device(CPU, FAMILIES[:2])
    assert set(made.families.values()) == {"the driver is too old"}
    assert not log.exists()


def test_a_child_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "COMMAND", (sys.executable, "-c", "raise SystemExit('no PyTorch here')"))
    made = run.prove_device(CPU, FAMILIES[:1])
    assert list(made.families.values()) == ["its process ended with exit code 1: no PyTorch here"]


def test_it_is_made_once_unless_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(run, "COMMAND", child_with(log, {}))
    said: list[str] = []
    for again in (False, False, True):
        run.prove_device(CPU, FAMILIES[:2], again=again, before=lambda: said.append("a line"))
    assert log.read_text().splitlines() == NAMES[:2] * 2
    assert len(said) == 2


def test_an_interrupt_ends_the_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "LIMITS", {"cuda": 20.0})
    monkeypatch.setattr(run, "COMMAND", child_with(tmp_path / "log", dict.fromkeys(NAMES, "never ends")))
    started: list[subprocess.Popen[bytes]] = []
    made = subprocess.Popen

    def popen(*arguments: Any, **named: Any) -> Any:
        started.append(made(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run.prove_device(CPU, FAMILIES[:4], workers=2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [child.wait(5) for child in started] == [-9, -9] and time.monotonic() - begun < 15
    assert certificates.load(certificates.identity(CPU)) is None


def test_a_gpu_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="prove: PyTorch sees no GPU"):
        run.prove()
    with pytest.raises(ValueError, match="prove: device must be a GPU, but got 'cpu'"):
        run.prove("cpu")


RACE = """
import os, sys, time
import torch
from cnnkernels.certified.families import FAMILIES
from cnnkernels.cli import main as cli
from cnnkernels.proof import run

log, slow, code = sys.argv[1:4] if len(sys.argv) > 3 else LOG_SLOW_CODE
def prover(faults):
    run.COMMAND = (sys.executable, "-c", code, log, faults)
    return run.prove_device(torch.device("cpu"), FAMILIES[:3], workers=1)

# One that is killed while it holds the lock, and two that come meanwhile.
killed = os.fork()
if killed == 0:
    prover(slow)
    os._exit(1)
while not os.path.exists(log):
    time.sleep(0.01)
waiting = []
for _ in range(2):
    waiting.append(os.fork())
    if waiting[-1] == 0:
        made = prover("{}")
        os._exit(0 if not made.failed else 1)
time.sleep(0.2)
before = open(log).read().splitlines()
os.kill(killed, 9)
print(os.waitpid(killed, 0)[1], *(os.waitpid(pid, 0)[1] for pid in waiting), len(before))
"""


def test_processes_make_one_proof_between_them(tmp_path: Path, cache: Path) -> None:
    log, slow = tmp_path / "log", json.dumps({NAMES[0]: "never ends"})
    code = RACE.replace("LOG_SLOW_CODE", repr((str(log), slow, CHILD)))
    ended = child(code, CNNKERNELS_CACHE=str(cache), HOME=str(tmp_path))
    # The first had begun with one family and got no further; of the two others one proved, and both have it.
    assert ended == "9 0 0 1"
    assert log.read_text().splitlines() == [NAMES[0], *NAMES[:3]]
    (path,) = cache.iterdir()
    assert certificates.load(certificates.identity(CPU)) is not None and path.suffix == ".json"


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("cnnkernels.cli.prove.backends.INTERPRETING", True)
    monkeypatch.setattr(run, "COMMAND", child_with(tmp_path / "log", {NAMES[0]: "wrong"}))
    assert cli.main(["prove", "--only", "cuda", "fp64", "fma", "forward", "conv", "--only", "quantize", "int4"]) == 1
    assert capsys.readouterr().out == f"{NAMES[0]}: a trial: wrong\n"
    assert cli.main(["prove"]) == 1
    out = capsys.readouterr().out
    assert f"CPU: {len(FAMILIES) - 1} of {len(FAMILIES)} families of kernels certified, proved 20" in out
    assert f"  not {NAMES[0]}: a trial: wrong" in out and str(folders()[0]) in out
    assert cli.main(["prove", "--only", "cudnn"]) == 2
    assert "no family of kernels has these words" in capsys.readouterr().err
    assert cli.main(["prove", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(family) for family in FAMILIES]
    monkeypatch.setattr("cnnkernels.cli.prove.backends.INTERPRETING", False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["prove"]) == 2
    assert "cnnkernels prove: PyTorch sees no GPU" in capsys.readouterr().err
