"""The INT8 operators' Triton kernels compile for GPUs that are not here: no spill, tensor cores, 16 bytes a load, no
multiplication fused with an addition. `make audit` compiles every configuration for every architecture."""

from __future__ import annotations

import pytest
import torch
import triton

from cnnkernels.testing.int8_aot import LARGE, OTHER_GEMM, WEIGHT_ONLY, Int8Call, WeightOnlyCall
from cnnkernels.testing.triton_aot import DEPTHWISE_3X3, WHOLE, Compiled, compile_all

pytestmark = pytest.mark.long

BATCH_1 = OTHER_GEMM[0]
INTEGER_CORES = {80: "IMMA", 90: "IGMMA", 100: "IMMA"}  # Triton has no tcgen05 of integers
PRODUCTS = {"gemm_kernel", "forward_kernel"}


@pytest.fixture(scope="module")
def kernels() -> list[Compiled]:
    calls = [Int8Call(LARGE, arch) for arch in (80, 90)]
    calls += [Int8Call(WHOLE, 100), Int8Call(WHOLE, 90, unsigned=True), Int8Call(BATCH_1, 90)]
    calls += [Int8Call(OTHER_GEMM[1], 90), Int8Call(LARGE, 90, output=torch.int32), Int8Call(DEPTHWISE_3X3, 90)]
    calls += [WeightOnlyCall(BATCH_1, 80), WeightOnlyCall(WEIGHT_ONLY[1], 90), WeightOnlyCall(LARGE, 100, "fp32")]
    return list(compile_all(calls, processes=1))


def test_every_kernel_compiles_without_a_spill(kernels: list[Compiled]) -> None:
    others = {"add_ranges_kernel", "depthwise_kernel", "pack_kernel", "linear_kernel"}
    assert {k.name for k in kernels} == PRODUCTS | others
    assert not [(k.name, k.arch, k.specialization, k.spill_bytes) for k in kernels if k.spill_bytes]


def test_products_run_on_integer_tensor_cores_and_load_16_bytes(kernels: list[Compiled]) -> None:
    for kernel in kernels:
        if kernel.name in PRODUCTS:
            what = f"{kernel.name} {kernel.arch} {kernel.specialization}"
            few = "batch 1" in kernel.specialization  # fewer rows than a wgmma takes
            assert kernel.count("IMMA" if few else INTEGER_CORES[kernel.arch]), what
            assert kernel.count(r"LDGSTS\S*\.128") == kernel.count("LDGSTS") > 0, what
            assert few or kernel.count(r"STG\S*\.128") == kernel.count("STG") > 0, what


def test_a_weight_is_widened_in_registers(kernels: list[Compiled]) -> None:
    """It comes 16 bytes at a time; 16-bit types meet tensor cores, fp32 does not."""
    found = {k.arch: k for k in kernels if k.name == "linear_kernel"}
    for kernel in found.values():
        assert kernel.count(r"LDGSTS\S*\.128") > 0 and not kernel.count(r"LDG\S*\.U8")
    assert found[80].count("HMMA.16816.F32.BF16") and found[90].count("HGMMA")
    assert found[100].count("FFMA|FMUL") and not found[100].count("UTCHMMA|HMMA")


def test_nothing_is_fused(kernels: list[Compiled]) -> None:
    """But for sm_100 by the ptxas that comes with Triton 3.6, which fuses pairs although told not to."""
    older = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
    told = [k for k in kernels if not (older and k.arch == 100) and k.name != "linear_kernel"]  # its sums are fp32's
    assert not [(k.name, k.specialization) for k in told if k.count("FFMA")]
    assert sum(k.count("FADD") for k in told) > 0
