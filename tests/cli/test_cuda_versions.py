"""Which driver the kernels need, what a CUDA error means for a build, and what `cnnkernels info` says of both."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cnnkernels import native
from cnnkernels.cli import info
from helpers.cuda_toolkit import nvcc

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "csrc"))
import toolkit  # noqa: E402

MODULE = native.load("interpreter").module
OBJECTS = [
    ROOT / "build/native" / name
    for name in (
        "cuda/csrc/common/this_gpu.cu.o",
        "cuda/csrc/common/sm90_probe.cu.o",
        "shared/csrc/common/all.cpp.o",
    )
]


@pytest.mark.parametrize(
    ("runtime", "release"), [(11080, "450"), (12000, "525"), (12080, "525"), (13000, "580"), (13020, "580")]
)
def test_the_oldest_driver_of_a_major(runtime: int, release: str) -> None:
    assert MODULE.oldest_driver(runtime) == release


@pytest.mark.parametrize(
    ("runtime", "driver", "able"),
    [
        (12080, 12040, True), (12080, 12080, True), (12080, 13000, True), (13000, 13000, True), (13010, 13000, True),
        (13000, 12080, False), (12050, 11080, False), (13000, 0, False),
    ],
)  # fmt: skip
def test_a_driver_serves_its_major_and_older_ones(runtime: int, driver: int, able: bool) -> None:
    assert (MODULE.why_not_driver(runtime, driver) == "") == able


def test_too_old_a_driver_in_one_sentence() -> None:
    assert MODULE.why_not_driver(13000, 12040) == (
        "the driver here is too old, it serves CUDA 12.4: the kernels were built with CUDA 13.0, which needs release "
        "580 of the driver or later; update the driver, or build the kernels with CUDA 12 (NVCC=its nvcc)"
    )
    assert MODULE.why_not_driver(12080, 0) == (
        "there is no CUDA driver here: the kernels were built with CUDA 12.8, which needs release 525 of the driver or "
        "later"
    )


def test_the_interpreter_needs_no_driver() -> None:
    assert MODULE.cuda_versions() == (0, 0)
    assert MODULE.why_not_driver(*MODULE.cuda_versions()) == ""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """csrc/common/this_gpu.cu as nvcc compiled it, on a CUDA runtime that does as it is told."""
    if not nvcc() or not any(path.exists() for path in OBJECTS):
        pytest.skip("needs the kernels compiled by nvcc, in build/native")
    found = toolkit.ask(shlex.join(nvcc()))
    assert found is not None
    target = tmp_path_factory.mktemp("fake") / "fake_cuda_runtime"
    subprocess.run(
        ["c++", "-std=c++20", "-I", ROOT / "csrc", "-I", found.home / "include", "-x", "c++",
         ROOT / "tests/helpers/fake_cuda_runtime.cpp", "-x", "none", *OBJECTS, "-pthread",
         "-o", target],
        check=True,
    )  # fmt: skip
    return target


def said(program: Path, **environment: int) -> tuple[int, str]:
    """The CUDA the program was built with, and its line."""
    variables = {f"FAKE_{name.upper()}": str(value) for name, value in environment.items()}
    done = subprocess.run([program], env=variables, capture_output=True, text=True, check=True)
    runtime, line = done.stdout.splitlines()
    return int(runtime), line


def test_what_the_driver_loads_decides(program: Path) -> None:
    """1 KB of every block's shared memory is the driver's on Hopper, in whatever code."""
    for shared, answer in ((4096, "yes"), (5120, "yes"), (0, "this build has no sm_90a"), (1024, "this build has no")):
        assert said(program, shared_bytes=shared)[1].startswith(f"h200, wgmma: {answer}")


def test_the_first_call_says_what_is_wrong(program: Path) -> None:
    runtime, line = said(program, first_call=35, driver=11080)
    assert line == f"finding the current device: {MODULE.why_not_driver(runtime, 11080)}" and "too old" in line
    assert said(program, first_call=35)[1].endswith(MODULE.why_not_driver(runtime, 0))
    assert said(program, first_call=100)[1] == "finding the current device: the error's own text"
    for status, what in (
        (98, "were not built for this GPU"), (200, "were not built for this GPU"), (209, "were not built for this GPU"),
        (222, "cannot compile it"), (218, "cannot compile it"), (221, "are PTX, which"), (223, "are PTX, which"),
    ):  # fmt: skip
        line = said(program, loading=status, driver=12000)[1]
        assert line.startswith("loading the kernels: the error's own text: ") and what in line
        assert "build them with its compute capability in CNNKERNELS_CUDA_ARCHS" in line


def test_the_errors_have_the_runtimes_numbers() -> None:
    """csrc/common/cuda_versions.cpp is compiled without CUDA's headers."""
    found = toolkit.ask(shlex.join(nvcc())) if nvcc() else None
    if found is None:
        pytest.skip("needs CUDA's headers")
    header = (found.home / "include/driver_types.h").read_text()
    named = re.findall(r"case (\d+): +// (cudaError\w+)", (ROOT / "csrc/common/cuda_versions.cpp").read_text())
    assert len(named) == 10
    for number, name in named:
        assert re.search(rf"\b{name} += +{number}\b", header), name


# What `cnnkernels info` prints


def module(runtime: int = 13000, driver: int = 13000, **more: object) -> SimpleNamespace:
    """Like a native module."""
    return SimpleNamespace(
        built_for="sm_90a, sm_80, compute_80", cuda_versions=lambda: (runtime, driver),
        oldest_driver=MODULE.oldest_driver, why_not_driver=MODULE.why_not_driver, **more,
    )  # fmt: skip


def test_info_says_what_a_build_needs() -> None:
    assert info.built(module()) == (
        "built for sm_90a, sm_80, compute_80, with CUDA 13.0, which needs release 580 of the driver or later"
    )
    assert info.built(MODULE) == f"built for {MODULE.built_for}"
    assert info.built("not built: do") == "not built: do"
    assert info.driver(module(12060, 13010)) == "serves CUDA 13.1"
    assert info.driver(module(13000, 12040)) == MODULE.why_not_driver(13000, 12040)
    assert info.driver(module(13000, 0)).startswith("there is no CUDA driver here")
    assert info.driver("not built: do") == "unknown without the cuda kernels"


def test_info_says_what_a_build_can_do_on_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="NVIDIA H200", major=9, minor=0, total_memory=140 << 30, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "device", lambda index: current.append(index) or torch.no_grad())
    without = MODULE.gpu_named("h200")
    without.wgmma = False
    answers = [MODULE.gpu_named("h200"), without, MODULE.gpu_named("rtx4090"), RuntimeError("no kernel image")]

    def this_gpu() -> object:
        answer = answers[current[-1]]
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    lines = info._gpus(module(this_gpu=this_gpu))
    assert lines[::3] == ["NVIDIA H200, compute capability 9.0, 140 GiB"] * 4
    assert set(lines[2::3]) == {"  kernels: not proved, so that PyTorch's own operators serve: `cnnkernels prove`"}
    assert [line.strip() for line in lines[1::3]] == [
        "wgmma kernels: yes",
        f"wgmma kernels: no, {without.why_not_wgmma}",
        "wgmma kernels: no, wgmma and TMA's im2col are of compute capability 9.0 alone",
        "no kernel runs: no kernel image",
    ]
    del lines[1::3]
    assert info._gpus("not built: do") == lines
