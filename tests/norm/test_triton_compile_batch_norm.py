"""Triton's batch norms compile for GPUs that are not here, without spills, and move whole vectors."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from cnnkernels.testing.norm_aot import PIXELS, PLANES, NormCall
from cnnkernels.testing.triton_aot import Compiled, compile_all

pytestmark = pytest.mark.long

NAMES = {
    "backward": ("sums_kernel", "add_sums_kernel", "combine_kernel"),
    "normalize": ("normalize_kernel",),
    "statistics": ("statistics_kernel", "merge_statistics_kernel"),
}


@pytest.fixture(scope="module")
def kernels() -> list[Compiled]:
    """Pixels in a type for each architecture, planes in fp32; `make audit` compiles them all."""
    calls = [NormCall("pixels", PIXELS, dtype, arch) for dtype, arch in (("bf16", 80), ("fp16", 100))]
    calls.append(NormCall("planes", PLANES, "fp32", 90))
    return list(compile_all(calls, processes=1))


def test_every_kernel_compiles_without_spills(kernels: list[Compiled]) -> None:
    for k in kernels:
        print(f"sm_{k.arch} {k.family}.{k.name} {k.specialization}: {k.registers} registers, {k.spill_bytes} spilled")
    assert {k.arch for k in kernels} == {80, 90, 100}
    assert {(k.family, k.name) for k in kernels} >= {
        (f"norm.{of}", name) for of, names in NAMES.items() for name in names
    }
    assert not [k for k in kernels if k.spill_bytes]


def test_images_move_16_bytes_at_once(kernels: list[Compiled]) -> None:
    checked = [k for k in kernels if k.name == "normalize_kernel" and k.arch == 90]
    assert len(checked) == 1
    for kernel in checked:
        assert kernel.count(r"LDG\.E\.128") > 0 and kernel.count(r"STG\.E\.128") > 0, kernel.specialization
