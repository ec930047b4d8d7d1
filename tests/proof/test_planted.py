"""Faults planted in the real kernels of a proof's real child: each is caught, routed round and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cnnkernels
from cnnkernels import backends, certified, functional
from cnnkernels.certified.certificates import Certificate
from cnnkernels.certified.families import FAMILIES
from cnnkernels.cli import info
from cnnkernels.proof import run
from helpers.device import HAS_GPU, MODULE
from helpers.proving import CPU, faulty_child

pytestmark = pytest.mark.skipif(HAS_GPU or MODULE != "interpreter", reason="the interpreter stands for the GPU")

POOLING = [
    each
    for each in FAMILIES
    if each.backend == "cuda" and each.word == "pool" and each.element != "fp64"
    if each.element == "fp32" or "unpool" not in each.direction
]
FAULTS = (
    ("max_pool_forward", "fp32", "one_element_of_a_tile"),
    ("max_pool_forward", "fp16", "writes_behind"),
    ("max_pool_forward", "bf16", "WrongAfterAnother"),
    ("avg_pool_forward", "fp32", "never_ends"),
    ("avg_pool_backward", "fp16", "crashes"),
    ("avg_pool_backward", "bf16", "driver_call_fails"),
)
WHY = {
    "cuda pool max_forward fma fp32": "several tiles, nchw: 1 of 5040 elements are wrong, the first at",
    "cuda pool max_forward fma fp16": "one element, nchw: OutOfBounds: max_pool_forward: 2 bytes written behind",
    "cuda pool max_forward fma bf16": "right alone, wrong after one element, nchw",
    "cuda pool avg_forward fma fp32": "it took more than 3 s",
    "cuda pool avg_backward fma fp16": "its process ended with signal 11",
    "cuda pool avg_backward fma bf16": "RuntimeError: launching a kernel: an illegal memory access",
}


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Certificate]:
    """The certificate that the CPU, as a device that asks for one, gets from a child with FAULTS."""
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path))
    monkeypatch.setattr(certified, "NEEDED", {"cpu"})
    monkeypatch.setattr(run, "COMMAND", faulty_child(*FAULTS))
    monkeypatch.setattr(run, "LIMITS", {"cuda": 3.0})
    yield run.prove_device(CPU, POOLING)
    certified._held.clear()
    monkeypatch.undo()
    certified.forget()
    backends.forget()


def test_planted_faults_are_caught_routed_round_and_named(
    proved: Certificate,
) -> None:
    after_it = {name for name in proved.failed if "max_backward" in name}  # its trials begin with the forward
    assert proved.failed.keys() - after_it == WHY.keys()
    for name, why in WHY.items():
        assert why in proved.failed[name], name
    assert len(proved.families) > len(proved.failed) + 4  # the others are certified
    said = info._certified(CPU)
    assert all(any(name in line and why in line for line in said) for name, why in WHY.items())
    x = torch.arange(16.0).view(1, 1, 4, 4)
    decision = cnnkernels.choose(backends.problem_on("max_pool2d", CPU, torch.float32))
    assert decision.backend == "reference" and WHY["cuda pool max_forward fma fp32"] in dict(decision.rejected)["cuda"]
    assert functional.max_pool2d(x, 2).flatten().tolist() == [5, 7, 13, 15]
    assert cnnkernels.choose(backends.problem_on("max_unpool2d", CPU, torch.float32)).backend == "cuda"
