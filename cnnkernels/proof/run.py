"""Proves the kernels of a GPU: every family in a child process with a time limit, then a certificate.

A child takes one family after another and is replaced after a failure, so that a hang, an illegal access or a crash
costs its family and nothing else. Several processes that want the same proof make one between them.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .. import backends, certified, package
from ..certified import certificates
from ..certified.certificates import Certificate
from ..certified.families import FAMILIES, Family

# By its place: a package from a kernel hub is on no path.
_START = """
import importlib.util, runpy, sys
name, place = sys.argv[1:3]
del sys.argv[1:3]
spec = importlib.util.spec_from_file_location(name, place)
sys.modules[name] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
runpy.run_module(f"{name}.proof.worker", run_name="__main__")
"""
COMMAND: tuple[str, ...] = (sys.executable, "-c", _START, package.NAME, str(package.PLACE))
START_LIMIT = 180.0  # seconds to import PyTorch and to load the kernels
# Of a family; Triton's are compiled at their first launch.
LIMITS = {"cuda": 30.0, "triton": 300.0}
_MOST_WORKERS = 4


class Died(Exception):
    """A child ended, or did not answer in time; the text says which."""


class Worker:
    """A child process, and what it says of its backends."""

    def __init__(self, device: str) -> None:
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            [*COMMAND, device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment
        )
        try:
            self.why_not: dict[str, str] = self._answer(START_LIMIT)["why_not"]
        except BaseException:
            self.end()
            raise

    def ask(self, family: Family, only: str = "") -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"family": family, "only": only}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Died(self._how_it_ended()) from None
        return self._answer(LIMITS[family.backend])

    def _answer(self, limit: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        line, end = b"", time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):  # a child may hang in the middle of one
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise Died(f"it took more than {limit:g} s")
                part = os.read(self._process.stdout.fileno(), 1 << 16)
                if not part:
                    raise Died(self._how_it_ended())
                line += part
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {how}" + (f": {lines[-1][:300]}" if lines else "")

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()


class _Prover:
    """Takes families from a queue, by a worker that it replaces after each failure."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._worker: Worker | None = None

    def prove(self, family: Family) -> str:
        """Why a family is not certified, empty where it is."""
        try:
            worker = self._ready()
            if why := worker.why_not[family.backend]:
                return why
            verdict = worker.ask(family)
        except Died as died:
            self.end()
            return str(died)
        if not verdict["why"]:
            return ""
        self.end()
        where, what = verdict["trial"], verdict["why"]
        if verdict["after"] and self._right_alone(family, where):
            return f"{where}: right alone, wrong after {verdict['after']}: {what}"
        return f"{where}: {what}" if where else what

    def _right_alone(self, family: Family, trial: str) -> bool:
        try:
            verdict = self._ready().ask(family, trial)
            right = not verdict["why"] and verdict["ran"] > 0
        except Died:
            right = False
        if not right:
            self.end()
        return right

    def _ready(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(self._device)
        return self._worker

    def interrupt(self) -> None:
        """From another thread: what waits for the child finds that it has ended."""
        if (worker := self._worker) is not None:
            worker.kill()

    def end(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Bar:
    """A line on standard error that is written over."""

    def __init__(self, gpu: str, count: int, shown: bool) -> None:
        self._gpu, self._count, self._shown, self._done, self._failed = gpu, count, shown, 0, 0

    def step(self, family: Family, why: str) -> None:
        self._done += 1
        self._failed += bool(why)
        if not self._shown:
            return
        filled = 30 * self._done // self._count
        failed = f", {self._failed} failed" if self._failed else ""
        line = f"proving {self._gpu} [{'#' * filled}{'.' * (30 - filled)}] {self._done}/{self._count}{failed}  {family}"
        print(f"\r{line[:118]:<118}", end="\n" if self._done == self._count else "", file=sys.stderr, flush=True)


def _prove_all(device: str, families: Sequence[Family], bar: _Bar, workers: int) -> dict[str, str]:
    left: queue.SimpleQueue[Family] = queue.SimpleQueue()
    for family in families:
        left.put(family)
    found: dict[str, str] = {}
    errors: list[BaseException] = []
    stop = threading.Event()
    one_at_a_time = threading.Lock()

    def work(prover: _Prover) -> None:
        try:
            while not stop.is_set():
                family = left.get_nowait()
                why = prover.prove(family)
                with one_at_a_time:
                    found[str(family)] = why
                    bar.step(family, why)
        except queue.Empty:
            pass
        except BaseException as error:
            errors.append(error)
        finally:
            prover.end()

    provers = [_Prover(device) for _ in range(workers)]
    threads = [threading.Thread(target=work, args=(prover,)) for prover in provers]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:  # an interrupt: nothing more is tried
        stop.set()
        for prover in provers:
            prover.interrupt()
        raise
    if errors:
        raise errors[0]
    return {str(family): found[str(family)] for family in families}


def gpus() -> list[torch.device]:
    """One of each kind that is visible, in their order."""
    every = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    first = {certificates.identity(device): device for device in reversed(every)}
    return sorted(first.values(), key=every.index)


def prove(
    device: str | torch.device | None = None, *, again: bool = False, progress: bool | None = None
) -> tuple[Certificate, ...]:
    """Tests every kernel on the GPUs at hand and keeps what is certified, which "auto" goes by from then on.

    Each family of kernels runs small exact problems in a process of its own, with a time limit: a kernel that hangs or
    crashes costs its family and nothing else. What was compiled by torch.compile before keeps its choice.

    Args:
        device: a GPU; None takes one of each kind that is visible.
        again: also where there is a certificate.
        progress: shows a bar on standard error; None where that is a terminal.

    Returns:
        A certificate for each, printable. Where this process or another has made it before, that one.

    Raises:
        RuntimeError: PyTorch sees no GPU.
        ValueError: `device` is none.

    Example:
        >>> certificates = cnnkernels.prove() if torch.cuda.is_available() else ()
    """
    if device is not None and torch.device(device).type != "cuda":
        raise ValueError(f"prove: device must be a GPU, but got {str(device)!r}")
    if not torch.cuda.is_available():
        raise RuntimeError(f"prove: {certified.without_gpu()}")
    devices = gpus() if device is None else [torch.device(device)]
    return tuple(prove_device(each, FAMILIES, again=again, progress=progress) for each in devices)


def prove_for(model: torch.nn.Module) -> None:
    """Proves the kernels on each GPU where a model has tensors, where that has not been done; says so in a line."""
    devices = {
        tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type in certified.NEEDED
    }
    for device in sorted(devices, key=str):

        def say(device: torch.device = device) -> None:
            gpu = certificates.identity(device).gpu
            print(f"cnnkernels: proving the kernels on {gpu}, once (prove=False leaves it)", file=sys.stderr)

        if certified.certificate(device) is None:
            prove_device(device, FAMILIES, before=say)


def prove_device(
    device: torch.device,
    families: Sequence[Family],
    *,
    again: bool = False,
    progress: bool | None = None,
    workers: int | None = None,
    before: Callable[[], None] = lambda: None,
) -> Certificate:
    """The certificate of one device; `before` is called where it has to be made."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    of = certificates.identity(device)
    asked = certificates.now()
    with certificates.lock(of) as waited:
        there = certificates.load(of)
        if there is not None and (not again or (waited and there.date >= asked)):  # by the process that held it
            certified.forget()
            backends.forget()
            return there
        before()
        started = time.perf_counter()
        found = try_families(device, families, progress=progress, workers=workers)
        made = Certificate(of, certificates.now(), round(time.perf_counter() - started, 1), found)
        certificates.save(made)
    certified.hold(made)
    backends.forget()
    return made


def try_families(
    device: torch.device, families: Sequence[Family], *, progress: bool | None = None, workers: int | None = None
) -> dict[str, str]:
    """By its name, why each is not certified, empty where it is; nothing is kept."""
    bar = _Bar(certificates.identity(device).gpu, len(families), sys.stderr.isatty() if progress is None else progress)
    return _prove_all(str(device), families, bar, workers or max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // 2)))
