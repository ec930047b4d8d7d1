"""Each planted fault is caught by the trials of its family, which the right kernels pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cnnkernels import backends
from cnnkernels.certified.families import FAMILIES
from cnnkernels.geometry import Layout
from cnnkernels.operators import OPERATORS
from cnnkernels.proof import convolutions, integers, pairs, pools, trials
from helpers import proving
from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.proving import Planted, WrongAfterAnother, family

MAX = "cuda pool max_forward fma fp32"
pytestmark = pytest.mark.skipif(HAS_GPU, reason="plants faults by way of the host's memory")


def verdict(fault: Callable[..., None]) -> trials.Verdict:
    return trials.run(family(MAX), Planted(backends.kernels("cuda", DEVICE), "max_pool_forward", fault), DEVICE)


@pytest.mark.parametrize(
    ("fault", "trial", "why"),
    [
        (proving.one_element_of_a_tile, "several tiles, nchw", "1 of 5040 elements are wrong, the first at"),
        (proving.writes_behind, "one element, nchw", "OutOfBounds: max_pool_forward: 2 bytes written behind a tensor"),
        (proving.writes_before, "one element, nchw", "OutOfBounds: max_pool_forward: 1 bytes written before a tensor"),
        (proving.reads_behind, "one element, nchw", "the first at [0, 0, 0, 0]: nan where"),
        (proving.leaves_one_out, "one element, nchw", "nan where"),
        (proving.drops_nan, "2x2 stride 2, nchw, NaN", "0.0 where nan is right"),
        (proving.wrong_where_unaligned, "one element, nchw, unaligned", "1 of 1 elements are wrong"),
        (proving.wrong_in_a_thread, "one element, nchw, in a fresh thread", "1 of 1 elements are wrong"),
        (proving.driver_call_fails, "one element, nchw", "RuntimeError: launching a kernel: an illegal memory access"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_caught(fault: Callable[..., None], trial: str, why: str) -> None:
    found = verdict(fault)
    assert why in found.why
    assert trial == found.trial


def test_one_that_is_right_alone_and_wrong_after_another() -> None:
    found = verdict(WrongAfterAnother())
    assert found.why and found.after == "one element, nchw"
    alone = Planted(backends.kernels("cuda", DEVICE), "max_pool_forward", WrongAfterAnother())
    right = trials.run(family(MAX), alone, DEVICE, only=found.trial)
    assert right.why == "" and right.ran == 1


class TooSmall:
    """A native module that asks for too small a workspace of one kernel: what it writes there goes behind."""

    def __init__(self, module: Any, name: str) -> None:
        self._module, self._name = module, f"{name}_workspace"

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        return (lambda *numbers: max(min(8, found(*numbers)), found(*numbers) - 256)) if name == self._name else found


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("cuda norm forward fma fp32", "batch_norm"),
        ("cuda conv backward_weight fma fp32", "conv"),
        ("cuda conv backward_bias fma fp32", "conv_backward_bias"),
        ("cuda depthwise_conv backward_weight fma fp32", "depthwise_conv_backward_weight"),
    ],
)
def test_a_workspace_has_guards(monkeypatch: pytest.MonkeyPatch, name: str, kernel: str) -> None:
    kernels = backends.kernels("cuda", DEVICE)
    monkeypatch.setattr(kernels, "module", TooSmall(kernels.module, kernel))
    found = trials.run(family(name), kernels, DEVICE)
    assert "its workspace: " in found.why and " bytes written behind a tensor of" in found.why


def test_the_right_kernels_pass() -> None:
    found = trials.run(family(MAX), backends.kernels("cuda", DEVICE), DEVICE)
    assert found.why == "" and found.ran > 50


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each list the cases that trials single out, and little more; of what they make, a part."""
    every = trials.trials
    monkeypatch.setattr(trials, "trials", lambda *arguments: every(*arguments)[::5])
    cases = convolutions.CASES
    monkeypatch.setattr(convolutions, "CASES", (*cases[:3], cases[16], cases[3], cases[6], cases[6], cases[-2]))
    monkeypatch.setattr(
        convolutions, "DEPTHWISE_CASES", (*convolutions.DEPTHWISE_CASES[:2], convolutions.DEPTHWISE_CASES[20])
    )
    monkeypatch.setattr(pairs, "CASES", pairs.CASES[1:2])
    monkeypatch.setattr(pools, "CASES", pools.CASES[1:3])
    monkeypatch.setattr(pools, "AVERAGES", pools.AVERAGES[1:2])


@pytest.mark.skipif(MODULE != "interpreter", reason="the emulator's launches are tests/emulator's")
def test_every_family_of_cuda_has_trials_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an H200 would choose; of each word and engine one type, and the direction that launches most."""
    few(monkeypatch)
    kernels = backends.kernels("cuda", "cpu")
    module = kernels.module
    tried = {}
    for each in FAMILIES:
        if each.backend == "cuda" and each.element in ("tf32", "fp16", "int8"):
            tried[each.word, each.direction.partition("_")[0], each.engine, each.element] = each
    before = module.this_gpu()
    module.stand_for(module.gpu_named("h200"))
    try:
        counts = {str(each): trials.run(each, kernels, "cpu") for each in tried.values()}
    finally:
        module.stand_for(before)
    assert len(counts) > 25
    assert {name: found for name, found in counts.items() if found.why or not found.ran} == {}


def test_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    monkeypatch.setattr(pools, "CASES", pools.CASES[:1])
    kernels = backends.kernels("triton", DEVICE)
    for name in ("triton pool max_backward plain fp32", "triton quantize backward plain fp16"):
        found = trials.run(family(name), kernels, DEVICE)
        assert found.why == "" and found.ran, name


def test_every_tile_of_conv2d_is_tried() -> None:
    """By what the module says that it has: each tile of each engine with each pair of loaders, of the types that have
    them."""
    kernels = backends.kernels("cuda", DEVICE)
    m = kernels.module
    hopper = m.gpu_named("h200")
    loaders = [m.ConvLoader.along_depth, m.ConvLoader.along_side, m.ConvLoader.elements]
    pairs = [(a, b) for a in loaders for b in loaders if b != loaders[2] or a == loaders[2]]  # loaders_exist()
    for engine, element in (("fma", "fp32"), ("mma", "fp16"), ("mma", "tf32"), ("wgmma", "fp16"), ("grouped", "fp16")):
        tried = set()
        for direction in ("forward", "backward_input", "backward_weight"):
            of = family(f"cuda conv {direction} {engine} {element}")
            for case in convolutions.CASES:
                for layout in Layout:
                    for plan in convolutions._plans(m, hopper, of, case, layout):
                        tried.add((plan.tile, *((plan.a, plan.b) if engine in ("fma", "mma") else ())))
        tiles = range(len(m.conv_tile_shapes[engine]))
        every = {(t, a, b) for t in tiles for a, b in pairs} if engine in ("fma", "mma") else {(t,) for t in tiles}
        assert tried == every, (engine, element)


def test_every_operator_has_families() -> None:
    from cnnkernels.certified.families import needed

    for op, operator in OPERATORS.items():
        for backend in operator.backends:
            for dtype in operator.dtypes:
                assert needed(op, dtype, backend), (op, backend, dtype)
    assert {each.word for each in FAMILIES} == {operator.word for operator in OPERATORS.values()}
    assert integers._KERNELS.keys() >= {(o.word, "forward") for o in OPERATORS.values() if o.int8}
    assert torch.float64 in OPERATORS["conv2d"].dtypes
