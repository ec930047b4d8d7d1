"""The fused pair's Triton kernel compiles for GPUs that are not here: no spill, tensor cores, wide accesses.

`make audit` compiles every type and more layers.
"""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from cnnkernels.geometry import Layout
from cnnkernels.testing.triton_aot import ARCHITECTURES, OTHER_SEPARABLE, SEPARABLE, Call, Compiled, compile_all

pytestmark = pytest.mark.long

TENSOR_CORES = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}


FORWARD, BACKWARD = "depthwise_separable_conv_forward", "depthwise_separable_conv_backward"
MANY_FILTERS = OTHER_SEPARABLE[0]


@pytest.fixture(scope="module")
def compiled() -> list[Compiled]:
    calls = [Call(FORWARD, SEPARABLE, "bf16", Layout.NHWC, arch) for arch in ARCHITECTURES]
    calls.append(Call(FORWARD, SEPARABLE, "bf16", Layout.NCHW, 90))
    calls += [Call(FORWARD, case, "fp32", Layout.NHWC, 100) for case in (SEPARABLE, MANY_FILTERS)]
    calls += [Call(op, MANY_FILTERS, "fp32", Layout.NCHW, 100) for op in (FORWARD, BACKWARD)]
    return list(compile_all([*calls, Call(BACKWARD, MANY_FILTERS, "fp32", Layout.NHWC, 100)]))


@pytest.fixture(scope="module")
def kernels(compiled: list[Compiled]) -> list[Compiled]:
    return [k for k in compiled if k.specialization.startswith("bf16")]


def test_it_compiles_without_a_spill(kernels: list[Compiled]) -> None:
    assert {(k.name, k.arch) for k in kernels} == {("fused_kernel", arch) for arch in ARCHITECTURES}
    assert len(kernels) == 4
    assert not [(k.arch, k.specialization) for k in kernels if k.spill_bytes]


def test_the_1x1_runs_on_tensor_cores_and_stores_are_wide(kernels: list[Compiled]) -> None:
    for kernel in kernels:
        what = f"{kernel.arch} {kernel.specialization}"
        # In NCHW a product's rows are filters, here 32: too few for a wgmma.
        assert kernel.count("HMMA" if "nchw" in what else TENSOR_CORES[kernel.arch]) > 0, what
        assert kernel.count(r"LDG\.E[.A-Z]*\.(?:64|128)") > 0, what
        assert kernel.count(r"STG\.E[.A-Z]*\.(?:64|128)") > 0 == kernel.count(r"STG\.E[.A-Z]*U?16"), what


def test_exact_fp32_stays_off_the_tensor_cores_of_sm_100(compiled: list[Compiled]) -> None:
    """Asked for "ieee", Triton 3.7 gives some products of 64 rows to them, as tf32."""
    exact = [k for k in compiled if k.specialization.startswith("fp32") and k.name != "sum_partials_kernel"]
    assert sorted(k.name for k in exact) == ["backward_kernel"] * 2 + ["fused_kernel"] * 3
    for kernel in exact:
        assert not kernel.count(r"UTC\w*MMA|HMMA"), f"{kernel.name} {kernel.specialization}"
        assert kernel.count("FFMA") > 100 and not kernel.spill_bytes, f"{kernel.name} {kernel.specialization}"


def test_the_backward_compiles_without_a_spill() -> None:
    op = "depthwise_separable_conv_backward"
    made = compile_all([Call(op, SEPARABLE, "bf16", Layout.NHWC, 90), Call(op, SEPARABLE, "bf16", Layout.NCHW, 80)])
    kernels = [k for k in made if k.name == "backward_kernel"]
    assert len(kernels) == 2 and not [k.specialization for k in kernels if k.spill_bytes]
    assert all(k.count("HMMA|HGMMA") > 0 and k.count(r"LDG\.E[.A-Z]*\.64") > 0 for k in kernels)
