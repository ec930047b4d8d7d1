"""depthwise_conv2d's Triton kernels compile for GPUs that are not here: no spill, 16-byte accesses, no detour of the
image through shared memory. `make audit` compiles every type, layer and architecture."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from cnnkernels.geometry import Layout
from cnnkernels.testing.triton_aot import DEPTHWISE_3X3, Call, Compiled, compile_all

WIDE = {"sweep_kernel", "backward_weight_kernel"}


@pytest.fixture(scope="module")
def kernels() -> list[Compiled]:
    """The commonest layer in its commonest type, each kernel in each layout."""
    ops = ("depthwise_conv_forward", "depthwise_conv_backward_weight")
    calls = [Call(op, DEPTHWISE_3X3, "bf16", layout, 90) for op in ops for layout in Layout]
    return list(compile_all(calls, processes=1))


def test_every_kernel_compiles_without_a_spill(kernels: list[Compiled]) -> None:
    assert {k.name for k in kernels} == WIDE | {"sum_partials_kernel"}
    assert not [(k.name, k.specialization) for k in kernels if k.spill_bytes]


def test_images_are_read_and_written_16_bytes_at_once(kernels: list[Compiled]) -> None:
    for kernel in kernels:
        if kernel.name in WIDE:
            what = f"{kernel.name} {kernel.arch} {kernel.specialization}"
            assert kernel.count(r"LDG\.E[.A-Z]*\.128") > 0, what
            if kernel.name == "sweep_kernel":
                assert kernel.count(r"STG\.E[.A-Z]*\.128") > 0 == kernel.count(r"STG\.E[.A-Z]*U?16"), what


def test_a_patch_stays_in_registers(kernels: list[Compiled]) -> None:
    for kernel in kernels:
        if kernel.name == "sweep_kernel":
            assert kernel.shared_bytes == kernel.count("SHFL|STS|LDS") == 0, kernel.specialization
