"""The trials of a proof run every kernel that a GPU may be given, so that nothing unproven is certified. Those of
conv2d are too many for here: test_trials.py has it of their plans; the pools' are test_every_kernel.py's."""

from __future__ import annotations

import pytest

from cnnkernels.certified.families import FAMILIES
from cnnkernels.proof import trials
from cnnkernels.proof.trial import difference

pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")

from helpers.every_kernel import emulated, module, reachable

ROOMS = {
    ("depthwise_conv",): ("depthwise_conv/",),
    ("depthwise_separable_conv",): ("depthwise_separable_conv/",),
    ("norm", "quantize"): ("norm/", "quantize/"),
    ("int8_gemm", "int8_conv", "int8_pool", "int8_weight_only_linear"): ("int8",),
}


@pytest.mark.parametrize("words", ROOMS, ids=" ".join)
def test_the_trials_of_a_proof_run_every_kernel(words: tuple[str, ...]) -> None:
    m = module()
    before, threads = m.standing_for(), m.schedule()["threads"]
    m.stand_for("h200")
    m.set_threads(1)
    m.kernels_run()
    try:
        for family in FAMILIES:
            if family.backend == "cuda" and family.word in words:
                for trial in trials.trials(family, emulated(), "cpu"):
                    for found, expected in trial.call(emulated(), "cpu"):
                        assert not difference(found, expected), f"{family}: {trial.name}"
    finally:
        m.stand_for(before)
        m.set_threads(threads)
    ran = set(m.kernels_run())
    of_rooms = {source: kernels for source, kernels in reachable().items() if source.startswith(ROOMS[words])}
    assert len(of_rooms) >= len(ROOMS[words])
    assert {source: sorted(kernels - ran) for source, kernels in of_rooms.items() if kernels - ran} == {}
