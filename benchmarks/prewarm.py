"""Compiles Triton's kernels in processes of their own, before anything is timed.

Triton takes seconds a kernel on one core, which is most of a quick run. Each process calls the cases it is given once;
what it compiled lies in Triton's cache on disk. Whether its calls succeed is of no interest here: the run will see.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence

import torch

from .cases import Case
from .machine import ROOT
from .providers import PROVIDERS, Provider
from .verify import make_inputs

MOST_SECONDS = 75.0
PROGRAM = "import sys; from benchmarks import prewarm; prewarm.compile_cases(sys.stdin.read())"


def compile_cases(text: str) -> None:
    """The body of a process: calls each case once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for case in pickle.loads(base64.b64decode(text)):
        with contextlib.suppress(Exception):
            _call(case, PROVIDERS["triton"], device)


def _call(case: Case, provider: Provider, device: str) -> None:
    if provider.refuses(case, device) is None:
        provider.setup(case, make_inputs(case, device, 0))()


def shares(cases: Iterable[Case], workers: int) -> list[list[Case]]:
    """The cases dealt out, so that neighbours, which may need the same kernel, go to different processes."""
    dealt: list[list[Case]] = [[] for _ in range(workers)]
    for index, case in enumerate(cases):
        dealt[index % workers].append(case)
    return [share for share in dealt if share]


def prewarm(cases: Sequence[Case], workers: int | None = None, seconds: float = MOST_SECONDS) -> float:
    """Compiles what the cases need, at most for so many seconds; returns the seconds it took."""
    started = time.perf_counter()
    workers = workers or max(1, min(12, (os.cpu_count() or 2) - 2))
    path = os.pathsep.join(entry for entry in (os.environ.get("PYTHONPATH"), str(ROOT)) if entry)
    running = []
    for share in shares(cases, workers):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdin is not None
        process.stdin.write(base64.b64encode(pickle.dumps(share)))
        process.stdin.close()
        running.append(process)
    for process in running:
        try:
            process.wait(max(0.0, started + seconds - time.perf_counter()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return time.perf_counter() - started
