"""The GPU's timer and what surrounds it, on a GPU made of Python: launches pass its time, a graph replays them."""

from __future__ import annotations

import base64
import contextlib
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import measure, prewarm
from benchmarks.cases import Case
from benchmarks.machine import Machine
from benchmarks.results import OK, WRONG
from cnnkernels.tuning import timing
from cnnkernels.tuning.timing import GpuChain, extra_memory
from helpers.bench import CEILINGS, Planted, conv_case, one_thread, pool_case  # noqa: F401


class FakeGpu:
    """Time in microseconds; a work passes `duration`, unless a graph is being captured, which notes it instead."""

    def __init__(self, duration: float = 100.0) -> None:
        self.now = 0.0
        self.duration = duration
        self.capturing: list[Callable[[], None]] | None = None
        self.refuses = False
        self.log: list[object] = []

    def work(self, index: int) -> Callable[[], object]:
        def run() -> object:
            self.log.append(index)
            if self.capturing is not None:
                self.capturing.append(self.launch)
            else:
                self.launch()
            return SimpleNamespace(index=index)

        return run

    def launch(self) -> None:
        self.now += self.duration


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake = FakeGpu()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.at = 0.0

        def record(self) -> None:
            self.at = fake.now

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, end: Event) -> float:
            return (end.at - self.at) / 1e3  # milliseconds

    class Graph:
        def __init__(self) -> None:
            self.launches: list[Callable[[], None]] = []

        def replay(self) -> None:
            fake.now += 5.0  # a graph's start
            for launch in self.launches:
                launch()

    @contextlib.contextmanager
    def capture(graph: Graph, stream: object) -> Iterator[None]:
        fake.capturing = graph.launches
        try:
            yield
            if fake.refuses:
                raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            fake.capturing = None

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return fake


def test_a_graph_goes_through_all_sets_and_is_long_enough(gpu: FakeGpu) -> None:
    chain = GpuChain(gpu.work, 4, None)  # type: ignore[arg-type]
    assert gpu.log[:4] == [0] * 4  # warm-up, not captured
    assert gpu.log[4:] == [0, 1, 2, 3] * 2 + [0, 1]  # a millisecond of 100 us launches
    assert (chain.launches, chain.graph) == (10, True)
    assert chain.sample() == pytest.approx(100.5)  # what a start costs is spread
    assert len(gpu.log) == 14  # a replay calls nothing
    assert [output.index for output in chain.outputs] == [0, 1, 2, 3]  # type: ignore[attr-defined]


def test_many_sets_are_all_gone_through(gpu: FakeGpu) -> None:
    gpu.duration = 2.0
    chain = GpuChain(gpu.work, 900, None)  # type: ignore[arg-type]
    assert chain.launches == 900 and gpu.log[4:] == list(range(900))


def test_a_slow_launch_is_alone(gpu: FakeGpu) -> None:
    gpu.duration = 200e3
    chain = GpuChain(gpu.work, 900, None)  # type: ignore[arg-type]
    assert chain.launches == 1
    assert chain.sample() == pytest.approx(200e3, rel=1e-3)


def test_what_cannot_be_captured_is_launched_and_says_so(gpu: FakeGpu) -> None:
    gpu.refuses = True
    chain = GpuChain(gpu.work, 2, None)  # type: ignore[arg-type]
    assert chain.graph is False and chain.captured is None
    before = len(gpu.log)
    assert chain.sample() == pytest.approx(100.0)
    assert len(gpu.log) - before == chain.launches


def test_a_device_that_is_lost_in_a_capture_is_no_missing_graph(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.refuses = True

    calls = iter(range(99))

    def synchronize() -> None:
        if next(calls) >= 2:  # the third comes after the capture
            raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        GpuChain(gpu.work, 2, None)  # type: ignore[arg-type]


class SeemsCuda(str):
    """A device of tensors that stay on the CPU, where everything else is done as for a GPU."""

    def __eq__(self, other: object) -> bool:
        return other == "cuda" or str.__eq__(self, other)  # type: ignore[arg-type]

    __hash__ = str.__hash__


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "case", [conv_case("training"), conv_case("backward_weight"), pool_case()], ids=lambda c: c.key
)
def test_a_case_from_end_to_end(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    """All that a GPU's run does beside the kernels: graphs, memory, what is emptied after a case."""
    emptied: list[bool] = []
    for name, value in (
        ("Stream", lambda: None),
        ("reset_peak_memory_stats", lambda: None),
        ("memory_allocated", lambda: 0),
        ("max_memory_allocated", lambda: 1 << 20),
        ("empty_cache", lambda: emptied.append(True)),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    fake = Machine("fake", SeemsCuda("cpu"), l2_bytes=int(case.bytes), memory_bytes=1 << 34)

    class Passing(Planted):
        def setup(self, case: Case, inputs: Sequence[torch.Tensor]) -> Callable[[], tuple[torch.Tensor, ...]]:
            run = super().setup(case, inputs)

            def call() -> tuple[torch.Tensor, ...]:
                gpu.work(0)()
                return run()

            return call

    bench = measure.Bench(fake, CEILINGS, timing.QUICK, tell=lambda line: None)
    wrong = Planted("wrong", lambda y: y * 1.1)
    found = {r.provider: r for r in bench.measure(case, [Passing("cuda", lambda y: y), wrong])}
    right = found["cuda"]
    assert (right.status, right.graph, right.launches, right.reproducible) == (OK, True, 10, True)
    assert right.median == pytest.approx(100.5) and right.on_gpu and 0 < (right.extra_bytes or 0) < 1 << 20
    assert found["wrong"].status == WRONG and found["wrong"].median is None
    assert emptied


def test_memory_beside_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    allocated = iter([1000])
    for name, value in (
        ("synchronize", lambda: None),
        ("reset_peak_memory_stats", lambda: None),
        ("memory_allocated", lambda: next(allocated)),
        ("max_memory_allocated", lambda: 1000 + 400 + 64),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    assert extra_memory(lambda: (torch.empty(100, dtype=torch.float32),)) == 64


def test_whether_the_gpu_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: Exception) -> Callable[[], None]:
        def synchronize() -> None:
            raise error

        return synchronize

    monkeypatch.setattr(torch.cuda, "synchronize", raising(RuntimeError("unspecified launch failure")))
    assert not measure._answers()
    monkeypatch.setattr(torch.cuda, "synchronize", raising(torch.OutOfMemoryError("full")))
    assert measure._answers()


def test_longest_and_shortest_chain_agree() -> None:
    assert timing.SHORTEST_CHAIN < timing.LONGEST_CHAIN


# --- compiling ahead


def test_cases_are_dealt_out() -> None:
    some = [conv_case(), conv_case("backward_input"), pool_case(), conv_case("training"), pool_case("training")]
    dealt = prewarm.shares(some, 2)
    assert dealt == [some[::2], some[1::2]]
    assert prewarm.shares(some[:1], 8) == [some[:1]]


def test_processes_get_their_cases_and_are_stopped_when_the_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"""
import base64, os, pickle, sys, time
from pathlib import Path
from benchmarks import cases
share = pickle.loads(base64.b64decode(sys.stdin.read()))
Path({str(tmp_path)!r}, str(os.getpid())).write_text("\\n".join(case.key for case in share))
if any(case.family == "max_pool2d" for case in share):
    time.sleep(60)
"""
    monkeypatch.setattr(prewarm, "PROGRAM", program)
    some = [conv_case(), pool_case()]
    started = time.perf_counter()
    prewarm.prewarm(some[:1], workers=1, seconds=60.0)
    assert {path.read_text() for path in tmp_path.iterdir()} == {some[0].key}
    assert prewarm.prewarm(some[1:], workers=1, seconds=0.5) < 30
    assert time.perf_counter() - started < 90


def test_a_case_that_fails_does_not_keep_the_next_from_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def call(case, provider, device) -> None:
        called.append((case.key, provider.name))
        raise RuntimeError("no")

    monkeypatch.setattr(prewarm, "_call", call)
    some = [conv_case(), pool_case()]
    prewarm.compile_cases(base64.b64encode(pickle.dumps(some)).decode())
    assert called == [(case.key, "triton") for case in some]
