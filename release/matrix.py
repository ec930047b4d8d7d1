"""Runs tests beside other versions of PyTorch and Triton than constraints.txt pins: `make matrix`.

    python release/matrix.py [--tests PATH ...] [--workers N] [TORCH:TRITON[:PYTHON] ...]

    python release/matrix.py 2.11:3.6 2.13:3.7:3.12 --tests tests/integration tests/pool

Each combination has a virtual environment of its own in build/matrix, kept for the next time; the newest patch release
of each version is installed, other packages are constraints.txt's but for numpy and setuptools. The kernels are this
checkout's: only the bindings are compiled for another Python. Where no nvcc is found, the modules that need it are left
out, and what tests them fails, so name other tests there. The last lines say what was installed and what became of the
tests.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import wheels

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "matrix"

COMBINATIONS = ("2.11:3.6", "2.12:3.7", "2.13:3.7")
# What knows PyTorch's and Triton's insides: graphs, dispatcher, compilers, derivatives.
TESTS = (
    "tests/integration", "tests/convert", "tests/quantization", "tests/norm",
    "tests/layers/test_nn.py", "tests/layers/test_pytorch_samples.py", "tests/layers/test_errors.py",
    "tests/conv/test_functional_conv.py", "tests/conv/test_conv_triton.py",
    "tests/pool/test_functional_max_pool.py", "tests/pool/test_triton_compile_avg_pool.py",
    "tests/emulator/test_triton_driver.py",
)  # fmt: skip
HELPERS = (
    "setuptools>=77", "wheel", "pybind11", "ninja", "numpy", "safetensors", "pytest", "pytest-xdist", "hypothesis",
    "onnx", "onnxscript", "onnxruntime", "scikit-learn", "matplotlib", "rich",
)  # fmt: skip
# What a Triton cannot be beside: 3.6's interpreter makes numbers of arrays as numpy 2.4 no longer does.
OLDER = {"3.6": ["numpy<2.4"]}
SEEN = """
import importlib.metadata, json, platform
names = "torch", "triton", "numpy"
print(json.dumps({"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}))
"""
COUNTED = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")


class Combination(NamedTuple):
    torch: str
    triton: str
    python: str

    @property
    def folder(self) -> Path:
        return WORK / f"py{self.python}-torch{self.torch}-triton{self.triton}"


def combination(text: str) -> Combination:
    match = re.fullmatch(r"(\d+\.\d+):(\d+\.\d+)(?::(\d+\.\d+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not TORCH:TRITON[:PYTHON], as in 2.12:3.7 or 2.13:3.7:3.12")
    return Combination(match[1], match[2], match[3] or "{}.{}".format(*sys.version_info))


def constrained() -> Path:
    """constraints.txt without the two that vary, and without what older versions of them need an older one of."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / "constraints.txt"
    path.write_text(
        "\n".join(line for line in lines if not re.match(r"(torch|triton|setuptools|numpy)==", line)) + "\n"
    )
    return path


def prepare(of: Combination) -> Path:
    """The Python of the combination's environment, with everything installed and the kernels built for it."""
    python = of.folder / "bin/python"
    if not python.exists():
        base = wheels.found(of.python)
        if base is None:
            raise SystemExit(f"matrix.py: there is no Python {of.python} with venv and headers")
        wheels.run(base, "-m", "venv", of.folder)
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    wheels.run(
        *pip, "-c", constrained(), *HELPERS, *OLDER.get(of.triton, []), f"torch=={of.torch}.*", f"triton=={of.triton}.*"
    )
    wheels.run(*pip, "--no-deps", "--no-build-isolation", "--editable", ".")
    tests = {**os.environ, "CNNKERNELS_BUILD_TESTS": "1"}
    wheels.run(python, "setup.py", "--quiet", "build_ext", "--inplace", env=tests, stdout=subprocess.DEVNULL)
    return python


def tested(python: Path, tests: list[str], workers: int) -> tuple[int, str]:
    """pytest's status, and its last line."""
    # CXX and the like are of the build, and some tests look at what is set
    clean = {k: v for k, v in os.environ.items() if k not in ("CXX", "NVCC", "MAX_JOBS", "CCACHE_DIR")}
    command = [python, "-m", "pytest", "-q", "-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder", *tests]
    shown = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=clean, stdout=subprocess.PIPE, text=True)
    assert shown.stdout is not None
    last = ""
    for line in shown.stdout:
        print(line, end="", flush=True)
        last = line if COUNTED.search(line) else last
    return shown.wait(), last.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Tests beside other versions of PyTorch and Triton.")
    parser.add_argument("combinations", nargs="*", type=combination, metavar="TORCH:TRITON[:PYTHON]")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH", help="what to run; pytest's options too")
    parser.add_argument("--workers", type=int, default=2, help="pytest's processes (default: 2)")
    given = parser.parse_args()
    rows, bad = [], 0
    for of in given.combinations or map(combination, COMBINATIONS):
        print(f"\n== torch {of.torch}, triton {of.triton}, Python {of.python}", flush=True)
        started = time.perf_counter()
        python = prepare(of)
        seen = json.loads(subprocess.run([python, "-c", SEEN], capture_output=True, text=True, check=True).stdout)
        ready = time.perf_counter()
        status, said = tested(python, list(given.tests), given.workers)
        bad += status != 0
        times = f"{ready - started:5.0f} s to install, {time.perf_counter() - ready:5.0f} s to test"
        what = ", ".join(f"{count} {what}" for count, what in COUNTED.findall(said)) or f"pytest ended with {status}"
        rows.append(f"{' '.join(f'{name} {version:12}' for name, version in seen.items())} {times}: {what}")
    print("\n== summary", *rows, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
