"""docs/add_an_operator.md: its programs are put where they say they belong, and its operator is what it says it is.

The CUDA source is compiled as the interpreter's are. Only pybind11, which would take longer than all else, is played by
a few lines that keep each function to be called through ctypes.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import itertools
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cnnkernels.triton_kernels
import pytest
import torch

import benchmarks.families
from benchmarks.cases import Case
from benchmarks.providers import PROVIDERS
from benchmarks.verify import Reference, make_inputs
from cnnkernels import backends, functional, native, nn, operators, ops
from cnnkernels.geometry import Layout
from cnnkernels.ops import operator
from cnnkernels.testing.cases import PoolCase
from helpers.bench import ROOT

PAGE = (ROOT / "docs/add_an_operator.md").read_text()
WORD = "global_avg_pool"
BLOCKS = re.findall(r"^```(?:cpp|python)\n(?://|#) (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SOURCES = dict(BLOCKS)
LISTS = ("cnnkernels/operators.py", "benchmarks/families.py")  # the page has an entry of
PACKAGES = (functional, native, nn, ops, cnnkernels.triton_kernels)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CUDA source is compiled for the interpreter")

PYBIND = r"""
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
namespace pybind11 {
struct arg { explicit arg(const char*) {} };
inline std::map<std::string, std::function<void(const std::int64_t*)>> functions;
template <class T> T take(const std::int64_t*& from) {
  if constexpr (std::is_class_v<T>) { T all; for (auto& one : all) one = *from++; return all; }
  else return static_cast<T>(*from++);
}
struct module_ {
  template <class F, class... Names> void def(const char* name, F f, Names...) { keep(name, f, &F::operator()); }
  template <class F, class... A> void keep(const char* name, F f, void (F::*)(A...) const) {
    functions[name] = [f](const std::int64_t* from) {
      std::tuple<std::decay_t<A>...> taken{take<std::decay_t<A>>(from)...};
      std::apply(f, taken);
    };
  }
};
}
"""
MODULE = f"""
#include "csrc/{WORD}/kernels.cu"
#include "csrc/{WORD}/bindings.cpp"
extern "C" __attribute__((visibility("default"))) const char* call(const char* name, const std::int64_t* arguments) {{
  static std::string fault;
  try {{
    pybind11::module_ m;
    if (pybind11::functions.empty()) cnnkernels::{WORD}::bind(m);
    pybind11::functions.at(name)(arguments);
    return nullptr;
  }} catch (const std::exception& error) {{
    return (fault = error.what()).c_str();
  }}
}}
"""


def compiled(folder: Path) -> SimpleNamespace:
    """The page's launchers in the interpreter, called with the numbers that the bindings take."""
    for room in ("common", "ptx", "interpreter"):
        (folder / "csrc" / room).symlink_to(ROOT / "csrc" / room)
    (folder / "pybind11").mkdir()
    (folder / "pybind11/pybind11.h").write_text(PYBIND)
    (folder / "pybind11/stl.h").write_text("")
    (folder / "module.cu").write_text(MODULE)
    made = ROOT / "build/native"
    objects = [
        p
        for tag in ("shared", "interpreter")
        for room in ("common", "interpreter")
        for p in (made / tag / "csrc" / room).glob("*.o")
        if p.stem == "all.cpp" or (ROOT / "csrc" / room / p.stem).exists()  # an object outlives its source
    ]
    assert objects, "make build leaves what the interpreter is made of in build/native"
    flags = ["-std=c++20", "-O0", "-fPIC", "-shared", "-fvisibility=hidden", "-DCNN_INTERPRETER=1", "-Wall", "-Wextra"]
    flags += ["-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off", f"-I{folder}", "-pthread"]
    flags += re.findall(r"-march=\S+", (made / "build.ninja").read_text())[:1]  # the objects'
    python = [f"-I{sysconfig.get_path('include')}"]
    sources = ["-x", "c++", folder / "module.cu", "-x", "none"]
    linked = [p for p in objects if p.name != "python.cpp.o"]
    subprocess.run(["c++", *flags, *python, *sources, *linked, "-o", folder / "module.so"], check=True)
    library = ctypes.CDLL(str(folder / "module.so"))
    library.call.restype = ctypes.c_char_p

    def function(name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            flat = [n for a in arguments for n in (a if isinstance(a, tuple) else (a,))]
            fault = library.call(name.encode(), (ctypes.c_int64 * len(flat))(*flat))
            if fault:
                raise RuntimeError(fault.decode())

        return call

    return SimpleNamespace(**{name: function(name) for name in (f"{WORD}_forward", f"{WORD}_backward")})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """The packages with the page's files in them, and its kernels in the backends."""
    folder = tmp_path_factory.mktemp("house")
    for name, text in BLOCKS:
        if name in LISTS:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        library = torch.library.Library("cnnkernels", "FRAGMENT")  # what it holds goes away with it
        patch.setattr(operator, "LIBRARY", library)
        for package in PACKAGES:
            room = folder / package.__name__.replace("cnnkernels.triton", "triton").replace(".", "/")
            patch.setattr(package, "__path__", [*package.__path__, str(room)])
        for package, name in ((functional, f"{WORD}2d"), (nn, "GlobalAvgPool2d")):
            file = importlib.import_module(f"{package.__name__}.{WORD}")
            patch.setattr(package, name, getattr(file, name), raising=False)
        entry = eval(SOURCES["cnnkernels/operators.py"], vars(operators))
        patch.setitem(operators.OPERATORS, entry.name, entry)
        for function in entry.functions:
            patch.setitem(operators.OPERATOR_OF, function, entry)
        kernels = importlib.import_module(f"cnnkernels.native.{WORD}").GlobalAvgPoolKernels
        triton = importlib.import_module(f"cnnkernels.triton_kernels.{WORD}.{WORD}")
        served = {"cuda": kernels(compiled(folder), "cpu"), "triton": triton}
        patch.setattr(backends, "kernels", lambda backend, device: served[backend])
        yield patch
        for package in PACKAGES:
            vars(package).pop(WORD, None)
        library._destroy()
    for name in set(sys.modules) - known:
        if WORD in name:
            del sys.modules[name]


def cases(test: Callable[..., None]) -> list[dict[str, Any]]:
    """Arguments from a test's own parametrize marks."""
    marks = [mark.args for mark in getattr(test, "pytestmark", [])]
    return [
        dict(zip([n for n, _ in marks], values, strict=True)) for values in itertools.product(*(v for _, v in marks))
    ]


@pytest.mark.usefixtures("house")
def test_its_tests_pass(kernel_backend: str) -> None:
    namespace: dict[str, Any] = {}
    exec(SOURCES[f"tests/{WORD}/test_{WORD}.py"], namespace)
    tests = {name: thing for name, thing in namespace.items() if name.startswith("test_")}
    assert len(tests) == 4
    for test in tests.values():
        for arguments in cases(test):
            test(kernel_backend, "cpu", **arguments)


@pytest.mark.usefixtures("house")
def test_backends_have_the_same_functions() -> None:
    native_kernels = sys.modules[f"cnnkernels.native.{WORD}"].GlobalAvgPoolKernels
    triton = sys.modules[f"cnnkernels.triton_kernels.{WORD}.{WORD}"]
    for name in (f"{WORD}_forward", f"{WORD}_backward"):
        _, *ours = inspect.signature(getattr(native_kernels, name)).parameters
        assert ours == list(inspect.signature(getattr(triton, name)).parameters)


@pytest.mark.usefixtures("house")
def test_what_is_made_without_values() -> None:
    word = sys.modules[f"cnnkernels.ops.{WORD}"]
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    grad, like = torch.randn(2, 3, 1, 1), (x.shape, (1, 2, 6, 24))
    for op, first, *rest in ((word.global_avg_pool_forward, x), (word.global_avg_pool_backward, grad, *like)):
        made, fake = (op(tensor, *rest, "triton") for tensor in (first, first.to("meta")))
        assert (fake.shape, fake.stride(), fake.dtype) == (made.shape, made.stride(), made.dtype)


@pytest.mark.usefixtures("house")
def test_its_family_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every direction, once the harness has found it to be right."""
    family = eval(SOURCES["benchmarks/families.py"], vars(benchmarks.families))
    monkeypatch.setitem(benchmarks.families.FAMILIES, family.name, family)
    problem = PoolCase("small", 3, 5, 7, 6, (7, 6), (1, 1))
    for direction in family.directions:
        case = Case(family.name, direction, "fp32", Layout.NHWC, problem)
        reference = Reference(case, make_inputs(case, "cpu", 0))
        for backend in ("cuda", "triton"):
            assert reference.judge(PROVIDERS[backend]).right, (backend, direction)


def test_every_program_says_where_it_belongs() -> None:
    assert len(BLOCKS) == len(SOURCES) == len(re.findall("^```[a-z]", PAGE, re.MULTILINE))
    assert all(WORD in name for name in SOURCES if not name.startswith(LISTS))


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_its_programs_are_formatted(name: str) -> None:
    """As the project's own are: with the same tools, where they are installed."""
    bin = Path(sys.executable).parent
    tool, *options = ("clang-format", f"--assume-filename={name}") if "csrc" in name else (
        "ruff", "format", "--stdin-filename", name, "-")  # fmt: skip
    if not (bin / tool).exists():
        pytest.skip(f"{tool} is not installed")
    text = SOURCES[name] if name.endswith((".py", ".cu", ".cpp", ".h")) else ""
    done = subprocess.run([bin / tool, *options], input=text, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == text
