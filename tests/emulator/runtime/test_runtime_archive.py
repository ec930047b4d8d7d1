"""The PTX that a build keeps (csrc/ptx_archive.py): all of it, as ptxas got it, in no module that a GPU uses."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cnnkernels import _emulator
from helpers.emulated import emulated_tests

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "csrc"))
import ptx_archive  # noqa: E402
import toolkit  # noqa: E402

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compile time = 5.1 ms
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Used 168 registers, used 0 barriers
ptxas info    : Compiling entry function 'one' for 'sm_80'
ptxas info    : Used 38 registers, 360 bytes cmem[0]
"""


def test_what_ptxas_says() -> None:
    assert ptx_archive.usage(LOG) == {
        ("one", "sm_90"): (40, 1024),
        ("two", "sm_90"): (168, 0),
        ("one", "sm_80"): (38, 0),
    }


def compiled(folder: Path, stem: str, gencode: list[str]) -> Path:
    """An object as the rule of nvcc makes it, out of texts that need no nvcc."""
    kept, path = folder / f"{stem}.kept", folder / "cuda" / "csrc" / f"{stem}.cu.o"
    kept.mkdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [re.sub(r".*arch=(\w+),.*", r"\1", flag) for flag in gencode]
    for name in names:
        file = f"{stem}.{name}.ptx" if len(names) > 1 else f"{stem}.ptx"
        (kept / file).write_text(f".visible .entry one(\n// {name}\n.entry two(\n")
    (folder / f"{stem}.s").write_text(ptx_archive.sections(Path(f"{stem}.cu"), gencode, kept))
    subprocess.run(["cc", "-c", folder / f"{stem}.s", "-o", path], check=True)
    path.with_name(path.name + ".log").write_text(LOG)
    return path


@pytest.mark.parametrize("archs", [toolkit.DEFAULT_ARCHS, "90+PTX", "80;86;90;120+PTX"])
def test_an_object_keeps_it_and_a_module_does_not(tmp_path: Path, archs: str) -> None:
    found = toolkit.architectures(archs)
    for source in (Path("csrc/pool/forward.cu"), Path("csrc/common/sm90_probe.cu"), Path("csrc/conv/packing/pack.cu")):
        gencode = toolkit.gencode(source, found)
        path = compiled(tmp_path, source.stem, gencode)
        kept = list(ptx_archive.kept(path.read_bytes()))
        assert [f"-gencode=arch={names[0]},code=[{','.join(names[1:])}]" for names, _ in kept] == gencode
        assert all(f"// {names[0]}\n" in text for names, text in kept)
        module = tmp_path / "module.so"
        subprocess.run(["cc", "-shared", path, "-o", module], check=True)
        assert list(ptx_archive.kept(module.read_bytes())) == []


def test_the_same_objects_give_the_same_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gencode = toolkit.gencode(Path("csrc/pool/forward.cu"), toolkit.architectures(toolkit.DEFAULT_ARCHS))
    path = compiled(tmp_path, "forward", gencode)
    for name in ("a.zip", "b.zip"):
        ptx_archive.main(tmp_path / name, [path])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert re.match(r".*a\.zip: 0\.0 MiB, of 0\.0 MiB of PTX\n", capsys.readouterr().out)
    with zipfile.ZipFile(tmp_path / "a.zip") as files:
        index = json.loads(files.read("index.json"))
        assert {member.date_time for member in files.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert files.namelist() == [image["file"] for image in index] + ["index.json"]
    assert [image["file"] for image in index] == [f"csrc/forward.cu/compute_{arch}.ptx" for arch in (80, 90)]
    assert index[0]["codes"] == ["sm_80", "compute_80"]
    assert index[0]["kernels"] == {"one": {"sm_80": [38, 0]}, "two": {}}
    assert index[1]["kernels"] == {"one": {"sm_90": [40, 1024]}, "two": {"sm_90": [168, 0]}}


@pytest.mark.parametrize("name", ["_emulated", "_emulated_tests"])
def test_the_build_keeps_it_of_every_kernel(name: str) -> None:
    emulated_tests()
    module = importlib.import_module(f"cnnkernels.{name}")
    path = Path(module.__file__)
    with zipfile.ZipFile(path.with_name(f"{name}.zip")) as files:
        index: list[dict[str, Any]] = json.loads(files.read("index.json"))
        targets = {
            image["file"]: re.search(r"^\.target (\w+)", files.read(image["file"]).decode(), re.MULTILINE)[1]  # type: ignore[index]
            for image in index
            if image["kernels"]
        }
    assert {kernel for image in index for kernel in image["kernels"]} == set(module.cuda.kernels())
    for image in index:
        for kernel, codes in image["kernels"].items():
            machine = {code for code in image["codes"] if code.startswith("sm_")}
            assert set(codes) == machine, kernel
            assert all(4 <= registers <= 255 and 0 <= shared <= 48 << 10 for registers, shared in codes.values()), (
                kernel
            )
    for file, target in targets.items():
        assert file.endswith(f"/compute_{target.removeprefix('sm_')}.ptx")
    for other in ("_cuda", "_cuda_tests", "_emulated"):
        built = path.with_name(path.name.replace(name, other))
        assert list(ptx_archive.kept(built.read_bytes())) == []


def test_static_shared_memory_is_what_ptxas_says() -> None:
    """With what pads it to where the dynamic begins: the emulator places variables itself."""
    emulated_tests()
    path = Path(importlib.import_module("cnnkernels._emulated").__file__)
    counted = 0
    with zipfile.ZipFile(path.with_name("_emulated.zip")) as files:
        for image in json.loads(files.read("index.json")):
            if not any(image["kernels"].values()):
                continue
            program = _emulator.parse(files.read(image["file"]).decode(), image["file"])
            for entry in _emulator.entries(program):
                for _, shared in image["kernels"][entry.name].values():
                    assert entry.static_shared_bytes == shared, entry.name
                    counted += shared % 1024 == 0 and shared > 0
    assert counted > 100
