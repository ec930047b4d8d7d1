"""What the runtime without a device refuses, by CUDA's error codes, for several GPUs of the table.

The limits are typed from the CUDA programming guide's table of technical specifications.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from helpers import emulated
from helpers.emulated import emulated_tests, kernel, with_archive


class Limits(NamedTuple):
    architecture: int
    block_bytes: int  # of shared memory, that a block may ask for
    portable_cluster: int
    largest_cluster: int


GPUS = {
    "a100": Limits(80, 163 << 10, 0, 0),
    "rtx3090": Limits(86, 99 << 10, 0, 0),
    "rtx4090": Limits(89, 99 << 10, 0, 0),
    "h100": Limits(90, 227 << 10, 8, 16),
    "h200": Limits(90, 227 << 10, 8, 16),
    "rtx5090": Limits(120, 99 << 10, 8, 8),
}
NOTHING_ASKED = 48 << 10
PADDED = 5 << 10  # 5000 bytes of static shared memory, before what begins at a multiple of 1024


@pytest.fixture(params=GPUS)
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[ModuleType, str, Limits]]:
    module = emulated_tests()
    before = module.standing_for()
    module.stand_for(request.param)
    module.set_recording(True)
    yield module, request.param, GPUS[request.param]
    module.set_recording(False)
    module.stand_for(before)


PARAMETERS = [bytes(1), bytes(8), bytes(2), bytes(12), bytes(1), bytes(8)]


def status(module: ModuleType, word: str, parameters: list[bytes], **how: Any) -> int:
    """Of a launch of a kernel; one that is accepted is recorded, and one that is not is not."""
    module.set_recording(True)
    arguments = {"grid": (1, 1, 1), "block": (32, 1, 1)} | how
    code, text = module.cuda.launch(kernel(module, word), parameters=parameters, **arguments)
    assert (code == emulated.SUCCESS) == (text == "no error") == (len(module.set_recording(True)) == 1), text
    return code


@pytest.mark.parametrize("name", GPUS)
def test_the_host_sees_that_gpu(name: str) -> None:
    """All that selection reads of it, through cudaGetDeviceProperties and the kernel that probes for sm_90a's code."""
    emulated_tests()
    module = importlib.import_module("cnnkernels._emulated")
    before, expected = module.standing_for(), module.gpu_named(name)
    module.stand_for(expected)
    found = module.this_gpu()
    for field in ("name", "architecture", "processors", "memory", "tensor16", "block_bytes"):
        assert getattr(found, field) == getattr(expected, field), field
    assert (found.architecture, found.block_bytes) == GPUS[name][:2]
    assert found.wgmma == (GPUS[name].architecture == 90)
    module.stand_for(before)
    assert module.this_gpu().name == before == module.standing_for()


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({}, emulated.SUCCESS),
        ({"grid": (0, 1, 1)}, emulated.INVALID_CONFIGURATION),
        ({"grid": (1, 1, 0)}, emulated.INVALID_CONFIGURATION),
        ({"grid": (0x7FFFFFFF, 1, 1)}, emulated.SUCCESS),
        ({"grid": (0x80000000, 1, 1)}, emulated.INVALID_CONFIGURATION),
        ({"grid": (1, 65535, 65535)}, emulated.SUCCESS),
        ({"grid": (1, 65536, 1)}, emulated.INVALID_CONFIGURATION),
        ({"grid": (1, 1, 65536)}, emulated.INVALID_CONFIGURATION),
        ({"block": (0, 1, 1)}, emulated.INVALID_CONFIGURATION),
        ({"block": (1025, 1, 1)}, emulated.INVALID_CONFIGURATION),
        ({"block": (32, 33, 1)}, emulated.INVALID_CONFIGURATION),
        ({"block": (1, 1, 64)}, emulated.SUCCESS),
        ({"block": (1, 1, 65)}, emulated.INVALID_CONFIGURATION),
        ({"block": (64, 1, 1)}, emulated.SUCCESS),
        ({"block": (65, 1, 1)}, emulated.OUT_OF_RESOURCES),  # the kernel was compiled for 64
        ({"stream": 2}, emulated.SUCCESS),
        ({"stream": 3}, emulated.INVALID_HANDLE),
    ],
    ids=str,
)
def test_extents_and_streams(gpu: tuple[ModuleType, str, Limits], how: dict[str, Any], code: int) -> None:
    assert status(gpu[0], "parameters", PARAMETERS, **how) == code


def test_shared_memory(gpu: tuple[ModuleType, str, Limits], tmp_path: Path) -> None:
    """Static, padded, and dynamic, of what a block has without asking, then of all that the GPU gives one."""
    _, name, limits = gpu
    module = with_archive(tmp_path, lambda index: None)  # nobody has asked it for more
    module.stand_for(name)
    parameters, shares = [bytes(8), bytes(4)], kernel(module, "shares")
    assert module.cuda.attributes(shares)["shared_bytes"] == PADDED

    def dynamic(nbytes: int) -> int:
        return status(module, "shares", parameters, shared_bytes=nbytes)

    assert dynamic(NOTHING_ASKED - PADDED) == emulated.SUCCESS
    assert dynamic(NOTHING_ASKED - PADDED + 1) == emulated.INVALID_VALUE
    most = limits.block_bytes - PADDED
    for wrong in (most + 1, -1):
        code, text = module.cuda.set_attribute(shares, emulated.MAX_DYNAMIC_SHARED, wrong)
        assert code == emulated.INVALID_VALUE and text.startswith(f"invalid argument ({wrong} bytes")
    assert dynamic(NOTHING_ASKED) == emulated.INVALID_VALUE
    assert module.cuda.set_attribute(shares, emulated.MAX_DYNAMIC_SHARED, most)[0] == emulated.SUCCESS
    assert module.cuda.attributes(shares)["most_dynamic_bytes"] == most
    assert dynamic(most) == emulated.SUCCESS
    assert dynamic(most + 1) == emulated.INVALID_VALUE
    # of that kernel, on that GPU
    assert status(module, "parameters", PARAMETERS, shared_bytes=NOTHING_ASKED + 1) == emulated.INVALID_VALUE
    module.stand_for("a100" if name != "a100" else "h100")
    assert dynamic(NOTHING_ASKED) == emulated.INVALID_VALUE


def test_clusters(gpu: tuple[ModuleType, str, Limits], tmp_path: Path) -> None:
    _, name, limits = gpu
    module = with_archive(tmp_path, lambda index: None)
    module.stand_for(name)

    def clusters(*cluster: int, grid: tuple[int, int, int] = (720, 1, 1)) -> int:
        return status(module, "parameters", PARAMETERS, cluster=cluster, grid=grid)

    for blocks in (1, 2, 8, 9, 16):
        fits = emulated.SUCCESS if blocks <= limits.portable_cluster else emulated.INVALID_CLUSTER
        assert clusters(blocks, 1, 1) == fits, blocks
    assert clusters(7, 1, 1) == emulated.INVALID_CLUSTER  # 720 is no multiple
    assert clusters(2, 2, 1) == emulated.INVALID_CLUSTER  # nor is 1
    assert clusters(0, 1, 1) == emulated.INVALID_CLUSTER
    if not limits.portable_cluster:
        how = {"grid": (2, 1, 1), "block": (32, 1, 1), "cluster": (2, 1, 1), "parameters": PARAMETERS}
        _, text = module.cuda.launch(kernel(module, "parameters"), **how)
        assert text == f"cluster misconfiguration (cluster 2 x 1 x 1: {name} has no clusters)"
    else:
        assert clusters(2, 2, 2, grid=(2, 4, 6)) == emulated.SUCCESS
        assert clusters(1, 1, 4, grid=(2, 4, 6)) == emulated.INVALID_CLUSTER
    code, _ = module.cuda.set_attribute(kernel(module, "parameters"), emulated.NON_PORTABLE_CLUSTER, 1)
    assert code == emulated.SUCCESS
    for blocks in (8, 9, 16, 18):
        fits = emulated.SUCCESS if blocks <= limits.largest_cluster else emulated.INVALID_CLUSTER
        assert clusters(blocks, 1, 1) == fits, blocks


def test_registers(gpu: tuple[ModuleType, str, Limits], tmp_path: Path) -> None:
    """They are ptxas's, out of the archive. 128 registers and 512 threads are all that a block has."""
    _, name, limits = gpu

    def with_many(registers: int) -> ModuleType:
        def change(index: list[dict[str, Any]]) -> None:
            for image in index:
                for kernel_name, codes in image["kernels"].items():
                    if "shares" in kernel_name:
                        image["kernels"][kernel_name] = {code: [registers, PADDED] for code in codes}

        module = with_archive(tmp_path, change)
        module.stand_for(name)
        return module

    compiled_by_the_driver = limits.architecture >= 100  # nobody knows how many it will take
    for registers, most in ((64, 1024), (65, 896), (73, 768), (128, 512), (129, 384), (255, 256)):
        module = with_many(registers)
        parameters = [bytes(8), bytes(4)]
        most = 1024 if compiled_by_the_driver else most
        assert module.cuda.attributes(kernel(module, "shares"))["most_threads"] == most
        assert status(module, "shares", parameters, block=(most, 1, 1)) == emulated.SUCCESS
        if most < 1024:
            assert status(module, "shares", parameters, block=(most + 1, 1, 1)) == emulated.OUT_OF_RESOURCES


def test_ptxas_said_so(gpu: tuple[ModuleType, str, Limits]) -> None:
    module, _, limits = gpu
    found = module.cuda.attributes(kernel(module, "parameters"))
    if limits.architecture < 100:
        assert 8 <= found["registers"] <= 64
        assert found["machine_code"] == (90 if limits.architecture == 90 else 80)
    assert found["ptx"] == (90 if limits.architecture == 90 else 80)
    assert found["most_threads"] == 64


def only(index: list[dict[str, Any]], *codes: str) -> None:
    for image in index:
        image["codes"] = [code for code in image["codes"] if code in codes]


@pytest.mark.parametrize(
    ("codes", "able"),
    [
        (("sm_80", "sm_90a", "compute_80"), set(GPUS)),
        (("sm_80", "sm_90a"), set(GPUS) - {"rtx5090"}),
        (("sm_80",), {"a100", "rtx3090", "rtx4090"}),
        (("sm_90a",), {"h100", "h200"}),
        (("compute_80",), set(GPUS)),
        ((), set()),
    ],
    ids=lambda value: "-".join(sorted(value)) or "none",  # a set's own order is each process's
)
def test_a_build_without_code_for_the_gpu(tmp_path: Path, codes: tuple[str, ...], able: set[str]) -> None:
    module = with_archive(tmp_path, lambda index: only(index, *codes))
    for name in GPUS:
        module.stand_for(name)
        fits = emulated.SUCCESS if name in able else emulated.NO_IMAGE
        assert status(module, "parameters", PARAMETERS if name in able else [], **{}) == fits, name
        if name not in able:
            with pytest.raises(RuntimeError, match="no kernel image is available for execution on the device"):
                module.cuda.attributes(kernel(module, "parameters"))


def test_machine_code_comes_before_ptx(tmp_path: Path) -> None:
    def change(index: list[dict[str, Any]]) -> None:
        for image in index:
            if "sm_80" in image["codes"]:
                image["codes"] = ["compute_86", "sm_80"]

    module = with_archive(tmp_path, change)
    for name, code in {"rtx4090": 80, "rtx5090": 120}.items():
        module.stand_for(name)
        assert module.cuda.attributes(kernel(module, "parameters"))["machine_code"] == code


def test_a_kernel_that_the_code_has_not(tmp_path: Path) -> None:
    def forget(index: list[dict[str, Any]]) -> None:
        for image in index:
            if "sm_90a" in image["codes"]:
                image["kernels"] = {}

    module = with_archive(tmp_path, forget)
    module.stand_for("h100")
    assert status(module, "parameters", []) == emulated.INVALID_FUNCTION
    module.stand_for("a100")
    assert status(module, "parameters", PARAMETERS) == emulated.SUCCESS


def test_the_drivers_own_switch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_FORCE_PTX_JIT", "1")
    module = with_archive(tmp_path, lambda index: None)
    module.stand_for("h100")
    found = module.cuda.attributes(kernel(module, "parameters"))
    assert found["ptx"] == 80 and found["registers"] == 0


def test_what_is_not_there_is_named() -> None:
    module = emulated_tests()
    (code, text), _, found = module.cuda.driver_entry_point("cuMemAlloc_v2", 12000)
    assert (code, found) == (emulated.NOT_SUPPORTED, False) and "cuMemAlloc_v2" in text
    (code, _), result, found = module.cuda.driver_entry_point("cuTensorMapEncodeTiled", 11080)
    assert (code, result, found) == (emulated.SUCCESS, 2, False)  # of CUDA 12.0
    for name in ("cuTensorMapEncodeTiled", "cuTensorMapEncodeIm2col", "cuCtxGetCurrent"):
        assert module.cuda.driver_entry_point(name, 12000) == ((emulated.SUCCESS, "no error"), 0, True)
    code, text = module.cuda.set_attribute(kernel(module, "parameters"), 11, 1)
    assert code == emulated.NOT_SUPPORTED and "attribute 11" in text
    with pytest.raises(ValueError, match="no kernel is named 'none'"):
        module.cuda.launch("none", (1, 1, 1), (1, 1, 1))
    with pytest.raises(ValueError, match="no GPU is called 'v100' here, only a100, "):
        module.stand_for("v100")
