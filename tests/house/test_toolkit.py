"""Which nvcc a build takes, what CNNKERNELS_CUDA_ARCHS may say and what each source is then compiled for."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.cuda_toolkit import cuobjdump, nvcc

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "csrc"))
import toolkit  # noqa: E402

PLAIN, HOPPER = Path("csrc/conv/packing/pack.cu"), Path("csrc/common/sm90_probe.cu")
NEWER = Path("csrc/pool/forward.cu")


@pytest.mark.parametrize(
    ("text", "archs"),
    [
        ("80;90a;90+PTX", {80: False, 90: True}),
        (toolkit.DEFAULT_ARCHS, {80: False, 90: True}),
        ("8.0;9.0+PTX", {80: False, 90: True}),
        ("9.0 8.6", {90: False, 86: False}),
        (" 9.0a, 8.0+PTX;", {90: False, 80: True}),
        ("90", {90: False}),
        ("90+PTX", {90: True}),
        ("90a+PTX;90", {90: True}),
        ("10.0f;120a;12.1+PTX", {100: False, 120: False, 121: True}),
    ],
)
def test_architectures_are_spelled_as_pytorch_spells_them(text: str, archs: dict[int, bool]) -> None:
    assert toolkit.architectures(text) == archs
    assert list(toolkit.architectures(text)) == list(archs)


@pytest.mark.parametrize(
    "text", [";", "native", "sm_80", "compute_90", "9", "12", "80;all", "8.0+ptx", "90b", "8.60", "80;-90", "9.0.1"]
)
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match=r"CNNKERNELS_CUDA_ARCHS: '.*' is no architecture; compute capabilities are"):
        toolkit.architectures(text)


@pytest.mark.parametrize("text", ["70", "7.5", "80;6.1+PTX"])
def test_what_the_kernels_cannot_run_on_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match=r"is below 8.0, which the kernels need"):
        toolkit.architectures(text)


def passes(source: Path, archs: dict[int, bool]) -> list[tuple[str, str]]:
    """(compute_80, sm_90) for each piece of code that a source becomes."""
    found = []
    for flag in toolkit.gencode(source, archs):
        match = re.fullmatch(r"-gencode=arch=(compute_\w+),code=\[([\w,]+)\]", flag)
        assert match is not None
        found += [(match[1], code) for code in match[2].split(",")]
    assert len({code for _, code in found}) == len(found)
    return found


def number(name: str) -> int:
    return int(name.partition("_")[2].rstrip("a"))


CHOICES = [
    dict(zip(archs, kept, strict=True))
    for count in (1, 2, 3)
    for archs in itertools.permutations((80, 86, 90, 100, 120), count)
    for kept in itertools.product((False, True), repeat=count)
]


@pytest.mark.parametrize("source", [PLAIN, HOPPER, NEWER, Path("tests/csrc/conformance_tma.cu")], ids=str)
def test_each_source_has_code_for_each_architecture(source: Path) -> None:
    """Of Hopper the instructions that a source needs: a body left out there would be found by the user alone."""
    asks = "sm90" in str(source) or "tests" in source.parts
    for archs in CHOICES:
        found = passes(source, archs)
        real = [code for _, code in found if code.startswith("sm_")]
        assert sorted(map(number, real)) == sorted(archs), archs
        assert ("sm_90a" in real) == (asks and 90 in archs) and ("sm_90" in real) == (not asks and 90 in archs)
        assert [arch for arch, code in found if code == "sm_90a"] == ["compute_90a"] * ("sm_90a" in real)
        assert all(number(arch) <= number(code) for arch, code in found)
        # PTX for what is newer, and from the oldest on, where all machine code is passed over (CUDA_FORCE_PTX_JIT)
        ptx = [number(code) for _, code in found if code.startswith("compute_")]
        assert bool(ptx) == any(archs.values()) and min(ptx, default=min(archs)) == min(archs)
        if source == NEWER:
            assert {number(arch) for arch, _ in found} == set(archs)
            assert set(ptx) - {min(archs)} == {arch for arch in archs if archs[arch]} - {min(archs)}


def test_the_default_is_what_the_docs_say() -> None:
    archs = toolkit.architectures(toolkit.DEFAULT_ARCHS)
    assert toolkit.gencode(PLAIN, archs) == ["-gencode=arch=compute_80,code=[sm_80,sm_90,compute_80]"]
    assert toolkit.gencode(HOPPER, archs) == [
        "-gencode=arch=compute_90a,code=[sm_90a]", "-gencode=arch=compute_80,code=[sm_80,compute_80]"
    ]  # fmt: skip


@pytest.mark.skipif(not nvcc() or cuobjdump() is None, reason="needs nvcc, and cuobjdump of triton's wheel")
@pytest.mark.parametrize(
    ("text", "with_body", "without"),
    [("90", {"90a"}, set()), ("8.0;9.0+PTX", {"90a"}, {"80"}), ("80+PTX", set(), {"80"}), ("86;90", {"90a"}, {"86"})],
)
def test_the_body_is_there_where_hopper_is_asked_for(
    text: str, with_body: set[str], without: set[str], tmp_path: Path
) -> None:
    """What the host looks at to tell (csrc/common/sm90_probe.h): shared memory, in sm_90a's code alone."""
    fatbin = tmp_path / "probe.fatbin"
    flags = toolkit.gencode(HOPPER, toolkit.architectures(text))
    subprocess.run([*nvcc(), "-std=c++20", "-Icsrc", *flags, "-fatbin", HOPPER, "-o", fatbin], cwd=ROOT, check=True)
    said = subprocess.run([cuobjdump(), "-res-usage", fatbin], capture_output=True, text=True, check=True).stdout
    bytes_ = re.search(r"kProbeBytes = (\d+);", (ROOT / "csrc/common/sm90_probe.h").read_text())
    shared = {
        arch: int(size) for arch, size in re.findall(r"arch = sm_(\w+)\n(?:(?!arch = ).*\n)*?.* SHARED:(\d+)", said)
    }
    assert set(shared) == with_body | without
    assert {arch for arch, size in shared.items() if size >= int(bytes_[1])} == with_body


def kit(*cuda: int) -> toolkit.Toolkit:
    return toolkit.Toolkit(f"nvcc-{cuda[0]}.{cuda[1]}", cuda, Path("/opt"))  # type: ignore[arg-type]


def test_the_nvcc_of_pytorchs_major_is_preferred() -> None:
    found = [kit(13, 0), kit(12, 4), kit(12, 8), kit(12, 6)]
    assert toolkit.choose(found, None) == kit(13, 0) == toolkit.choose(found, 13) == toolkit.choose(found, 11)
    assert toolkit.choose(found, 12) == kit(12, 8)
    assert toolkit.choose([], 12) is None
    assert toolkit.choose([kit(12, 5)], 13) == kit(12, 5)
    with pytest.raises(
        SystemExit, match=r"nvcc-12.4 is of CUDA 12.4, and the kernels need 12.5 or later: name a newer"
    ):
        toolkit.choose([kit(12, 4), kit(11, 8)], 12)


def test_pytorchs_own_major() -> None:
    expected = torch.version.cuda and int(torch.version.cuda.split(".")[0])
    assert toolkit.of_torch() == expected


@pytest.mark.parametrize(("text", "major"), [("'12.8'", 12), ("'13.0'", 13), ("None", None)])
def test_pytorchs_major_is_read_without_importing_it(
    text: str, major: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version.py").write_text(f"from typing import Optional\ncuda: Optional[str] = {text}\n")
    spec = importlib.util.spec_from_file_location("torch", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert toolkit.of_torch() == major


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """place(folder, version): an nvcc that says it is of that CUDA. No other is found, but in /usr/local."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("NVCC", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)

    def place(folder: str, version: str) -> Path:
        home = tmp_path / folder
        (home / "bin").mkdir(parents=True)
        (home / "bin/nvcc").write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "Cuda compilation tools, release {version}, V{version}.1" ||'
            f' echo "#\\$ TOP={home}/bin/.." >&2\n'
        )
        (home / "bin/nvcc").chmod(0o755)
        return home

    return place


def test_what_the_environment_names_goes_first(
    place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, path = place("cuda-12.8", "12.8"), place("cuda-13.1", "13.1"), place("on path", "13.2")
    monkeypatch.setenv("PATH", f"{path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(toolkit, "of_torch", lambda: None)
    assert toolkit.find() == toolkit.Toolkit(f"'{path}/bin/nvcc'", (13, 2), path)
    monkeypatch.setenv("CUDA_HOME", str(new))
    assert toolkit.find() == toolkit.Toolkit(f"{new}/bin/nvcc", (13, 1), new)
    monkeypatch.setenv("CUDA_HOME", str(old))
    capsys.readouterr()
    monkeypatch.setattr(toolkit, "of_torch", lambda: 13)
    assert toolkit.find().cuda == (13, 2)  # type: ignore[union-attr]
    monkeypatch.setenv("NVCC", f"env {old}/bin/nvcc -ccbin g++")  # by name, and with what may stand around it
    found = toolkit.find()
    assert found is not None and found.cuda == (12, 8) and found.nvcc == f"env {old}/bin/nvcc -ccbin g++"
    assert f"-L{old}/lib64" in found.libraries  # its own runtime, not that of another toolkit
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"compiling for GPUs with CUDA 12.8 in {old}; PyTorch is of CUDA 13"
    )
    assert toolkit.find(wanted=True) == found
    assert toolkit.find(wanted=False) is None


def test_a_named_nvcc_that_does_not_serve_is_refused(place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC", str(place("cuda-12.4", "12.4") / "bin/nvcc"))
    with pytest.raises(SystemExit, match=r"is of CUDA 12.4, and the kernels need 12.5 or later"):
        toolkit.find()
    for other in ("/nowhere/nvcc", "/bin/true"):
        monkeypatch.setenv("NVCC", other)
        with pytest.raises(SystemExit, match=f"NVCC={other} does not run, or is no nvcc"):
            toolkit.find()


def test_one_that_is_asked_for_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit, "named", lambda: [])
    monkeypatch.delenv("NVCC", raising=False)
    assert toolkit.find() is None
    with pytest.raises(SystemExit, match="CNNKERNELS_BUILD_CUDA asks for nvcc, and none was found"):
        toolkit.find(wanted=True)
