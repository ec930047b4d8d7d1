"""Kernels without one of their barriers, waits or fences: the emulator notices. A few here;
tests/removed_synchronisation.py takes all, and docs/emulator.md says what came of it."""

from __future__ import annotations

import pytest

pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")

from helpers.every_kernel.removed import removed

# source, how many kernels, how many instructions of each (0: all), and the places of those that nothing can notice.
FEW: list[tuple[str, int, int, set[str]]] = [
    ("int8/product.cu", 2, 0, set()),
    ("int8/sm90_product.cu", 1, 11, {"mbarrier.cuh:45", "sync.cuh:19"}),
    ("depthwise_separable_conv/sm90/bfloat16.cu", 1, 14, {"fused.cuh:153"}),
]


@pytest.mark.parametrize(("source", "kernels", "instructions", "unseen"), FEW, ids=[few[0] for few in FEW])
def test_it_is_noticed(source: str, kernels: int, instructions: int, unseen: set[str]) -> None:
    found = list(removed(source, kernels, instructions))
    assert len(found) > 10
    assert {each.place for each in found if each.executed and not each.noticed} <= unseen
    assert sum(bool(each.noticed) for each in found) >= 0.8 * len(found)
