"""Wheels for every Python found, one build of the kernels for all: `make wheels`.

    python release/wheels.py [PYTHON ...]

Only the bindings know Python, so the second wheel takes a minute. Each is repaired by auditwheel, which also says the
oldest glibc it runs with; --strip takes away symbols and lines that only gdb reads. They come into dist, the virtual
environments that build them into build/wheels. A machine with a container engine makes wheels for older glibc by
cibuildwheel, whose settings are in pyproject.toml.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
WORK = ROOT / "build" / "wheels"
MODULES = {"_cuda", "_emulated", "_emulator", "_interpreter"}
BUILDERS = ("setuptools", "wheel", "pybind11", "ninja")  # constraints.txt has their versions


def starts(python: str | Path, version: str) -> bool:
    """Whether it is a Python of that version with what a build needs."""
    code = "import ensurepip, sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_path('include'))"
    try:
        said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return False
    return said[0] == version and Path(said[1], "Python.h").exists()


def found(version: str) -> Path | None:
    """The Python of a version: on the path, or pyenv's, whose names on the path may be of none that is active."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    on_path = [Path(folder, f"python{version}") for folder in os.get_exec_path()]
    for python in [*on_path, *sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))]:
        if starts(python, version):
            return python
    return None


def run(*command: str | Path, **options: object) -> None:
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, **options)  # type: ignore[call-overload]


def environment(python: Path, name: str, *requirements: str) -> Path:
    """The Python of a virtual environment in WORK with what is required in it; made where it is not there yet."""
    folder = WORK / name
    if not (folder / "bin/python").exists():
        run(python, "-m", "venv", folder)
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    return folder / "bin/python"


def build(python: Path, version: str) -> Path:
    """An unrepaired wheel."""
    own = environment(python, version, "-c", "constraints.txt", *BUILDERS)
    raw = WORK / "raw" / version
    for stale in [raw, *(ROOT / "build").glob("lib*"), *(ROOT / "build").glob("bdist*")]:
        shutil.rmtree(stale, ignore_errors=True)
    run(own, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", raw, ".")
    (wheel,) = raw.glob("*.whl")
    return wheel


def repair(wheel: Path, tools: Path) -> Path:
    """The wheel for the oldest glibc that it can run with, in dist."""
    programs = {**os.environ, "PATH": f"{tools.parent}{os.pathsep}{os.environ['PATH']}"}
    out = WORK / "repaired" / wheel.parent.name
    shutil.rmtree(out, ignore_errors=True)
    run(tools, "-m", "auditwheel", "repair", "--strip", "--wheel-dir", out, wheel, env=programs, capture_output=True)
    (repaired,) = out.glob("*.whl")
    (ROOT / "dist").mkdir(exist_ok=True)
    return Path(shutil.move(repaired, ROOT / "dist" / repaired.name))


def lacking(wheel: Path) -> set[str]:
    """The modules that a wheel should have and has not."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = {match[1] for name in names if (match := re.fullmatch(r"cnnkernels/(\w+)\.cpython-.*\.so", name))}
    return MODULES - inside | {"_emulated.zip"} - {name.partition("/")[2] for name in names}


def seconds_to_install(python: Path, wheel: Path) -> float:
    """Of the wheel alone, without PyTorch, into an empty environment."""
    own = environment(python, f"empty-{wheel.name.split('-')[2]}", "pip")
    started = time.perf_counter()
    run(own, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel)
    return time.perf_counter() - started


def main(given: list[str]) -> int:
    pythons = {version: python for version in VERSIONS if (python := found(version))}
    for python in given:
        version = next((version for version in VERSIONS if starts(python, version)), None)
        if version is None:
            raise SystemExit(f"wheels.py: {python} is no Python of {', '.join(VERSIONS)} with venv and headers")
        pythons[version] = Path(python)
    if given:
        pythons = {version: python for version, python in pythons.items() if str(python) in given}
    if not pythons:
        raise SystemExit(f"wheels.py: none of Python {', '.join(VERSIONS)} with venv and headers is on the path")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tools = environment(next(iter(pythons.values())), "tools", "-r", "release/requirements.txt")
    bad = 0
    for name, python in pythons.items():
        print(f"-- Python {name}: {python}", flush=True)
        started = time.perf_counter()
        wheel = repair(build(python, name), tools)
        took = time.perf_counter() - started
        missing = lacking(wheel)
        bad += bool(missing)
        print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size / 1e6:.1f} MB, built in {took:.0f} s", flush=True)
        print(f"  lacks {', '.join(sorted(missing))}" if missing else "  has every module")
        print(f"  installed in {seconds_to_install(python, wheel):.1f} s", flush=True)
        run(tools, "-m", "auditwheel", "show", wheel)
    left_out = [name for name in VERSIONS if name not in pythons]
    print(f"cnnkernels {version}: {len(pythons)} wheels" + f", none for Python {', '.join(left_out)}" * bool(left_out))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
