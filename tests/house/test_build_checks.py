"""What a build says where something is missing: a sentence, before ninja or pip has begun."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_SPEC = importlib.util.spec_from_file_location("build_checks", ROOT / "csrc/build_checks.py")
assert _SPEC is not None and _SPEC.loader is not None
build_checks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(build_checks)


def program(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("CXX", "NVCC", "CNNKERNELS_BUILD_CUDA", "CNNKERNELS_SANITIZE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def refusal(check, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        check(*arguments)
    return str(stop.value)


def test_a_build_ends_with_the_sentence(tmp_path: Path) -> None:
    """All the way through setup.py: no traceback, nothing begun."""
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path)],
        env=os.environ | {"CXX": "no-such-compiler"}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("setup.py: there is no program 'no-such-compiler'; a C++20 compiler is needed")


def test_the_compiler_of_this_machine_will_do(clean: pytest.MonkeyPatch) -> None:
    assert build_checks.find_cxx() == "c++"
    clean.setenv("CXX", "c++ -DCNN_UCONTEXT=1")
    assert build_checks.find_cxx() == "c++ -DCNN_UCONTEXT=1"


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_no_compiler(clean: pytest.MonkeyPatch, path: str) -> None:
    clean.setenv("PATH", path)
    said = refusal(build_checks.find_cxx)
    assert "there is no program 'c++'" in said and "CXX=" in said


def test_a_compiler_that_is_too_old(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that knows no -std=c++20, and one that knows it but has not all of its library."""
    old = program(
        tmp_path, "old", '#!/bin/sh\ncase "$*" in *c++20*) echo "unrecognized -std=c++20" >&2; exit 1; esac\n'
    )
    clean.setenv("CXX", old)
    said = refusal(build_checks.find_cxx)
    assert f"{old!r} cannot compile" in said and "g++ 11 or later" in said and "unrecognized -std=c++20" in said
    clean.setenv("CXX", "c++ -std=c++20 -U__cplusplus -D__cplusplus=201703L -Wno-builtin-macro-redefined")
    assert "cannot compile" in refusal(build_checks.find_cxx)


def test_no_headers(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean.setattr(build_checks.sysconfig, "get_path", lambda name: str(tmp_path))
    assert f"no headers in {tmp_path}" in refusal(build_checks.find_cxx)


@pytest.mark.parametrize("command", ["ccache nvcc", "nvcc -ccbin g++-12", "nvcc"])
def test_the_program_of_a_command(clean: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    nvcc = program(tmp_path, "nvcc", "#!/bin/sh\n")
    program(tmp_path, "ccache", "#!/bin/sh\n")
    clean.setenv("PATH", str(tmp_path))
    assert str(build_checks.program(command, "")) == nvcc


@pytest.mark.parametrize(
    ("check", "name", "value"),
    [("sanitizer", "CNNKERNELS_SANITIZE", "memory"), ("flag", "CNNKERNELS_BUILD_CUDA", "maybe")],
)
def test_a_word_that_means_nothing(clean: pytest.MonkeyPatch, check: str, name: str, value: str) -> None:
    clean.setenv(name, value)
    said = refusal(getattr(build_checks, check), *[name] * (check == "flag"))
    assert said.startswith(f"setup.py: {name} must be ") and said.endswith(f"but got {value!r}")


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems(clean: pytest.MonkeyPatch, platform: str) -> None:
    build_checks.on_linux()
    clean.setattr(sys, "platform", platform)
    assert f"Linux only, and this is {platform}" in refusal(build_checks.on_linux)


# A Python that says it is another, has no venv or no headers.
PRETENDS = """#!/bin/sh
[ "$1" = -c ] && exec {python} -c 'import sys, sysconfig; {first}; exec(sys.argv[1])' "$2"
touch {folder}/asked
"""


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ('sys.version_info = (3, 10, 1, "final", 0)', "is Python 3.10"),
        ('sys.version_info = (3, 14, 0, "final", 0)', "is Python 3.14"),
        ('sys.modules["ensurepip"] = None', "has no venv"),
        ('sysconfig.get_path = lambda name: "/nowhere"', "has no headers in /nowhere"),
        ('sys.platform = "darwin"', "runs on darwin"),
    ],
)
def test_make_says_why_a_python_cannot_be_used(tmp_path: Path, first: str, why: str) -> None:
    python = program(tmp_path, "python", PRETENDS.format(python=sys.executable, folder=tmp_path, first=first))
    stamp = f"{tmp_path}/venv/.dependencies"
    command = ["make", "--no-print-directory", f"VENV={tmp_path}/venv", f"PYTHON={python}", stamp]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    sentence, error = done.stderr.splitlines()
    assert why in sentence and "cnnkernels needs Python 3.11 to 3.13 on Linux" in sentence
    assert "Error 1" in error and done.stdout == ""
    assert not (tmp_path / "venv").exists() and not (tmp_path / "asked").exists()


def test_make_says_that_a_python_does_not_start(tmp_path: Path) -> None:
    command = ["make", f"VENV={tmp_path}/venv", "PYTHON=python3.99", f"{tmp_path}/venv/.dependencies"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "PYTHON=python3.99 does not start" in done.stderr


def test_libstdcxx_is_linked_statically_where_there_is_one_to_link(tmp_path: Path) -> None:
    assert build_checks.has_static_libstdcxx("c++")
    without = program(tmp_path, "c++", '#!/bin/sh\n[ "$1" = -print-file-name=libstdc++.a ] && echo libstdc++.a\n')
    assert not build_checks.has_static_libstdcxx(without)
