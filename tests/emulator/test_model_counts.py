"""What selection's models take kernels to do is what they do: wavefronts of a stage, counted in the emulator."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from cnnkernels import native
from cnnkernels.emulator.profile import Profile, counted
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase

DEPTH = {torch.bfloat16: 32, torch.float32: 16}  # elements in 64 bytes


@pytest.fixture(scope="module")
def module() -> Any:
    pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")
    module = native.load("emulated").module
    before = module.standing_for()
    yield module
    module.stand_for(before)


def case_of(channels: int, filters: int, batch: int = 2) -> ConvCase:
    return ConvCase("", batch, channels, 32, 32, filters, 3, 3, padding=(1, 1, 1, 1))


def run(engine: str, tile: tuple[int, ...], channels: int, dtype: torch.dtype) -> Profile:
    """The first block of a convolution by a plan, which takes one tile."""
    kernels, case = native.load("emulated"), case_of(channels, tile[1])
    x, w, y = (
        torch.zeros(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in (case.input_shape, case.weight_shape, case.output_shape)
    )
    plan = kernels.plan({"engine": engine, "tile": tile, "a": "along_depth", "b": "along_depth", "splits": 1})
    _, (launch,) = counted(
        lambda: kernels.conv_forward(x, w, None, y, case.geometry, Layout.NHWC, dtype is torch.float32, plan), 1
    )
    return launch


def of_a_stage(engine: str, tile: tuple[int, ...], dtype: torch.dtype, bytes_deep: int) -> float:
    """Wavefronts of shared memory: those that more channels add."""
    few = 2 * DEPTH[dtype] * bytes_deep // 64
    launches = [run(engine, tile, channels, dtype) for channels in (few, 2 * few)]
    wavefronts = [launch.sum("wavefronts") + launch.sum("streamed_wavefronts") for launch in launches]
    return (wavefronts[1] - wavefronts[0]) / (2 * 9)


def modelled(tile: tuple[int, ...], dtype: torch.dtype, engine: str, bytes_deep: int) -> tuple[str, float]:
    """What limits the arithmetic of a tile, and the clocks of a stage, by the model of an H200: of so many tiles that
    its 132 SMs hold all blocks they can, all the time."""
    module: Any = native.load("interpreter").module
    gpu, case = module.gpu_named("h200"), case_of(256, tile[1], batch=66)
    found = module.conv_explain(
        module.ConvDirection.forward, 1 if dtype is torch.float32 else 3, int(Layout.NHWC), dtype is torch.float32,
        module.ConvGeometry(*case.geometry), gpu, None,
    )  # fmt: skip
    candidates = found.wgmma if engine == "wgmma" else found.parts[0].candidates
    (cost,) = (c.cost for c in candidates if c.plan.engine.name == engine and c.plan.tile_shape == tile)
    stages = 256 * 9 / (DEPTH[dtype] * bytes_deep // 64)
    turns = -(-cost.tiles // gpu.processors)
    return cost.limit, cost.arithmetic * gpu.clock / stages / turns


@pytest.mark.parametrize("tile", [(256, 64), (128, 64), (64, 256), (64, 128)])
def test_shared_memory_of_hoppers_kernel(module: Any, tile: tuple[int, int]) -> None:
    """Reads of tensor cores and writes by TMA, where they take longer than the products."""
    module.stand_for("h200")
    assert modelled(tile, torch.bfloat16, "wgmma", 128) == (
        "shared",
        pytest.approx(of_a_stage("wgmma", tile, torch.bfloat16, 128)),
    )


@pytest.mark.parametrize(("tile", "dtype"), list(itertools.product([(128, 128), (64, 64), (128, 32)], DEPTH)))
def test_shared_memory_of_mma(module: Any, tile: tuple[int, int], dtype: torch.dtype) -> None:
    """Fragments, copies and the look-ups of where a stage lies."""
    module.stand_for("a100")
    assert modelled(tile, dtype, "mma", 64) == ("shared", pytest.approx(of_a_stage("mma", tile, dtype, 64)))
