"""Triton's averages compile for GPUs that are not here, without spills."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import PoolCase
from cnnkernels.testing.triton_aot import Call, Compiled, compile_all

pytestmark = pytest.mark.long

WINDOWS = PoolCase("an inception branch", 8, 64, 28, 28, (3, 3), (1, 1), (1, 1))
BINS = PoolCase("bins that overlap", 8, 64, 28, 28, (1, 1), (1, 1), bins=(9, 9))
WHOLE = PoolCase("a plane in parts", 8, 64, 112, 112, (1, 1), (1, 1), bins=(1, 1))
VAST = PoolCase("bins in 64-bit arithmetic", 1, 8, 60000, 8, (1, 1), (1, 1), bins=(50000, 8))


@pytest.fixture(scope="module")
def kernels() -> list[Compiled]:
    """Every dtype of windows; the rest in bf16."""
    of_windows, of_bins = (
        tuple(f"{name}_{way}" for way in ("forward", "backward")) for name in ("avg_pool", "adaptive_avg_pool")
    )
    calls = [
        Call(op, WINDOWS, dtype, Layout.NHWC, 90) for op in of_windows for dtype in ("fp64", "fp32", "fp16", "bf16")
    ]
    calls += [
        Call(op, case, "bf16", Layout.NCHW, 90) for case, ops in ((WINDOWS, of_windows), (BINS, of_bins)) for op in ops
    ]
    calls += [Call(op, BINS, "bf16", Layout.NHWC, arch) for op in of_bins for arch in (80, 100)]
    calls += [
        Call(of_bins[0], WHOLE, dtype, layout, 90) for dtype, layout in (("fp64", Layout.NCHW), ("bf16", Layout.NHWC))
    ]
    calls.append(Call(of_bins[0], VAST, "bf16", Layout.NHWC, 90))
    return list(compile_all(calls, processes=1))


def test_every_kernel_compiles_without_spills(kernels: list[Compiled]) -> None:
    for k in kernels:
        print(f"sm_{k.arch} {k.family}.{k.name} {k.specialization}: {k.registers} registers, {k.spill_bytes} spilled")
    assert {k.arch for k in kernels} == {80, 90, 100}
    names = {(k.family, k.name) for k in kernels}
    assert names == {
        *(("pool.avg_pool", name) for name in ("forward_kernel", "backward_kernel")),
        ("pool.global_avg_pool", "sum_planes_kernel"),
    }
    assert not [k for k in kernels if k.spill_bytes]


def test_channels_last_moves_16_bytes_at_once(kernels: list[Compiled]) -> None:
    checked = [k for k in kernels if k.specialization == f"bf16 nhwc {WINDOWS.reason}"]
    assert len(checked) == 2
    for kernel in checked:
        assert kernel.count(r"LDG\.E\.128") > 0 and kernel.count(r"STG\.E\.128") > 0, kernel.name
