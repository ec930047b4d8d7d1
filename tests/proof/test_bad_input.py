"""Machines that can not prove their kernels, or have GPUs of several kinds: a sentence, and PyTorch's operators."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch

from cnnkernels import backends, certified
from cnnkernels.certified import certificates
from cnnkernels.certified.families import FAMILIES
from cnnkernels.proof import run, worker


class Properties(types.SimpleNamespace):
    """Of a GPU, as PyTorch tells them."""


def gpus(monkeypatch: pytest.MonkeyPatch, *kinds: tuple[str, int]) -> None:
    """Names and processors of what is visible; Hopper, all of it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(kinds))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))

    def properties(device: Any) -> Properties:
        name, processors = kinds[torch.device(device).index]
        return Properties(name=name, major=9, minor=0, multi_processor_count=processors)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    certificates.identity.cache_clear()


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path))
    yield
    monkeypatch.undo()
    certificates.identity.cache_clear()
    certified.forget()
    backends.forget()
    backends._capability.cache_clear()


def test_each_kind_of_gpu_is_proved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, ("NVIDIA A100", 108), ("NVIDIA H200", 132), ("NVIDIA A100", 108), ("NVIDIA A100 MIG 1g.10gb", 14))
    assert run.gpus() == [torch.device("cuda", index) for index in (0, 1, 3)]
    asked: list[torch.device] = []
    monkeypatch.setattr(run, "prove_device", lambda device, *_, **__: asked.append(device))
    run.prove()
    assert asked == run.gpus()
    run.prove("cuda:2")
    assert asked[-1] == torch.device("cuda", 2)


def test_a_certificate_of_one_gpu_is_none_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, ("NVIDIA A100", 108), ("NVIDIA A100 MIG 1g.10gb", 14))
    whole, part = torch.device("cuda", 0), torch.device("cuda", 1)
    of = certificates.identity(whole)
    certificates.save(certificates.Certificate(of, certificates.now(), 1.0, {str(each): "" for each in FAMILIES}))
    monkeypatch.setattr(backends, "why_missing", lambda backend, device: None)
    on_whole, on_part = (backends.choose(backends.problem_on("conv2d", of, torch.float32)) for of in (whole, part))
    assert on_whole.backend == "cuda" and "certified on NVIDIA A100, proved 20" in on_whole.reason
    assert on_part.backend == "reference"
    assert "not proved on NVIDIA A100 MIG 1g.10gb: `cnnkernels prove`" in on_part.rejected[0][1]


def test_what_a_child_says_of_a_backend_that_can_not_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, ("NVIDIA A100", 108))
    missing = {"cuda": "cnnkernels._cuda is not built", "triton": "triton is not installed"}
    monkeypatch.setattr(backends, "why_missing", lambda backend, device: missing[backend])
    assert [worker._why_not(backend, "cuda:0") for backend in missing] == list(missing.values())
    monkeypatch.setattr(backends, "why_missing", lambda backend, device: None)

    def this_gpu() -> None:
        raise RuntimeError("finding the current device: the driver serves CUDA 11.8, the kernels need 12.0")

    native = types.SimpleNamespace(module=types.SimpleNamespace(this_gpu=this_gpu))
    monkeypatch.setattr(backends, "kernels", lambda backend, kind: native)
    assert "the driver serves CUDA 11.8" in worker._why_not("cuda", "cuda:0")
    assert worker._why_not("triton", "cuda:0") == ""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    for backend in missing:
        assert "need compute capability 8.0, the device has 7.5" in worker._why_not(backend, "cuda:0")


def test_without_a_gpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    certified.forget()
    assert certified.proof("conv2d", torch.device("cpu"), torch.float32) is None
    assert certified.proof("conv2d", torch.device("cuda"), torch.float32) is None
