"""A Hopper for which the driver loads no code of sm_90a: built without it, or CUDA_FORCE_PTX_JIT=1. What
uses wgmma is empty there, so that no selection may take them and a plan that names one is refused, with the reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cnnkernels import native
from cnnkernels.cli import explain
from cnnkernels.cli import main as cli
from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from cnnkernels.records import tuned
from cnnkernels.testing.cases import ConvCase
from helpers.conv import DIRECTIONS, ELEMENTS, ConvRunner, integers
from helpers.depthwise_separable_conv import PairRunner, pair_case
from helpers.int8_conv import Shape
from helpers.int8_gemm import PLAIN
from helpers.tuned import CASE, PLAN, ROW, TABLE, forget

NHWC, NCHW = Layout.NHWC, Layout.NCHW
WHY = r"this build has no sm_90a code \(CNNKERNELS_CUDA_ARCHS without 90\), or CUDA_FORCE_PTX_JIT=1 passes it over"
LAYER = ConvCase("", 6, 64, 21, 20, 72, 3, 3, (2, 1), (1, 1, 1, 1))
NATIVE = native.load("interpreter")
MODULE = NATIVE.module


def a_machine(wgmma: bool, name: str = "h200") -> Any:
    found = MODULE.gpu_named(name)
    found.wgmma = wgmma
    return found


@pytest.fixture
def without() -> Iterator[ConvRunner]:
    """The interpreter standing for such a Hopper."""
    MODULE.stand_for(a_machine(False))
    yield ConvRunner(MODULE, "cpu")
    MODULE.stand_for(MODULE.gpu_named("a100"))


def test_the_machine_says_so() -> None:
    assert MODULE.gpu_named("h200").why_not_wgmma is None
    assert WHY.replace("\\", "") == a_machine(False).why_not_wgmma
    for name in ("a100", "rtx5090"):
        assert a_machine(True, name).why_not_wgmma.endswith("of compute capability 9.0 alone")
    assert MODULE.gpu_named("h200").wgmma  # a copy was changed, not the table


def test_a_name_is_not_enough_to_be_known_by() -> None:
    """'A100' is in 'RTX A1000', and what is like an H100 in name and size may be no Hopper."""
    for name, architecture in (("NVIDIA RTX A1000", 86), ("NVIDIA H100 next", 100)):
        found = MODULE.gpu_like(name, architecture, 108 if architecture == 86 else 132)
        assert found.architecture == architecture and found.why_not_wgmma
        assert found.name == ("rtx3090" if architecture == 86 else "h200")


@pytest.mark.parametrize("layout", [NHWC, NCHW])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_conv_is_planned_and_right_without(without: ConvRunner, direction: str, layout: Layout) -> None:
    for element in ("bf16", "tf32") if direction == "forward" else ("bf16",):
        MODULE.stand_for(a_machine(True))
        if layout is NHWC:
            assert {plan.engine.name for plan in without.plans(direction, LAYER, layout, element)} == {"wgmma"}
        MODULE.stand_for(a_machine(False))
        assert {plan.engine.name for plan in without.plans(direction, LAYER, layout, element)} == {"mma"}
        case = replace(LAYER, n=1)
        data = integers(case)
        found = without.run(direction, case, layout, element, data.operands(direction))
        assert (found == data.expected(direction, case)).all()


def explained(gpu: Any, direction: str = "forward", case: ConvCase = LAYER, layout: Layout = NHWC) -> Any:
    geometry = MODULE.ConvGeometry(*case.geometry)
    which = getattr(MODULE.ConvDirection, direction)
    return MODULE.conv_explain(which, ELEMENTS["bf16"][1], int(layout), False, geometry, gpu)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_packing_is_judged_as_of_a_gpu_without(direction: str) -> None:
    """By what mma.sync makes of packed tensors, not wgmma."""
    differ = False
    for c, k, size in ((3, 64, 56), (35, 64, 56), (256, 256, 14), (64, 512, 28), (20, 1000, 7)):
        case = ConvCase("", 32, c, size, size, k, 3, 3, padding=(1, 1, 1, 1))
        for layout in (NHWC, NCHW):
            judged = [
                (found.packing, found.judged_none, found.judged_channels, found.judged_rows)
                for gpu in (a_machine(False), a_machine(True, "a100"), a_machine(True))
                if (found := explained(gpu, direction, case, layout))
            ]
            assert judged[0] == judged[1]
            differ |= judged[1] != judged[2]
    assert differ


def test_the_other_operators_plan_without() -> None:
    place = (8192, 8192, 8192), (256, 8192, 1), (256, 1, 8192), False
    image = MODULE.ConvGeometry(*Shape(64, 256, 56, 56, 256, 3, 3, padding=(1, 1)).geometry)
    pair = MODULE.ConvGeometry(*pair_case(64, 512, 14, 14, 512, padding=(1, 1, 1, 1)).geometry)
    for has in (True, False):
        plans = [
            MODULE.int8_gemm_plan(*place, a_machine(has)),
            MODULE.int8_conv_plan(image, False, True, a_machine(has)),
            MODULE.depthwise_separable_conv_plan(3, 1, False, pair, 512, a_machine(has)),
        ]
        assert ["wgmma" in repr(plan) for plan in plans] == [has] * 3
    found = MODULE.int8_gemm_candidates(*place, a_machine(False))
    reasons = {reason for plan, reason, _ in found if "wgmma" in repr(plan)}
    assert reasons == {WHY.replace("\\", "")}


def test_a_dictated_plan_is_refused_with_the_reason(without: ConvRunner) -> None:
    data = integers(LAYER)
    plan = MODULE.ConvPlan()
    plan.engine, plan.tile = MODULE.ConvEngine.wgmma, 4
    with pytest.raises(ValueError, match=f"conv2d: the plan 'wgmma .*' cannot serve this problem: {WHY}"):
        without.run("forward", LAYER, NHWC, "bf16", data.operands("forward"), plan)

    gemm, conv = MODULE.Int8GemmPlan(), MODULE.Int8ConvPlan()
    gemm.tiles = conv.tiles = MODULE.Int8Plan(False, 3, 1, wgmma=True)
    a, out = torch.zeros(64, 64, dtype=torch.int8), torch.zeros(64, 64, dtype=torch.int32)
    with pytest.raises(ValueError, match=f"int8_gemm: the plan 'wgmma .*' cannot serve this problem: {WHY}"):
        NATIVE.int8_gemm(a, a.t(), out, PLAIN, gemm)
    shape = Shape(1, 64, 8, 8, 64, 1, 1)
    x = torch.zeros(1, 64, 8, 8, dtype=torch.int8).to(memory_format=torch.channels_last)
    w, y = torch.zeros(64, 64, 1, 1, dtype=torch.int8), torch.zeros(1, 64, 8, 8, dtype=torch.int32)
    with pytest.raises(ValueError, match=f"int8_conv2d: the plan 'wgmma .*' cannot serve this problem: {WHY}"):
        NATIVE.int8_conv(x, w, y, shape.geometry, PLAIN, conv)

    pairs, case = PairRunner(), pair_case(1, 64, 4, 4, 64)
    pairs.module = MODULE
    with pytest.raises(ValueError, match=f"depthwise_separable_conv2d: the plan '.*wgmma' cannot serve .*: {WHY}"):
        pairs.run(case, NHWC, "bf16", operands(case), pairs.plan(1, "vectors", wgmma=True))


def test_explain_tells_it() -> None:
    found = explained(a_machine(False))
    assert not found.wgmma and found.why_not_wgmma == WHY.replace("\\", "") and found.chosen_wgmma == -1
    packed = ConvCase("", 8, 64, 20, 20, 72, 3, 3, padding=(1, 1, 1, 1))  # whose result mma.sync stores where it lies
    found = explained(a_machine(False), case=packed, layout=NCHW)
    assert found.packing.name == "channels" and found.why_not_wgmma == WHY.replace("\\", "")


@pytest.mark.parametrize("built_for", ["sm_80, compute_80", "sm_90a, sm_80, compute_80"])
def test_explain_is_of_this_build(
    built_for: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A named GPU has what the build was made for; the one at hand what is loaded there."""
    import cnnkernels._interpreter

    compiled = SimpleNamespace(__spec__=cnnkernels._interpreter.__spec__, built_for=built_for)
    monkeypatch.setitem(sys.modules, "cnnkernels._cuda", compiled)  # type: ignore[arg-type]
    has = "sm_90a" in built_for
    assert cli.main(["explain", "conv2d", "--input", "8,64,9,9", "--weight", "64,64,3,3", "--gpu", "h100"]) == 0
    assert ("not wgmma: this build has no sm_90a code" in capsys.readouterr().out) == (not has)
    if torch.cuda.is_available():
        return
    gpu = SimpleNamespace(name="NVIDIA H200", major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for loaded in (True, False):
        compiled.this_gpu = lambda loaded=loaded: a_machine(loaded)
        assert explain.machine(None).name == "h200" and explain.machine(None).wgmma == loaded


@pytest.fixture
def tables(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measured with wgmma on an H200, whose rows of other engines hold without it, too."""
    wgmma = replace(ROW, dtype="fp16", plan=PLAN | {"engine": "wgmma", "tile": [128, 64]})
    tuned.save(replace(TABLE, rows=(ROW, wgmma)), tmp_path / "h200.json")
    monkeypatch.setenv("CNNKERNELS_TUNED", str(tmp_path / "h200.json"))
    forget()
    yield
    forget()


@pytest.mark.usefixtures("tables")
def test_a_table_measured_with_wgmma_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    bf16, fp16 = (tuned.key("forward", name, NHWC, CASE.geometry) for name in ("bf16", "fp16"))
    assert set(tuned.plans("NVIDIA H200", "cuda")) == {bf16, fp16}
    assert set(tuned.plans("NVIDIA H200", "cuda", False)) == {bf16}
    # The kernels ask for what is loaded on the tensor's device, as explain does.
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    for has, keys in ((True, {bf16, fp16}), (False, {bf16})):
        module = SimpleNamespace(**{name: getattr(MODULE, name) for name in dir(MODULE) if not name.startswith("__")})
        module.this_gpu = lambda has=has: a_machine(has)
        kernels = native.NativeKernels(module, "cuda")  # type: ignore[arg-type]
        assert set(kernels._measured(torch.device("cuda", 0))) == keys
