"""A provider is believed only after its numbers were compared; wrong ones must be seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import families, verify
from benchmarks.cases import Case
from benchmarks.families import GemmCase
from benchmarks.measure import DeviceLost
from benchmarks.providers import PROVIDERS, Compiled, CompiledIntMM, Eager, flags, work
from benchmarks.results import FAILED, LOST, MISSING, OK, WRONG
from benchmarks.summary import faults, remarks
from benchmarks.verify import Reference, make_inputs
from cnnkernels.geometry import Layout
from helpers.bench import Planted, bench, conv_case, one_thread, pool_case  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")
DIRECTIONS = ("forward", "backward_input", "backward_weight", "training")
CASES = [conv_case(d, t) for d in DIRECTIONS for t in ("fp32", "bf16")]
CASES += [pool_case(d) for d in ("forward", "backward_input", "training")]
IDS = [case.key for case in CASES]


def by_status(case: Case, *providers: Eager) -> dict[str, str]:
    return {record.provider: record.status for record in bench().measure(case, providers)}


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "peer"])
def test_wrong_numbers_are_seen_and_hide_nobody(case: Case, ours: bool) -> None:
    def slightly(y: Tensor) -> Tensor:
        return y * 1.1

    found = list(bench().measure(case, [Planted("wrong", slightly, ours), PROVIDERS["torch"]]))
    assert {record.provider: record.status for record in found} == {"wrong": WRONG, "torch": OK}
    wrong, right = found
    assert wrong.median is None and "error" in wrong.reason
    assert right.median is not None and right.reproducible
    assert faults(found) == [wrong]
    assert any(line.startswith("WRONG wrong: ") for line in remarks(found))


def test_one_element_is_enough() -> None:
    def one(y: Tensor) -> Tensor:
        place = torch.zeros_like(y)
        place[-1, -1, -1, -1] = 0.01
        return y + place

    assert by_status(conv_case(dtype="fp32"), Planted("wrong", one)) == {"wrong": WRONG}
    assert by_status(conv_case(dtype="bf16"), Planted("rounded", lambda y: y)) == {"rounded": OK}


@pytest.mark.parametrize(
    ("mistake", "status"),
    [
        (lambda y: y * math.nan, WRONG),
        (lambda y: y[:, :1], WRONG),
        (lambda y: y.new_zeros(y.shape), WRONG),
    ],
    ids=["nan", "shape", "zeros"],
)
def test_other_ways_of_being_wrong(mistake, status: str) -> None:
    assert by_status(conv_case(), Planted("wrong", mistake)) == {"wrong": status}


def test_our_kernels_are_held_closer_than_peers() -> None:
    """An error of three bf16 roundings is none of ours, but may be that of who rounds after each of four samples."""
    case = conv_case("backward_weight", "bf16")
    coarse = [Planted("coarse", lambda y: y * (1 + 0.006), ours) for ours in (True, False)]
    wrong = Planted("wrong", lambda y: y * (1 + 0.06), ours=False)
    assert [by_status(case, p) for p in (*coarse, wrong)] == [{"coarse": WRONG}, {"coarse": OK}, {"wrong": WRONG}]


def test_integers_must_be_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("int8_gemm", "forward", "int8", Layout.NHWC, GemmCase("", 17, 8, 16))
    assert by_status(case, PROVIDERS["int_mm"], PROVIDERS["bf16"]) == {"int_mm": OK, "bf16": OK}  # type: ignore[arg-type]
    int_mm = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: int_mm(a, b) + 1)
    assert by_status(case, PROVIDERS["int_mm"]) == {"int_mm": WRONG}  # type: ignore[arg-type]


def test_a_layer_of_integers_may_round_once(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("int8_linear", "forward", "int8", Layout.NHWC, GemmCase("", 17, 8, 16))
    names = ("cuda", "int_mm", "bf16")
    assert by_status(case, *(PROVIDERS[name] for name in names)) == dict.fromkeys(names, OK)  # type: ignore[arg-type]
    monkeypatch.setattr(families, "INPUT_SCALE", families.INPUT_SCALE * 1.5)
    assert by_status(case, PROVIDERS["int_mm"]) == {"int_mm": WRONG}  # type: ignore[arg-type]


def test_what_follows_int_mm_is_compiled_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one graph, with all that can be tuned; here by a compiler that takes no time."""
    asked, compiled = [], torch.compile

    def compile(function: Callable[..., Any], mode: str, dynamic: bool) -> Callable[..., Any]:
        asked.append((mode, dynamic))
        return compiled(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compile)
    case = Case("int8_linear", "forward", "int8", Layout.NHWC, GemmCase("", 17, 8, 16))
    peer = CompiledIntMM("compiled_int_mm")
    assert by_status(case, peer) == {"compiled_int_mm": OK}  # type: ignore[arg-type]
    assert set(asked) == {("max-autotune-no-cudagraphs", False)}
    monkeypatch.setattr(families, "INPUT_SCALE", families.INPUT_SCALE * 1.5)
    assert by_status(case, CompiledIntMM("compiled_int_mm")) == {"compiled_int_mm": WRONG}  # type: ignore[arg-type]
    assert "follows" in (peer.refuses(replace(case, family="int8_gemm"), "cuda") or "")


def test_a_large_case_is_verified_on_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MOST_FLOPS", 1.0)
    for direction in DIRECTIONS:
        case = conv_case(direction)
        reference = Reference(case, make_inputs(case, "cpu", 0))
        assert reference.count == 2
        x = reference.inputs[0]
        assert torch.equal(reference.sampled[0], x[[0, -1]])
        assert reference.judge(PROVIDERS["torch"]).right

    def last(y: Tensor) -> Tensor:
        return torch.cat([y[:-1], y[-1:] + 1])

    # computed whole, so a mistake in the batch's end is seen
    assert by_status(conv_case(), Planted("wrong", last)) == {"wrong": WRONG}


def test_a_wrong_pytorch_does_not_excuse_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 2x rule needs a right result of PyTorch's; a wrong one must not widen what ours may do."""
    case = conv_case()
    monkeypatch.setattr(Eager, "forward", lambda self, case: lambda x, w: case.operator.torch(case.problem, x, w) * 1.5)
    monkeypatch.setattr(
        Planted, "forward", lambda self, case: lambda x, w: case.operator.torch(case.problem, x, w) * 1.1
    )
    found = by_status(case, Planted("ours", lambda y: y), Eager("torch", True))
    assert found == {"ours": WRONG, "torch": WRONG}


def test_a_result_that_changes_is_no_reproducible_one() -> None:
    count = iter(range(99))
    flicker = Planted("cuda", lambda y: y + next(count) % 2 * 1e-9 * y.abs().max() * 64)
    (found,) = bench().measure(conv_case(), [flicker])
    assert found.status == OK and found.reproducible is False
    assert faults([found]) == [found]


class Broken(Eager):
    def forward(self, case: Case):
        raise ValueError("no such\nkernel")


def test_an_exception_is_a_result() -> None:
    told: list[str] = []
    found = list(bench(told.append).measure(conv_case(), [Broken("cuda", True), PROVIDERS["torch"]]))
    assert [(r.provider, r.status) for r in found] == [("cuda", FAILED), ("torch", OK)]
    assert found[0].reason == "ValueError: no such"
    assert faults(found) == [found[0]]
    assert faults([replace(found[0], provider="aten")]) == []  # a peer that cannot is no fault of ours
    assert "Broken" not in told[0] and any("no such" in line for line in told)


def test_a_lost_gpu_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import measure

    on_gpu = bench()
    monkeypatch.setattr(measure, "_answers", lambda: False)
    failed = on_gpu._failed(conv_case(), [PROVIDERS["cuda"]], "", RuntimeError("illegal memory access"))
    monkeypatch.setattr(type(on_gpu.machine), "device", "cuda", raising=False)
    object.__setattr__(on_gpu.machine, "device", "cuda")
    try:
        assert next(failed).status == LOST
        with pytest.raises(DeviceLost):
            next(failed)
    finally:
        object.__setattr__(on_gpu.machine, "device", "cpu")


def test_flags_are_what_they_were() -> None:
    before = (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)
    with flags(cudnn=False, tf32=True, benchmark=True):
        assert not torch.backends.cudnn.enabled and torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.benchmark
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before


def test_tf32_is_what_the_case_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for dtype in ("tf32", "fp32", "bf16"):
        spy = Planted("spy", lambda y: seen.append(torch.backends.cudnn.allow_tf32) or y)
        spy.setup(conv_case(dtype=dtype), make_inputs(conv_case(dtype=dtype), "cpu", 0))()
    assert seen == [True, False, False]


def test_a_backward_case_runs_no_forward() -> None:
    calls = []

    def forward(x: Tensor, w: Tensor) -> Tensor:
        calls.append(1)
        return torch.nn.functional.conv2d(x, w, padding=1)

    case = conv_case("backward_weight")
    run = work(case, forward, make_inputs(case, "cpu", 0))
    results = [run() for _ in range(3)]
    assert len(calls) == 1
    assert [len(result) for result in results] == [1, 1, 1] and results[0][0].shape == (4, 3, 3, 3)


def test_inputs_are_random_in_the_layout() -> None:
    x, w, dy = make_inputs(conv_case("training", "bf16"), "cpu", 0)
    assert all(t.is_contiguous(memory_format=torch.channels_last) and t.dtype is torch.bfloat16 for t in (x, w, dy))
    assert x.float().std() == pytest.approx(0.5, rel=0.2) and x.count_nonzero() == x.numel()
    again = make_inputs(conv_case("training", "bf16"), "cpu", 0)[0]
    assert torch.equal(x, again) and not torch.equal(x, make_inputs(conv_case("training", "bf16"), "cpu", 1)[0])


def test_torch_compile_is_asked_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **how: asked.append(how) or function)
    assert by_status(conv_case(), Compiled("compile")) == {"compile": OK}
    assert asked[0] == {"mode": "max-autotune-no-cudagraphs", "dynamic": False}


def test_int_mm_refuses_what_cublaslt_does_not_take() -> None:
    for sizes in ((16, 8, 8), (17, 9, 8), (17, 8, 9)):
        case = Case("int8_gemm", "forward", "int8", Layout.NHWC, GemmCase("", *sizes))
        assert "_int_mm needs" in (PROVIDERS["int_mm"].refuses(case, "cuda") or "")
    assert by_status(conv_case(), PROVIDERS["int_mm"]) == {"int_mm": MISSING}  # type: ignore[arg-type]
