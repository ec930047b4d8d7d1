"""The small suite, for pytest-benchmark and its comparisons: `python -m pytest benchmarks/suite.py`.

One problem of each operator, every direction and provider, in the type that networks train in. A round is one replay of
the launches that `cnnkernels bench` times too; their own time, by the GPU's events, is in extra_info. Without a GPU the
problems are a handful of elements, to see that the suite runs.
"""

from __future__ import annotations

import os
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("CNNKERNELS_INTERPRET", "1")  # read when the package is imported

import pytest

from cnnkernels.tuning.timing import GpuChain, HostChain, input_sets

from .cases import QUICK, Case, quick, tiny
from .machine import this_machine
from .providers import PROVIDERS, QUICK_PROVIDERS
from .verify import Reference, make_inputs

GPU = torch.cuda.is_available()
ROUNDS = 20 if GPU else 1


def suite() -> list[Case]:
    """The first problem of each operator, as `--quick` has it."""
    chosen = [case for case in quick() if case.problem == QUICK[case.family][0] and case.dtype != "tf32"]
    return chosen if GPU else [tiny(case) for case in chosen]


@pytest.mark.parametrize("provider", QUICK_PROVIDERS)
@pytest.mark.parametrize("case", suite(), ids=lambda case: case.key)
def test_speed(case: Case, provider: str, benchmark: Any) -> None:
    chosen, machine = PROVIDERS[provider], this_machine()
    if reason := chosen.refuses(case, machine.device):
        pytest.skip(reason)
    verdict = Reference(case, make_inputs(case, machine.device, 0)).judge(chosen)
    assert verdict.right, f"error {verdict.error:.3g}, allowed {verdict.allowed:.3g}"
    sets = [make_inputs(case, machine.device, seed) for seed in range(input_sets(case.bytes, machine.l2_bytes))]

    def make(index: int) -> Any:
        return chosen.setup(case, sets[index])

    chain = GpuChain(make, len(sets), torch.cuda.Stream()) if GPU else HostChain(make, 1)
    benchmark.group = case.key
    benchmark.extra_info["us a launch"] = benchmark.pedantic(chain.sample, rounds=ROUNDS, warmup_rounds=ROUNDS // 10)
    benchmark.extra_info["launches"] = chain.launches
