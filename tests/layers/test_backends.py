"""Which backend serves a call: the choice, its reasons, the scopes, and what a missing one says."""

from __future__ import annotations

import asyncio
import threading

import pytest
import torch

import cnnkernels
from cnnkernels import functional, native, use_backend
from cnnkernels.backends import Problem, decide, problem_of, requested
from helpers.processes import child, children


def have(monkeypatch: pytest.MonkeyPatch, **missing: str) -> None:
    """An installation that lacks `missing` (backend: why) and has everything else."""
    monkeypatch.setattr(cnnkernels.backends, "why_missing", lambda backend, device: missing.get(backend))


def test_auto_takes_the_first_that_can_and_says_why_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = Problem("conv2d", "cuda", torch.bfloat16, (9, 0))
    have(monkeypatch)
    assert decide(hopper, "auto").backend == "cuda"
    have(monkeypatch, cuda="it is not built")
    decision = decide(hopper, "auto")
    assert decision.backend == "triton" and decision.rejected == (("cuda", "it is not built"),)
    have(monkeypatch, cuda="it is not built", triton="it is not installed")
    decision = decide(hopper, "auto")
    assert decision.backend == "reference" and "PyTorch's own" in decision.reason
    assert str(decision).splitlines()[1:] == ["  not cuda: it is not built", "  not triton: it is not installed"]


@pytest.mark.parametrize("request_", ["cuda", "triton"])
@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (Problem("conv2d", "cuda", torch.int32, (9, 0)), "not int32"),
        (Problem("conv2d", "cuda", torch.complex64, (9, 0)), "not complex64"),
        (Problem("conv2d", "cuda", torch.float32, (7, 5)), "the device has 7.5"),
    ],
    ids=["int32", "complex64", "turing"],
)
def test_what_the_kernels_do_not_serve(
    monkeypatch: pytest.MonkeyPatch, request_: str, problem: Problem, reason: str
) -> None:
    have(monkeypatch)
    forced = decide(problem, request_)  # type: ignore[arg-type]
    assert forced.backend is None and reason in forced.reason
    automatic = decide(problem, "auto")
    assert automatic.backend == "reference" and all(reason in why for _, why in automatic.rejected)


def test_reference_serves_everything() -> None:
    for device in ("cpu", "cuda", "meta", "xpu"):
        assert decide(Problem("conv2d", device, torch.complex64), "reference").backend == "reference"


def test_a_device_without_kernels_has_the_reference() -> None:
    decision = decide(Problem("conv2d", "xpu", torch.float32), "auto")
    assert decision.backend == "reference" and "no kernels for xpu" in decision.rejected[0][1]


def test_choose_is_of_the_scope_or_of_a_name(backend: str, device: str) -> None:
    problem = problem_of("max_pool2d", torch.zeros(1, device=device))
    with use_backend(backend):
        assert cnnkernels.choose(problem).backend == backend
        assert cnnkernels.choose(problem, "reference").backend == "reference"
    assert backend in cnnkernels.available_backends(device)
    with pytest.raises(ValueError, match="request must be one of cuda, triton, reference, auto, but got 'cudnn'"):
        cnnkernels.choose(problem, "cudnn")


def test_scopes_nest_and_end_with_an_error() -> None:
    outside = requested()
    with use_backend("triton"):
        with use_backend("cuda"):
            assert requested() == "cuda"
        assert requested() == "triton"
        with pytest.raises(KeyError), use_backend("reference"):
            raise KeyError
        assert requested() == "triton"
    assert requested() == outside


def test_decorator_may_be_entered_more_than_once() -> None:
    outside = requested()

    @use_backend("reference")
    def countdown(n: int) -> list[str]:
        return [requested()] + (countdown(n - 1) if n else [])

    assert countdown(2) == ["reference"] * 3
    assert requested() == outside


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="backend must be one of cuda, triton, reference, auto, but got 'cudnn'"):
        use_backend("cudnn")


def test_threads_have_scopes_of_their_own() -> None:
    seen: dict[str, str] = {}
    meet = threading.Barrier(2)

    def work(name: str) -> None:
        with use_backend(name):
            meet.wait()
            seen[name] = requested()
            meet.wait()

    outside = requested()
    threads = [threading.Thread(target=work, args=(name,)) for name in ("triton", "reference")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"triton": "triton", "reference": "reference"}
    assert requested() == outside
    # the copy that compiled code guards on must not keep what another thread asked for
    assert cnnkernels.scope.traced.request == outside


def test_tasks_have_scopes_of_their_own() -> None:
    async def work(name: str) -> str:
        with use_backend(name):
            await asyncio.sleep(0)
            return requested()

    async def both() -> list[str]:
        return await asyncio.gather(work("triton"), work("reference"))

    assert asyncio.run(both()) == ["triton", "reference"]


def test_backward_stays_on_the_backend_of_its_forward(recorded, device: str) -> None:
    weight = torch.zeros(2, 1, 1, 1, device=device, requires_grad=True)
    with use_backend("triton"):
        output = functional.conv2d(torch.zeros(1, 1, 2, 2, device=device), weight)
    with use_backend("cuda"):
        output.sum().backward()
    assert {call.backend for call in recorded} == {"triton"}


def test_environment_variable_is_the_process_default() -> None:
    print_request = "import cnnkernels.backends as b; print(b.requested())"
    environments = ({}, {"CNNKERNELS_BACKEND": "triton"}, {"CNNKERNELS_BACKEND": "cudnn"})
    unset, triton, wrong = children(print_request, *environments)
    assert (unset, triton) == ("auto", "triton")
    assert wrong == "CNNKERNELS_BACKEND must be one of cuda, triton, reference, auto, but got 'cudnn'"


FORCED_ON_CPU = """
import torch, cnnkernels
x = torch.zeros(1, 1, 2, 2)
print(cnnkernels.choose(cnnkernels.backends.problem_of("conv2d", x)).backend)
for name in ("cuda", "triton"):
    try:
        with cnnkernels.use_backend(name):
            cnnkernels.functional.max_pool2d(x, 2)
    except RuntimeError as error:
        print(error)
"""


def test_cpu_tensors_without_the_interpreter() -> None:
    automatic, *errors = child(FORCED_ON_CPU).splitlines()
    assert automatic == "reference"
    assert len(errors) == 2
    for name, error in zip(("cuda", "triton"), errors, strict=True):
        assert f"max_pool2d: the {name} backend can not serve this call" in error
        assert "set CNNKERNELS_INTERPRET=1" in error


def test_import_needs_no_extension_and_no_triton() -> None:
    block = "import sys; sys.modules.update(dict.fromkeys(['cnnkernels._interpreter', 'cnnkernels._cuda', 'triton']))"
    automatic, *errors = child(f"{block}\n{FORCED_ON_CPU}", CNNKERNELS_INTERPRET="1").splitlines()
    assert automatic == "reference"
    assert native.BUILD_HINT in errors[0] and "cnnkernels._interpreter is not built" in errors[0]
    assert "pip install triton" in errors[1]


def test_import_is_light() -> None:
    code = "before = set(sys.modules); import cnnkernels"
    code += "; print(*(set(sys.modules) - before), cnnkernels.backends.INTERPRETING)"
    printed = children(code, *({"CNNKERNELS_INTERPRET": word} for word in ("False", "on")))
    for line, on in zip(printed, ("False", "True"), strict=True):
        *modules, interpreting = line.split()
        assert interpreting == on and "cnnkernels" in modules
        heavy = [name for name in modules if name.split(".")[0] in ("triton", "sympy") or "torch._dynamo" in name]
        assert not heavy


TRITON_FIRST = """
import triton
import torch, cnnkernels
try:
    with cnnkernels.use_backend("triton"):
        cnnkernels.functional.max_pool2d(torch.zeros(1, 1, 2, 2), 2)
except RuntimeError as error:
    print(error)
else:
    print("served")
"""


def test_triton_that_was_imported_first_does_not_interpret() -> None:
    """It decides at its import. Asked to interpret by its own variable, it serves."""
    pytest.importorskip("triton")
    interpret = {"CNNKERNELS_INTERPRET": "1"}
    refused, served = children(TRITON_FIRST, interpret, {"TRITON_INTERPRET": "1", **interpret})
    assert "triton was imported before cnnkernels: set TRITON_INTERPRET=1 beside CNNKERNELS_INTERPRET=1" in refused
    assert served == "served"


def test_meta_tensors_propagate_shapes_on_any_backend(backend: str) -> None:
    x, w = torch.empty(2, 3, 8, 8, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    with use_backend(backend):
        assert functional.conv2d(x, w, stride=2).shape == (2, 4, 3, 3)
        assert functional.max_pool2d(x, 2).device.type == "meta"
