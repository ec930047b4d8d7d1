"""Triton's max_pool2d and max_unpool2d compile for GPUs that are not here, without spills and with wide accesses."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import PoolCase
from cnnkernels.testing.triton_aot import MAX_POOL2D_OPS, Call, Compiled, compile_all

pytestmark = pytest.mark.long

RESNET = PoolCase("ResNet's stem", 8, 64, 112, 112, (3, 3), (2, 2), (1, 1))
LARGE = PoolCase("a large dilated window", 2, 24, 70, 70, (17, 16), (3, 2), (8, 8), (2, 1))
DTYPES = ("fp64", "fp32", "fp16", "bf16")


@pytest.fixture(scope="module")
def kernels() -> list[Compiled]:
    """Forward and backward in every dtype and layout, unrolled and looping; every kernel for every architecture."""
    both = MAX_POOL2D_OPS[:2]
    calls = [Call(op, RESNET, dtype, layout, 90) for op in both for dtype in DTYPES for layout in Layout]
    calls += [Call(op, LARGE, "bf16", layout, 90) for op in both for layout in Layout]
    calls += [Call(op, RESNET, "bf16", layout, 90) for op in MAX_POOL2D_OPS[2:] for layout in Layout]
    calls += [Call(op, RESNET, "bf16", Layout.NHWC, arch) for op in MAX_POOL2D_OPS for arch in (80, 100)]
    return list(compile_all(calls, processes=1))


def test_every_kernel_compiles_without_spills(kernels: list[Compiled]) -> None:
    for k in kernels:
        print(f"sm_{k.arch} {k.family}.{k.name} {k.specialization}: {k.registers} registers, {k.spill_bytes} spilled")
    assert {k.arch for k in kernels} == {80, 90, 100}
    names = {(k.family, k.name) for k in kernels}
    pool = {"forward_kernel", "backward_kernel", "gather_kernel", "indices_kernel"}
    unpool = {"scatter_kernel", "forward_kernel", "backward_kernel"}
    assert names == {("pool.max_pool", n) for n in pool} | {("pool.max_unpool", n) for n in unpool}
    assert not [k for k in kernels if k.spill_bytes]


def test_channels_last_moves_16_bytes_at_once(kernels: list[Compiled]) -> None:
    checked = [
        k for k in kernels if k.family.startswith("pool.max_pool") and k.specialization.endswith("nhwc ResNet's stem")
    ]
    checked = [k for k in checked if k.name in ("forward_kernel", "backward_kernel")]
    assert len(checked) >= 8
    for kernel in checked:
        assert kernel.count(r"LDG\.E\.128") > 0, f"{kernel.name} {kernel.specialization}"
        assert kernel.count(r"STG\.E\.128") > 0, f"{kernel.name} {kernel.specialization}"
