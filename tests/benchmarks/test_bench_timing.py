"""The timer, with clocks and launches that the tests make up."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

import helpers.bench as bench_helpers  # noqa: F401, puts the harness on the path
from cnnkernels.tuning import timing
from cnnkernels.tuning.timing import HostChain, Patience, in_turns, input_sets, percentile


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Script:
    """A chain whose samples are written down; each passes that time on the clock."""

    launches, graph = 4, True

    def __init__(self, name: str, clock: Clock, log: list[str], samples: Iterator[float]) -> None:
        self.name, self.clock, self.log, self.samples = name, clock, log, samples

    def sample(self) -> float:
        self.log.append(self.name)
        taken = next(self.samples)
        self.clock.now += 1e-6 * taken * self.launches
        return taken


def test_providers_take_turns_and_the_warm_up_does_not_count() -> None:
    clock, log = Clock(), []
    chains = {
        "a": Script("a", clock, log, iter([999.0, 999.0, 1.0, 2.0, 3.0, 4.0, 50.0])),
        "b": Script("b", clock, log, iter([999.0, 999.0, 7.0, 7.0, 7.0, 7.0, 7.0])),
    }
    found = in_turns(chains, Patience(samples=5, seconds=0.0, warm_up=2), clock)
    assert log == ["a", "a", "b", "b"] + ["a", "b"] * 5
    assert found["a"] == timing.Timing(median=3.0, p20=1.0, p80=4.0, samples=5, launches=4, graph=True)
    assert found["b"].median == 7.0


def test_a_slow_provider_stops_early_and_a_quick_one_goes_on() -> None:
    clock, log = Clock(), []
    chains = {
        "slow": Script("slow", clock, log, iter([1e6] * 99)),  # four seconds a sample
        "quick": Script("quick", clock, log, iter([10.0] * 9999)),
    }
    patience = Patience(samples=5, seconds=0.001, most_samples=60, most_seconds=8.0, fewest_samples=3, warm_up=0)
    found = in_turns(chains, patience, clock)
    assert found["slow"].samples == 3
    assert found["quick"].samples == 25  # a millisecond of 40 us samples
    assert log[:4] == ["slow", "quick"] * 2


@pytest.mark.parametrize(
    ("samples", "seconds", "enough"), [(2, 99, False), (3, 0.8, True), (15, 0.05, False), (60, 0.0, True)]
)
def test_patience(samples: int, seconds: float, enough: bool) -> None:
    assert Patience().enough(samples, seconds) is enough


def test_percentiles() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.8, 1.0)] == [1, 1, 3, 4, 5]
    assert percentile([7.0], 0.2) == 7.0
    assert percentile(values, 0.5) == statistics.median(values)


def test_inputs_fill_the_cache_three_times() -> None:
    megabyte = 1 << 20
    assert input_sets(20 * megabyte, 60 * megabyte) == 9
    assert input_sets(7 * megabyte, 60 * megabyte) * 7 >= 180
    assert input_sets(1e12, 60 * megabyte) == 1
    assert input_sets(1, 60 * megabyte) == timing.MOST_SETS


def test_a_host_chain_calls_every_set_once() -> None:
    clock, called = Clock(), []

    def make(index: int):
        def work() -> None:
            called.append(index)
            clock.now += 2e-6

        return work

    assert HostChain(make, 3, clock).sample() == pytest.approx(2.0)
    assert called == [0, 1, 2]
