"""What an install holds and needs. The whole way, a wheel in an empty environment, is .ci/wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cnnkernels
from cnnkernels import learn

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def setup_py(*arguments: str) -> None:
    subprocess.run([sys.executable, "setup.py", "--quiet", *arguments], cwd=ROOT, check=True, capture_output=True)


def test_the_source_distribution_has_what_a_build_needs(tmp_path: Path) -> None:
    # with an egg-info of its own: the checkout's remembers files that MANIFEST.in has ceased to name
    (tmp_path / "egg").mkdir()
    setup_py("egg_info", "--egg-base", str(tmp_path / "egg"), "sdist", "--dist-dir", str(tmp_path))
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        inside = {name.partition("/")[2] for name in files.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.is_file()}
    sources |= {str(path.relative_to(ROOT)) for path in (ROOT / "triton_kernels").rglob("*.py")}
    sources |= {
        "setup.py",
        "pyproject.toml",
        "constraints.txt",
        "LICENSE",
        "README.md",
        "cnnkernels/py.typed",
    }
    assert sources <= inside
    assert not [name for name in inside if name.endswith((".so", ".pyc", ".zip"))]


def test_the_package_is_all_that_is_installed(tmp_path: Path) -> None:
    setup_py("build_py", "--build-lib", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["cnnkernels"]
    installed = {str(path.relative_to(tmp_path / "cnnkernels")) for path in tmp_path.rglob("*.*") if path.is_file()}
    written = {str(path.relative_to(ROOT / "cnnkernels")) for path in (ROOT / "cnnkernels").rglob("*.py")}
    written |= {str(path.relative_to(ROOT)) for path in (ROOT / "triton_kernels").rglob("*.py")}
    written |= {f"learn/{name}" for name in ("page.html", "style.css", *learn.SCRIPTS)}
    assert written | {"py.typed"} <= installed


NINJA_FILE = """
import runpy, sys, setuptools
from pathlib import Path
setuptools.setup = lambda **_: None
setup = runpy.run_path("setup.py")
kit = setup["toolkit"].Toolkit("nvcc", (13, 0), Path("/opt"))
print(setup["ninja_file"](Path(sys.argv[1]), Path(sys.argv[2]), "c++", kit))
"""


def test_each_module_and_the_ptx_go_where_a_wheel_takes_them_from(tmp_path: Path) -> None:
    command = [sys.executable, "-c", NINJA_FILE, tmp_path, tmp_path / "out"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = re.findall(rf"^build {tmp_path}/out/([\w.-]+): (?:link|ptx_archive)", made, re.MULTILINE)
    found = {name.partition(".")[0] + Path(name).suffix for name in names}
    modules = {"_cuda.so", "_emulated.so", "_emulated.zip", "_emulator.so", "_interpreter.so"}
    assert {name for name in found if "_tests" not in name} == modules


def test_only_bindings_know_python(tmp_path: Path) -> None:
    """The kernels' objects serve a wheel for any version of it."""
    command = [sys.executable, "-c", NINJA_FILE, tmp_path, tmp_path / "out"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    edges = re.findall(r"^build (\S+): (?:host|nvcc) (\S+).*\n  flags = (.*)$", made, re.MULTILINE)
    assert len(edges) > 60
    knowing = re.compile(r'#include (?:<(?:pybind11/|Python\.h)|"(?:[\w/]*/)?(?:bind|python)\.h")')
    for target, source, flags in edges:
        text = (ROOT / source).read_text()
        grouped = Path(source).is_absolute()  # made in tmp_path, of nothing but includes
        parts = [ROOT / "csrc" / name for name in re.findall(r'^#include "(.+)"', text, re.MULTILINE)]
        asks = any(knowing.search(part.read_text()) for part in (parts if grouped else [ROOT / source]))
        assert asks == ("$python_headers" in flags) == (f"/{sys.implementation.cache_tag}/" in target), source


def test_no_object_stays_of_a_source_that_another_includes(tmp_path: Path) -> None:
    """benchmarks/audit.py would read it beside the new one."""
    room = tmp_path / "cuda/csrc/conv/sm90"
    kept = room / "all.cu.o"
    old = [room / f"{name}.cu.o{end}" for name in ("arguments", "directions") for end in ("", ".log")]
    room.mkdir(parents=True)
    for path in (kept, *old):
        path.touch()
    subprocess.run([sys.executable, "-c", NINJA_FILE, tmp_path, tmp_path / "out"], cwd=ROOT, check=True)
    assert not [path for path in old if path.exists()] and kept.exists()
    made = tmp_path / "csrc/conv/sm90/all.cu"
    assert made.read_text() == '#include "conv/sm90/arguments.cu"\n#include "conv/sm90/directions.cu"\n'


def test_pins_cover_the_requirements() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        pins[requirement.name] = pin.version
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *extras["demo"], *extras["dev"]]:
        requirement = Requirement(line)
        if requirement.name != "cnnkernels":
            assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_one_version() -> None:
    assert cnnkernels.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


WITHOUT = """
import sys
for name in {missing}:
    sys.modules[name] = None
import torch, cnnkernels
conv = cnnkernels.nn.Conv2d(2, 3, 3)
conv(torch.ones(1, 2, 5, 5))
print(cnnkernels.available_backends("cpu"))
conv.backend = {backend!r}
conv(torch.ones(1, 2, 5, 5))
"""


@pytest.mark.parametrize(
    ("missing", "backend", "left", "remedy"),
    [
        (["cnnkernels._interpreter", "cnnkernels._cuda"], "cuda", "('triton', 'reference')", "make build"),
        (["triton"], "triton", "('cuda', 'reference')", "pip install triton"),
        (["triton", "cnnkernels._interpreter", "cnnkernels._cuda"], "cuda", "('reference',)", "make build"),
    ],
    ids=["no extension", "no triton", "neither"],
)
def test_import_and_refusal_without(missing: list[str], backend: str, left: str, remedy: str) -> None:
    program = WITHOUT.format(missing=missing, backend=backend)
    environment = os.environ | {"CNNKERNELS_INTERPRET": "1"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == left, result.stderr
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert re.match(r"(RuntimeError|ImportError): ", last) and remedy in last


def test_a_clean_clone_names_no_package_index() -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml", "setup.py", ".ci/run", ".ci/wheel"):
        assert not re.search(r"index-url|find-links|https?://", (ROOT / name).read_text()), name


def test_only_sources_of_sm90_need_its_own_instructions() -> None:
    """setup.py compiles no others for sm_90a: what stands under CNN_SM90A would be left out of them."""
    needing = [path for path in (ROOT / "csrc").rglob("*.cu*") if "#if CNN_SM90A" in path.read_text()]
    kernels = [str(path.relative_to(ROOT)) for path in needing if path.parent.name != "ptx"]
    assert kernels and all("sm90" in name for name in kernels)


def test_what_is_left_out_of_a_kernel_stops_it() -> None:
    """A body that was compiled away returns what memory held, with no error."""
    for folder in ("csrc", "tests/csrc"):
        for path in (ROOT / folder).rglob("*.cu*"):
            text = path.read_text()
            bodies = text.count("\n#if CNN_SM90A\n") if "ptx" not in path.parts else 0
            assert text.count("\n#else\n  left_out();\n#endif\n}") == bodies, path


def test_the_sources_that_look_at_the_architecture_are_compiled_for_each() -> None:
    """setup.py makes all machine code of the others out of the oldest architecture's PTX."""
    looking = {p.name for p in (ROOT / "csrc").rglob("*.*h") if "__CUDA_ARCH__ >=" in p.read_text()}
    assert looking == {"packed.cuh", "mbarrier.cuh"}  # on mbarriers only sources of sm90 wait

    def included(path: Path, seen: set[Path]) -> set[Path]:
        seen.add(path)
        for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE):
            if (part := (path.parent / name).resolve()) not in seen:
                included(part, seen)
        return seen

    packed = ROOT / "csrc/ptx/packed.cuh"
    using = {str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.cu") if packed in included(p, set())}
    newer = re.search(r"^NEWER = \((.*)\)", (ROOT / "csrc/toolkit.py").read_text(), re.MULTILINE)
    assert newer is not None and using == set(re.findall(r'"(.+?)"', newer[1]))
