"""What "auto" takes where a certificate is asked for, which engines give way, and what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import cnnkernels
from cnnkernels import backends, certified, functional, use_backend
from cnnkernels.certified.families import FAMILIES
from cnnkernels.cli import explain, info
from cnnkernels.dtypes import ELEMENTS
from cnnkernels.geometry import Layout
from cnnkernels.ops.conv_kernel import rounds_to_tf32
from cnnkernels.proof import run
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.depthwise_cases import depthwise
from cnnkernels.tuning.problem import Problem
from helpers.device import HAS_GPU, MODULE
from helpers.proving import CPU, certificate, child_with

pytestmark = pytest.mark.skipif(HAS_GPU or MODULE != "interpreter", reason="the interpreter stands for the GPU")
Prove = Callable[..., None]


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Prove]:
    """The CPU as a device that asks for a certificate; without a call it has none."""
    monkeypatch.setattr(certified, "NEEDED", {"cpu"})
    monkeypatch.setattr(certified, "_warned", set())
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path))

    def again() -> None:
        certified.forget()
        backends.forget()

    def hold(**failed: str) -> None:
        certified.hold(certificate(**failed))
        again()
        certified.certificate(CPU)

    again()
    yield hold
    certified._held.clear()
    certified.WITHOUT_TF32.clear()
    native = backends.kernels("cuda", "cpu")
    for each in FAMILIES:
        if each.backend == "cuda" and each.gives_way and each.engine != "mma":
            native.give_way(each.word, each.direction, each.engine, ELEMENTS[each.element].code, gives=False)
    monkeypatch.undo()
    again()


def decision(op: str = "conv2d", dtype: torch.dtype = torch.float32, request: str | None = None) -> backends.Decision:
    return cnnkernels.choose(backends.problem_on(op, CPU, dtype), request)


def test_without_a_certificate_auto_is_pytorchs_and_one_warning_names_the_command(proved: Prove) -> None:
    x = torch.zeros(1, 1, 4, 4)
    assert decision().backend == "reference"
    assert dict(decision().rejected)["cuda"] == "its kernels are not proved on CPU: `cnnkernels prove` does it"
    with pytest.warns(UserWarning, match="PyTorch's own operators serve on CPU.*`cnnkernels prove`") as caught:
        functional.max_pool2d(x, 2)
        functional.avg_pool2d(x, 2)
    assert len(caught) == 1


def test_auto_takes_the_first_that_is_certified_and_says_since_when(proved: Prove) -> None:
    proved()
    assert decision().backend == "cuda" and "is certified on CPU, proved 20" in decision().reason
    proved(cuda_conv_backward__weight_fma_fp32="its process ended with signal 11")
    assert decision().backend == "triton"
    why = "cuda conv backward_weight fma fp32 failed on CPU: its process ended with signal 11"
    assert decision().rejected == (("cuda", why),)
    assert decision(dtype=torch.float64).backend == decision("max_pool2d").backend == "cuda"
    proved(cuda_conv_backward__weight_fma_fp32="wrong", triton_conv_forward_dot_fp32="wrong")
    assert decision().backend == "reference"
    assert "as no kernel can and is certified" in decision().reason and len(decision().rejected) == 2


def test_int8_has_its_reference_in_pytorchs_place(proved: Prove) -> None:
    proved(cuda_int8__gemm_forward_mma_int8="wrong", triton_int8__gemm_forward_dot_int8="wrong")
    a, b = torch.full((2, 3), 3, dtype=torch.int8), torch.full((3, 4), 5, dtype=torch.int8)
    assert decision("int8_gemm", torch.int8).backend == "reference"
    assert functional.int8_gemm(a, b).eq(45).all()


def test_a_backend_asked_for_by_name_runs_after_one_warning(proved: Prove) -> None:
    proved(cuda_pool_max__forward_fma_fp32="it took more than 30 s")
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert "though cuda pool max_forward fma fp32 failed" in decision("max_pool2d", request="cuda").reason
    with use_backend("cuda"), pytest.warns(UserWarning, match="the cuda backend was asked for by name") as caught:
        assert functional.max_pool2d(x, 2).flatten().tolist() == [5, 7, 13, 15]
        functional.max_pool2d(x, 2)
    assert len(caught) == 1 and "it took more than 30 s" in str(caught[0].message)
    with use_backend("cuda"), warnings.catch_warnings():
        warnings.simplefilter("error")
        functional.avg_pool2d(x, 2)  # is certified
    with use_backend("reference"), warnings.catch_warnings():
        warnings.simplefilter("error")
        functional.max_pool2d(x, 2)


def test_compiled_code_asks_the_same(proved: Prove) -> None:
    proved(cuda_pool_max__forward_fma_fp32="wrong", triton_pool_max__forward_plain_fp32="wrong")
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(str(graph.graph))
        return graph

    compiled = torch.compile(lambda x: functional.max_pool2d(x, 2), backend=backend, fullgraph=True)
    assert compiled(torch.arange(16.0).view(1, 1, 4, 4)).flatten().tolist() == [5, 7, 13, 15]
    assert "target=torch.max_pool2d]" in graphs[0]


CASE = ConvCase("", 4, 64, 8, 8, 64, 3, 3, padding=(1, 1, 1, 1))
NARROW = ConvCase("", 4, 64, 8, 8, 64, 3, 3, padding=(1, 1, 1, 1), groups=16)
ODD = ConvCase("", 4, 70, 28, 28, 70, 3, 3, padding=(1, 1, 1, 1))


def conv_engine(case: ConvCase, direction: str, element: str) -> str:
    """On an H200."""
    module = backends.kernels("cuda", "cpu").module
    of = ELEMENTS[element]
    g, hopper = module.ConvGeometry(*case.geometry), module.gpu_named("h200")
    found = module.conv_explain(getattr(module.ConvDirection, direction), of.code, int(Layout.NHWC), of.tf32, g, hopper)
    if found.packing.name != "none":
        return "packed"
    if found.chosen_grouped >= 0:
        return "grouped"
    if found.chosen_wgmma >= 0:
        return "wgmma"
    return found.parts[0].candidates[found.parts[0].chosen].plan.engine.name


@pytest.mark.parametrize("direction", ["forward", "backward_input", "backward_weight"])
@pytest.mark.parametrize(
    ("engine", "case", "then"), [("wgmma", CASE, "mma"), ("grouped", NARROW, "mma"), ("packed", ODD, "mma")]
)
def test_an_engine_of_conv2d_gives_way(proved: Prove, direction: str, engine: str, case: ConvCase, then: str) -> None:
    proved()
    others = [each for each in ("forward", "backward_input", "backward_weight") if each != direction]
    assert conv_engine(case, direction, "bf16") == engine
    proved(**{f"cuda_conv_{direction.replace('_', '__')}_{engine}_bf16": "wrong"})
    assert conv_engine(case, direction, "bf16") == then
    assert conv_engine(case, direction, "fp16") == conv_engine(case, others[0], "bf16") == engine
    assert decision(dtype=torch.bfloat16).backend == "cuda"


def test_explain_says_that_it_failed(proved: Prove) -> None:
    proved(cuda_conv_forward_wgmma_bf16="wrong", cuda_conv_forward_grouped_bf16="wrong")
    module = backends.kernels("cuda", "cpu").module
    for case in (CASE, NARROW):
        g, hopper = module.ConvGeometry(*case.geometry), module.gpu_named("h200")
        found = module.conv_explain(module.ConvDirection.forward, 3, int(Layout.NHWC), False, g, hopper)
        assert "it failed its proof here" in found.why_not_wgmma + found.why_not_grouped
    proved(cuda_conv_forward_mma_bf16="it took more than 30 s")
    problem = Problem("forward", "bf16", Layout.NHWC, CASE.geometry)
    lines = explain.who_serves(problem, CPU).splitlines()
    assert "triton, the first of cuda, triton, reference that can and is certified on CPU, proved 20" in lines[0]
    assert lines[1] == "  not cuda: cuda conv forward mma bf16 failed on CPU: it took more than 30 s"


def test_other_engines_give_way(proved: Prove) -> None:
    module = backends.kernels("cuda", "cpu").module
    hopper, half = module.gpu_named("h200"), ELEMENTS["fp16"].code
    wide = depthwise("", 1, 2, (9, 29), (31, 31), padding=(15, 15))
    of = module.DepthwiseConvDirection.forward, half, int(Layout.NHWC), module.ConvGeometry(*wide.geometry)
    pair = ConvCase("", 8, 256, 28, 28, 256, 3, 3, padding=(1, 1, 1, 1), groups=256)
    fused = half, int(Layout.NHWC), False, module.ConvGeometry(*pair.geometry), 256, hopper
    large = module.ConvGeometry(*ConvCase("", 32, 256, 28, 28, 256, 3, 3, padding=(1, 1, 1, 1)).geometry)
    proved()
    assert module.depthwise_conv_plan(*of).band
    assert module.depthwise_separable_conv_plan(*fused).wgmma
    assert module.int8_conv_plan(large, False, True, hopper).tiles.wgmma
    proved(
        cuda_depthwise__conv_forward_band_fp16="wrong",
        cuda_depthwise__separable__conv_forward_wgmma_fp16="wrong",
        cuda_int8__conv_forward_wgmma_int8="wrong",
    )
    assert not module.depthwise_conv_plan(*of).band
    assert not module.depthwise_separable_conv_plan(*fused).wgmma
    assert not module.int8_conv_plan(large, False, True, hopper).tiles.wgmma
    proved()  # again, and now they are right
    assert module.depthwise_conv_plan(*of).band
    assert module.depthwise_separable_conv_plan(*fused).wgmma
    assert module.int8_conv_plan(large, False, True, hopper).tiles.wgmma


def test_tf32_gives_way_to_fp32(proved: Prove) -> None:
    precision = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    single = torch.zeros(1)
    try:
        proved()
        assert rounds_to_tf32("cuda", "conv", single)
        proved(cuda_conv_backward__input_mma_tf32="wrong")
        assert not rounds_to_tf32("cuda", "conv", single)
        assert rounds_to_tf32("triton", "conv", single)
        assert not rounds_to_tf32("triton/cuda/reference", "conv", single)
        assert rounds_to_tf32("cuda", "conv", single.to("meta"))  # another device's certificate says nothing of it
        assert decision().backend == "cuda"
        proved()
        assert rounds_to_tf32("cuda", "conv", single)
    finally:
        torch.backends.cudnn.conv.fp32_precision = precision


def test_an_engine_gives_way_on_the_gpu_that_it_failed_on(proved: Prove) -> None:
    module = backends.kernels("cuda", "cpu").module
    hopper, half = module.gpu_named("h200"), ELEMENTS["fp16"].code
    pair = ConvCase("", 8, 256, 28, 28, 256, 3, 3, padding=(1, 1, 1, 1), groups=256)
    fused = half, int(Layout.NHWC), False, module.ConvGeometry(*pair.geometry), 256, hopper
    failed = "depthwise_separable_conv", "forward", "wgmma", half
    proved()
    module.give_way(*failed, device=1)
    assert module.depthwise_separable_conv_plan(*fused).wgmma
    module.give_way(*failed, device=0)
    assert not module.depthwise_separable_conv_plan(*fused).wgmma
    module.give_way(*failed, device=0, gives=False)
    assert module.depthwise_separable_conv_plan(*fused).wgmma
    for device in (-1, 64):
        with pytest.raises(IndexError, match=f"no GPU has the number {device}"):
            module.give_way(*failed, device=device)


def test_an_engine_without_another_behind_it_does_not_give_way() -> None:
    with pytest.raises(ValueError, match="no engine behind conv forward mma"):
        backends.kernels("cuda", "cpu").give_way("conv", "forward", "mma", 3)


def test_info_names_what_failed(proved: Prove, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not proved" in info._certified(CPU)[0] and "`cnnkernels prove`" in info._certified(CPU)[0]
    proved(cuda_conv_forward_wgmma_bf16="it took more than 30 s")
    head, failed = info._certified(CPU)
    assert f"{len(FAMILIES) - 1} of {len(FAMILIES)} families certified, proved 20" in head
    assert failed == "  not cuda conv forward wgmma bf16: it took more than 30 s"


def test_replace_layers_and_quantize_prove_first(
    proved: Prove, monkeypatch: pytest.MonkeyPatch, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(run, "COMMAND", child_with(log, {}))
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)).eval()
    cnnkernels.replace_layers(model, prove=False)
    cnnkernels.quantize(model, torch.zeros(1, 1, 4, 4), prove=False)
    assert not log.exists()
    cnnkernels.replace_layers(model)
    assert log.read_text().count("\n") == len(FAMILIES)
    assert "proving the kernels on CPU, once (prove=False leaves it)" in capsys.readouterr().err
    cnnkernels.quantize(model, torch.zeros(1, 1, 4, 4))
    assert log.read_text().count("\n") == len(FAMILIES) and not capsys.readouterr().err
    assert decision().backend == "cuda"
