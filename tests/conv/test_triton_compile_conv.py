"""conv2d's Triton kernels compile for GPUs that are not there: no spill, the instructions they are meant to become.

A subset that covers every kernel, dtype and layout; `make audit` compiles all of their combinations, in every
configuration, and test_triton_driver.py of tests/emulator launches each.
"""

from __future__ import annotations

import pytest
from cnnkernels.triton_kernels.common.target import gpu_of

from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.testing import triton_aot
from cnnkernels.testing.triton_aot import (
    ARCHITECTURES,
    CONV2D_PRODUCTS,
    ODD,
    OTHER_CONV2D,
    WHOLE,
    Call,
    Compiled,
    compile_all,
    conv_candidates,
)

pytestmark = pytest.mark.long

TENSOR_CORES = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}


def covering_calls() -> list[Call]:
    """Each operator in each dtype on one architecture, in bf16 on all; each size in bf16 once; the largest tile of the
    GPUs with the least shared memory."""
    found = [Call("conv_backward_bias", WHOLE, "bf16", layout, 90) for layout in Layout]
    found += [conv_candidates("forward", WHOLE, "bf16", Layout.NHWC, arch)[0] for arch in (86, 120)]
    for i, op in enumerate(CONV2D_PRODUCTS):
        for j, dtype in enumerate(PRODUCTS):
            found.append(Call(f"conv_{op}", WHOLE, dtype, Layout.NHWC, ARCHITECTURES[(i + j) % 3]))
        found += [Call(f"conv_{op}", WHOLE, "bf16", Layout.NHWC, arch) for arch in ARCHITECTURES]
        for j, case in enumerate((ODD, *OTHER_CONV2D)):
            found.append(Call(f"conv_{op}", case, "bf16", list(Layout)[(i + j) % 2], ARCHITECTURES[j % 3]))
    return found


@pytest.fixture(scope="module")
def compiled() -> list[Compiled]:
    return list(compile_all(covering_calls(), processes=1))


def test_every_kernel_compiles(compiled: list[Compiled]) -> None:
    assert {kernel.name for kernel in compiled if kernel.family.startswith(("conv.", "common."))} == {
        "forward_kernel",
        "backward_input_kernel",
        "backward_weight_kernel",
        "backward_bias_kernel",
        "missing_windows_kernel",
        "sum_partials_kernel",
        "direct_forward_kernel",
        "direct_backward_input_kernel",
        "direct_backward_weight_kernel",
    }


def test_nothing_spills(compiled: list[Compiled]) -> None:
    spilling = [(k.name, k.arch, k.specialization, k.spill_bytes) for k in compiled if k.spill_bytes]
    assert not spilling


def test_shared_memory_holds_what_ptxas_laid_there(compiled: list[Compiled]) -> None:
    assert {k.arch for k in compiled} == {*ARCHITECTURES, 86, 120}
    assert [k for k in compiled if k.shared_bytes > gpu_of(k.arch).shared_bytes] == []


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_16_bit_products_run_on_tensor_cores_and_load_16_bytes(compiled: list[Compiled], arch: int) -> None:
    names = {"forward_kernel", "backward_input_kernel", "backward_weight_kernel"}
    products = [
        k for k in compiled if k.arch == arch and k.name in names and k.specialization.startswith("bf16 nhwc 3x3")
    ]
    assert {k.name for k in products} == names
    for kernel in products:
        assert kernel.count(TENSOR_CORES[arch]), kernel.specialization
        assert kernel.count(r"LDGSTS\S*\.128")
        assert not kernel.count(r"STS\S*\.U16")
        assert kernel.count(r"STG\S*\.128")


def test_fp64_products_run_on_tensor_cores(compiled: list[Compiled]) -> None:
    """Of sm_80 and sm_90; for sm_100 Triton makes them of fused multiply-adds."""
    sums = "sum", "missing_windows"  # kernels without products of tiles
    of_fp64 = [k for k in compiled if k.specialization.startswith("fp64 nhwc 3x3")]
    products = [k for k in of_fp64 if not any(word in k.name for word in sums)]
    assert products
    for kernel in products:
        assert kernel.count("DMMA" if kernel.arch < 100 else "DFMA")


def test_a_process_that_interprets_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(RuntimeError, match="TRITON_INTERPRET is set"), triton_aot.compiling(90):
        pass
