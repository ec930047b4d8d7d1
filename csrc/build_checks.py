"""What setup.py asks of a machine before ninja starts: what is missing is said in a sentence, not by a traceback."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

# The package itself needs torch, which a build need not have.
_SPEC = importlib.util.spec_from_file_location(
    "environment", Path(__file__).parent.parent / "cnnkernels" / "environment.py"
)
environment = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(environment)

# Of C++20 what the sources use: g++ 11 is the first to know it all.
PROBE = """
#include <Python.h>
#include <bit>
#include <source_location>
template <class T> concept Word = sizeof(T) == 4;
template <Word T> constexpr unsigned bits(T x) { return std::bit_cast<unsigned>(x); }
static_assert(bits(1.0f) == 0x3f800000u);
unsigned line = std::source_location::current().line();
"""
COMPILER = "a C++20 compiler is needed (g++ 11 or later): install one, or name one, as in CXX=g++-12"


def refuse(sentence: str) -> NoReturn:
    raise SystemExit(f"setup.py: {sentence}")


def on_linux() -> None:
    if sys.platform != "linux":
        refuse(f"cnnkernels runs on Linux only, and this is {sys.platform}")


def flag(name: str) -> bool | None:
    try:
        return environment.flag(name)
    except ValueError as error:
        refuse(str(error))


def sanitizer() -> str:
    name = os.environ.get("CNNKERNELS_SANITIZE", "")
    if name not in ("", "thread", "address"):
        refuse(f"CNNKERNELS_SANITIZE must be thread or address, but got {name!r}")
    return name


def program(command: str, needed: str) -> Path:
    """Where the program of a command is, without ccache before it and options behind it."""
    words = shlex.split(command)
    if len(words) > 1 and Path(words[0]).name in ("ccache", "sccache"):
        program(words.pop(0), needed)
    found = shutil.which(words[0]) if words else None
    if found is None:
        refuse(f"there is no program {command!r}; {needed}")
    return Path(found)


def complaint(cxx: str, flags: list[str], source: str = "") -> str | None:
    """What a compiler says against some flags and a source, None where it takes them."""
    command = [*shlex.split(cxx), *flags, "-x", "c++", "-fsyntax-only", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"


def has_static_libstdcxx(cxx: str) -> bool:
    """Some distributions have it in a package of its own; a compiler then says the name without a place."""
    command = [*shlex.split(cxx), "-print-file-name=libstdc++.a"]
    return os.path.isabs(subprocess.run(command, capture_output=True, text=True).stdout.strip())


def find_cxx() -> str:
    """The command of a compiler that can compile the sources."""
    cxx = os.environ.get("CXX") or "c++"
    program(cxx, COMPILER)
    headers = sysconfig.get_path("include")
    if not (Path(headers) / "Python.h").exists():
        refuse(f"{sys.executable} has no headers in {headers}: install them (python3-dev, python3-devel)")
    if said := complaint(cxx, ["-std=c++20", f"-I{headers}"], PROBE):
        refuse(f"{cxx!r} cannot compile the sources; {COMPILER}. It says:\n{said}")
    return cxx
