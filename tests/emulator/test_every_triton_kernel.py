"""Every Triton kernel in every configuration that may be chosen, as Triton compiles it for an A100 or for a Hopper, in
random order with late delivery, and right.

A configuration that both GPUs have runs on one of them, its types and layouts take turns; under make test-ptx it runs
on both, but for what has neither products nor bf16, which is one PTX, and in all types and layouts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from helpers.device import PTX

pytest.importorskip("triton")
pytestmark = pytest.mark.long

GPUS = {"a100": "sm_80", "h200": "sm_90"}
# Words of functions that kernels share, which these kernels have one way.
ONE_WAY = {"int8_pool.int8_pool.int8_pool_kernel, NHWC=False", "quantize.quantize.absmax_runs_kernel, RUNS=False"}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """By GPU."""
    command = [sys.executable, "-m", "helpers.every_triton_kernel.found", *["--every-type"] * PTX]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    environment |= {"CNNKERNELS_INTERPRET": "ptx", "CNNKERNELS_BACKEND": "triton"}
    environment |= {"CNNKERNELS_SCHEDULE": "random", "CNNKERNELS_SEED": "1", "CNNKERNELS_DELIVERY": "late"}
    said = {}
    for gpu in GPUS:
        environment["CNNKERNELS_EMULATED_GPU"] = gpu
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[gpu] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("gpu", GPUS)
def test_every_result_is_right(found: dict[str, dict[str, Any]], gpu: str) -> None:
    assert found[gpu]["wrong"] == []


def test_every_kernel_is_launched(found: dict[str, dict[str, Any]]) -> None:
    launched = [set(said["kernels"]) for said in found.values()]
    for said in found.values():
        assert sorted(set(said["all_kernels"]) - (set.intersection(*launched) if PTX else set.union(*launched))) == []


def test_every_configuration_is_launched(found: dict[str, dict[str, Any]]) -> None:
    """Of each table that selection reads, every row; under make test-ptx on each GPU that it is for."""
    missing = []
    for gpu, said in found.items():
        elsewhere = {name for other in found.values() for name in other["seen"]}
        assert len(said["wanted"]) > 100
        for name, on_every_gpu in said["wanted"].items():
            if name not in (said["seen"] if on_every_gpu and PTX else elsewhere):
                missing.append(f"{name} for {GPUS[gpu]}")
    assert missing == []


def test_every_flag_is_true_and_false(found: dict[str, dict[str, Any]]) -> None:
    """Each of a kernel's compile-time words that ever is either, 64-bit arithmetic among them."""
    seen = {flag for said in found.values() for flag in said["flags"]}
    words = {flag.rpartition("=")[0] for flag in seen}
    assert {f"{word}={value}" for word in words for value in (True, False)} - seen == ONE_WAY


def test_what_has_neither_products_nor_bf16_is_one_ptx_for_both(found: dict[str, dict[str, Any]]) -> None:
    """Of what both were given to compile. For bf16 Hopper has instructions of its own."""
    products = {name.partition(",")[0] for name, on_every_gpu in found["h200"]["wanted"].items() if on_every_gpu}
    products -= {"depthwise_conv.sweep.sweep_kernel", "depthwise_conv.backward_weight.backward_weight_kernel"}
    a100, h200 = (found[gpu]["compiled"] for gpu in GPUS)
    shared = [what for what in a100 if what in h200 and what.partition(" ")[0] not in products and "*bf16" not in what]
    assert len({what.partition(" ")[0] for what in shared}) > 10
    assert [what for what in shared if a100[what] != h200[what]] == []
