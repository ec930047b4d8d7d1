"""The profiler on kernels as nvcc compiled them (tests/csrc/profiled.cu)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cnnkernels.emulator.profile import Profile, counted, of_dict
from helpers.emulated import emulated_tests

SIDE = 32


@pytest.fixture
def module() -> Iterator[ModuleType]:
    module = emulated_tests()
    yield module
    module.set_profiling(None)
    module.set_memory([])


def transposed(module: ModuleType, pitch: int, blocks: int | None = 0) -> Profile:
    square, result = torch.arange(SIDE * SIDE, dtype=torch.int32), torch.zeros(SIDE * SIDE, dtype=torch.int32)
    module.set_memory([(tensor.data_ptr(), tensor.nbytes) for tensor in (square, result)])
    module.set_profiling(blocks)
    module.run("profiled_transpose", square.data_ptr(), result.data_ptr(), pitch)
    (launch,) = module.set_profiling(None)
    assert torch.equal(result.view(SIDE, SIDE), square.view(SIDE, SIDE).t())
    return of_dict(launch)


@pytest.mark.parametrize(("pitch", "reads"), [(SIDE, SIDE * SIDE), (SIDE + 1, SIDE)])
def test_a_column_of_a_square_lies_in_one_bank(module: ModuleType, pitch: int, reads: int) -> None:
    """Unless a row has a number more: then each of its 32 is read in one wavefront."""
    found = transposed(module, pitch)
    assert found.sum("shared_requests") == found.sum("least_wavefronts") == 2 * SIDE
    assert found.sum("wavefronts") == SIDE + reads
    assert found.sum("sectors") == 4 * 2 * SIDE and found.sum("wanted_bytes") == 2 * 4 * SIDE * SIDE
    assert [(touched.read, touched.written) for touched in found.touched] == [(4096, 0), (0, 4096)]
    assert (found.blocks, found.clusters, found.sampled, found.block) == (1, 1, 1, (256, 1, 1))
    assert found.registers > 0 and "transpose" in found.kernel


def test_the_line_with_the_conflicts_is_named(module: ModuleType) -> None:
    lines = transposed(module, SIDE).lines()
    conflicts = {line: counts["wavefronts"] - counts["least_wavefronts"] for line, counts in lines.items()}
    ((line, many),) = [(line, count) for line, count in conflicts.items() if count]
    assert many == SIDE * (SIDE - 1)
    assert line.file.endswith("profiled.cu")
    source = Path(__file__).parent.parent / "csrc" / "profiled.cu"
    assert "square[lane * kPitch + row]" in source.read_text().splitlines()[line.number - 1]


def test_nothing_is_counted_unless_asked(module: ModuleType) -> None:
    square, result = torch.zeros(SIDE * SIDE, dtype=torch.int32), torch.zeros(SIDE * SIDE, dtype=torch.int32)
    module.run("profiled_transpose", square.data_ptr(), result.data_ptr(), SIDE)
    assert module.set_profiling(None) == []


def test_memory_that_a_sample_leaves_unwritten_is_zero() -> None:
    """Whatever lay there: else two runs would count differently."""
    like = torch.full((33,), float("nan"))
    words = torch.empty, torch.Tensor.new_empty

    class Unwritten(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, error: torch.Tensor) -> torch.Tensor:
            return torch.empty_strided(error.shape, error.stride())

    def backward() -> tuple[torch.Tensor, ...]:
        x = like.clone().requires_grad_()
        return torch.autograd.grad(Unwritten.apply(x).sum(), x)

    def made() -> list[torch.Tensor]:
        return [
            torch.empty(33),
            torch.empty_like(like),
            torch.empty_strided((33,), (1,)),
            like.new_empty(33),
            like.new_empty_strided((33,), (1,)),
            *backward(),
        ]

    before = [torch.full((33,), float("nan")) for _ in range(8)]
    del before
    found, launches = counted(made, 1)
    assert launches == []
    assert torch.equal(torch.stack(found), torch.zeros(6, 33))
    assert torch.empty is words[0] and torch.Tensor.new_empty is words[1]
