"""How long a launch takes: cold caches, warm clocks, providers in turns, medians.

Each provider gets a chain of launches over several sets of inputs, together three times the L2 cache with their
outputs, so that no launch finds its data there. On a GPU the chain is captured in a CUDA graph, which leaves the host's
time out; where that fails the launches are enqueued one by one, and the result says so. A sample is one replay of the
chain between two events, divided by its launches. Providers take turns, sample by sample, so that a change of the clock
or of the temperature meets them all.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Work = Callable[[], object]

COLD_CACHES = 3  # times the L2
MOST_SETS = 2048
SHORTEST_CHAIN = 1e3  # µs, a hundred times what starts a chain
LONGEST_CHAIN = 50e3  # µs; a slower launch needs no company to be timed well


@dataclass(frozen=True)
class Timing:
    """Microseconds a launch: the median and the 20th and 80th percentile of the samples."""

    median: float
    p20: float
    p80: float
    samples: int
    launches: int
    graph: bool


class Chain(Protocol):
    """Launches to be timed together."""

    launches: int
    graph: bool

    def sample(self) -> float:
        """Runs them once; microseconds a launch."""


@dataclass(frozen=True)
class Patience:
    """When a provider has been sampled enough: often and for some time, or for long."""

    samples: int = 15
    seconds: float = 0.1
    most_samples: int = 60
    most_seconds: float = 0.8
    fewest_samples: int = 3
    warm_up: int = 2

    def enough(self, samples: int, seconds: float) -> bool:
        if samples < self.fewest_samples:
            return False
        return (
            samples >= self.most_samples
            or seconds >= self.most_seconds
            or (samples >= self.samples and seconds >= self.seconds)
        )


QUICK = Patience(samples=10, seconds=0.03, most_samples=20, most_seconds=0.4)
ONCE = Patience(samples=1, seconds=0.0, fewest_samples=1, warm_up=0)


def input_sets(bytes_a_launch: float, l2_bytes: int) -> int:
    """How many sets of inputs and outputs fill the L2 three times."""
    return max(1, min(MOST_SETS, math.ceil(COLD_CACHES * l2_bytes / max(bytes_a_launch, 1.0))))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def in_turns(
    chains: Mapping[str, Chain], patience: Patience, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Samples every chain, one after the other and again, until each has had enough."""
    for chain in chains.values():
        for _ in range(patience.warm_up):
            chain.sample()
    samples: dict[str, list[float]] = {name: [] for name in chains}
    spent = dict.fromkeys(chains, 0.0)
    waiting = list(chains)
    while waiting:
        for name in waiting:
            started = clock()
            samples[name].append(chains[name].sample())
            spent[name] += clock() - started
        waiting = [name for name in waiting if not patience.enough(len(samples[name]), spent[name])]
    return {
        name: Timing(
            statistics.median(taken),
            percentile(taken, 0.2),
            percentile(taken, 0.8),
            len(taken),
            chains[name].launches,
            chains[name].graph,
        )
        for name, taken in samples.items()
    }


class HostChain:
    """Launches on the CPU, timed by its clock. `make` gives the launch on a set of inputs."""

    graph = False

    def __init__(self, make: Callable[[int], Work], sets: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self.works = [make(index) for index in range(sets)]
        self.launches = sets
        self.clock = clock

    def sample(self) -> float:
        started = self.clock()
        for work in self.works:
            work()
        return 1e6 * (self.clock() - started) / self.launches


class GpuChain:
    """Launches on a GPU: a replayed graph, or one by one where they cannot be captured.

    The sets are gone through as often as it takes to outweigh what an event and the start of a graph cost. All happens
    on one stream, as a gradient runs on the stream that its forward pass ran on.
    """

    def __init__(self, make: Callable[[int], Work], sets: int, stream: torch.cuda.Stream) -> None:
        self.stream = stream
        torch.cuda.synchronize()  # what made the inputs ran on another stream
        with torch.cuda.stream(stream):
            first = make(0)
            once = self._warm_up(first)
            sets = max(1, min(sets, int(LONGEST_CHAIN / once)))
            self.works = [first, *(make(index) for index in range(1, sets))]
        self.launches = max(sets, math.ceil(SHORTEST_CHAIN / once))
        self.outputs: list[object] = [None] * sets  # kept, so that a launch finds no output of its own in the cache
        torch.cuda.synchronize()
        self.captured = self._capture()
        self.graph = self.captured is not None

    def _warm_up(self, work: Work) -> float:
        """Compiles, tunes and allocates whatever the first call does; microseconds of a later one."""
        for _ in range(3):
            work()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return max(1e3 * start.elapsed_time(end), 1.0)

    def _launch(self) -> None:
        for index in range(self.launches):
            place = index % len(self.works)
            self.outputs[place] = self.works[place]()

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._launch()
        except RuntimeError:
            self.outputs = [None] * len(self.works)
            torch.cuda.synchronize()  # raises where the device is lost, and not just the capture
            return None
        return graph

    def sample(self) -> float:
        with torch.cuda.stream(self.stream):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            if self.captured is not None:
                self.captured.replay()
            else:
                self._launch()
            end.record()
            end.synchronize()
        return 1e3 * start.elapsed_time(end) / self.launches


def extra_memory(work: Callable[[], Sequence[Tensor]]) -> int:
    """Bytes that a launch takes on the GPU beside its inputs and outputs, at its peak."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    outputs = work()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return max(0, peak - sum(tensor.untyped_storage().nbytes() for tensor in outputs))
