"""What the tests of the benchmarks share: a GPU that is not there, a provider to plant."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import providers
from benchmarks.cases import Case
from benchmarks.machine import Ceilings, Machine
from benchmarks.measure import Bench
from benchmarks.results import OK, Record
from cnnkernels.cli import bench as options
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase, PoolCase
from cnnkernels.tuning.timing import ONCE

ROOT = Path(__file__).resolve().parent.parent.parent

CPU = Machine("a CPU", "cpu", 1, 2**34)
# 100 GB/s and 1 TFLOP/s: times that can be worked out in the head
CEILINGS = Ceilings(1e11, dict.fromkeys(("bf16", "fp16", "tf32", "fp32", "int8"), 1e12))

SMALL = ConvCase("small", 4, 3, 6, 5, 4, 3, 3, padding=(1, 1, 1, 1))
POOL = PoolCase("small", 4, 3, 6, 5, (2, 2), (2, 2))


def conv_case(direction: str = "forward", dtype: str = "fp32", layout: Layout = Layout.NHWC) -> Case:
    return Case("conv2d", direction, dtype, layout, SMALL)


def pool_case(direction: str = "forward") -> Case:
    return Case("max_pool2d", direction, "fp32", Layout.NCHW, POOL)


def bench(tell: Callable[[str], None] = lambda line: None) -> Bench:
    return Bench(CPU, CEILINGS, ONCE, 0, tell)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_options(parser)
    return parser.parse_args(arguments)


class Planted(providers.Eager):
    """PyTorch's operator, with a mistake in what it computes."""

    def __init__(self, name: str, mistake: Callable[[Tensor], Tensor], ours: bool = True) -> None:
        super().__init__(name, cudnn=True)
        self.mistake = mistake
        self.ours = ours

    def forward(self, case: Case) -> Callable[..., Tensor]:
        right = super().forward(case)
        return lambda *operands: self.mistake(right(*operands))


def record(case: Case, provider: str, median: float | None, **values: Any) -> Record:
    """A result that nobody measured."""
    blank = bench().blank(case, provider, OK)
    if median is not None:
        values = {"p20": 0.99 * median, "p80": 1.01 * median, "samples": 9, "launches": 1, "graph": True} | values
    return replace(blank, median=median, extra_bytes=0, **values)


@pytest.fixture
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
