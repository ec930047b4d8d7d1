"""What can be known without a GPU: the host's part of a call, imports, the interpreters, the build.

A layer's host time is that of a call on so little work that the rest is nothing, in seconds of the processor, so that
other programs on it do not count. Through `auto` on CPU tensors our layers run PyTorch's operators, so what is compared
is what stands above them. On the way to a kernel the kernel itself is left out: everything up to the native module's
function runs, which then does nothing. On a GPU that way is measured whole, by calls that are not waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from cnnkernels import backends, native, replace_layers, use_backend
from cnnkernels.testing.cases import ConvCase

from .machine import ROOT, versions
from .summary import table

GOAL_CALL, GOAL_RATIO, GOAL_IMPORT = 25.0, 1.1, 0.3  # µs, times torch.nn's, seconds
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv2d 3x3": (lambda: nn.Conv2d(4, 4, 3, padding=1), (1, 4, 6, 6)),
    "Conv2d 1x1": (lambda: nn.Conv2d(4, 4, 1), (1, 4, 6, 6)),
    "Conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (1, 4, 6, 6)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), (1, 4, 6, 6)),
}


def microseconds(call: Callable[[], Any], other: Callable[[], Any], calls: int, rounds: int) -> tuple[float, float]:
    """Medians a call of both, in turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for one in (call, other):
        for _ in range(calls // 4 + 1):
            one()
    for _ in range(rounds):
        for one, times in zip((call, other), taken, strict=True):
            started = time.process_time()
            for _ in range(calls):
                one()
            times.append(1e6 * (time.process_time() - started) / calls)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _steps(layer: nn.Module, x: Tensor) -> dict[str, Callable[[], Any]]:
    """A layer's call without and with gradients."""

    def infer() -> Any:
        with torch.no_grad():
            return layer(x)

    leaf = x.clone().requires_grad_()
    wanted = [leaf, *layer.parameters()]
    dy = torch.ones_like(layer(x)).detach()
    return {
        "forward": infer,
        "forward and backward": lambda: torch.autograd.grad(layer(leaf), wanted, dy),
    }


class _Idle:
    """A native module whose kernels do nothing; it sizes workspaces as the real one does."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.module, name)
        return real if isinstance(real, type) or name.endswith("workspace") else lambda *arguments: None


@contextlib.contextmanager
def kernels_left_out() -> Iterator[None]:
    """CPU tensors take the way to the CUDA kernels, up to the call of the native module."""
    idle = native.NativeKernels(_Idle(native.load("interpreter").module), "cpu")  # type: ignore[arg-type]
    before = backends.kernels, backends.why_missing
    backends.kernels = lambda backend, device: idle  # type: ignore[assignment]
    backends.why_missing = lambda backend, device: None  # type: ignore[assignment]
    backends.remembered_serving.cache_clear()
    try:
        with use_backend("cuda"):
            yield
    finally:
        backends.kernels, backends.why_missing = before  # type: ignore[assignment]
        backends.remembered_serving.cache_clear()


def calls(calls: int = 200, rounds: int = 15) -> list[dict[str, Any]]:
    """Each layer's host time beside torch.nn's, through `auto` on the CPU and on the way to a kernel."""
    found = []
    gpu = torch.cuda.is_available()
    for name, (make, shape) in LAYERS.items():
        torch.manual_seed(0)
        theirs = make()
        ours = replace_layers(theirs).model
        x = torch.randn(shape)
        paths: list[tuple[str, contextlib.AbstractContextManager[Any], str]] = [
            ("auto, CPU", use_backend("auto"), "cpu"),
            ("to a kernel", use_backend("cuda") if gpu else kernels_left_out(), "cuda" if gpu else "cpu"),
        ]
        for path, scope, device in paths:
            theirs.to(device), ours.to(device)
            with scope:
                reference = _steps(theirs, x.to(device))
                for step, call in _steps(ours, x.to(device)).items():
                    mine, torchs = microseconds(call, reference[step], calls, rounds)
                    found.append({"layer": name, "path": path, "step": step, "us": mine, "torch_us": torchs})
    return found


def import_seconds(rounds: int = 5) -> dict[str, float]:
    """Seconds to import torch, and then cnnkernels, in new processes."""
    program = (
        "import time; a = time.perf_counter(); import torch; b = time.perf_counter(); import cnnkernels;"
        "print(b - a, time.perf_counter() - b)"
    )
    taken = []
    for _ in range(rounds):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        taken.append([float(word) for word in done.stdout.split()])
    torchs, ours = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"torch": torchs, "cnnkernels": ours}


THROUGHPUT = ConvCase("throughput", 1, 32, 16, 16, 32, 3, 3, padding=(1, 1, 1, 1))


def throughput() -> dict[str, float]:
    """Multiply-adds a second of a 3x3 convolution in fp32, by interpreter; needs CNNKERNELS_INTERPRET=1."""
    x, w = torch.randn(THROUGHPUT.input_shape), torch.randn(THROUGHPUT.weight_shape)
    g = THROUGHPUT.geometry
    products = g.n * g.p * g.q * g.k * g.c * g.r * g.s
    found = {}
    for backend in backends.available_backends("cpu"):
        if backend == "reference":
            continue
        kernels = backends.kernels(backend, "cpu")
        y = torch.empty(THROUGHPUT.output_shape)
        taken = []
        for _ in range(4):
            started = time.perf_counter()
            kernels.conv_forward(x, w, None, y, g, 0, False)
            taken.append(time.perf_counter() - started)
        found[backend] = products / min(taken[1:])
    return found


def interpreter_throughput() -> dict[str, float]:
    """`throughput` in a process in which the interpreters serve CPU tensors."""
    program = "import json; from benchmarks.host import throughput; print(json.dumps(throughput()))"
    path = os.pathsep.join(entry for entry in (os.environ.get("PYTHONPATH"), str(ROOT)) if entry)
    environment = {**os.environ, "CNNKERNELS_INTERPRET": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def recorded_build(log: Path = ROOT / "build" / "native" / ".ninja_log") -> dict[str, Any]:
    """What ninja noted of the build that is there: seconds of all its steps together, and the slowest."""
    if not log.is_file():
        return {}
    steps: dict[str, float] = {}
    for line in log.read_text().splitlines():
        if not line.startswith("#"):
            begin, end, _, target, _ = line.split("\t")
            steps[target] = (int(end) - int(begin)) / 1e3
    slowest = sorted(steps, key=steps.__getitem__, reverse=True)[:5]
    return {"steps": len(steps), "seconds": sum(steps.values()), "slowest": {name: steps[name] for name in slowest}}


def clean_build_and_tests() -> dict[str, float]:
    """Seconds of a build from nothing, without a compiler cache, and of the tests, in a copy of the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.so", "results"))
        environment = {**os.environ, "CCACHE_DISABLE": "1", "CNNKERNELS_BUILD_TESTS": "1", "PYTHONPATH": str(copy)}
        tree = copy / "build" / "tree"
        steps = {
            "build": ["setup.py", "--quiet", "build", "--build-lib", str(tree)],
            "tests": ["-m", "pytest", "-q"],
        }
        found = {}
        for name, arguments in steps.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=copy, env=environment, check=name == "build")
            found[name] = time.perf_counter() - started
            environment |= {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
        return found


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def about() -> dict[str, Any]:
    """The machine, and how busy it was: host times of a shared machine are an upper bound."""
    load = os.getloadavg()[0]
    cores = os.cpu_count() or 1
    return {"cpu": _cpu(), "cores": cores, "load": load, "shared": load > 0.5, **versions()}


def _goal(value: float, goal: float) -> str:
    return f"{'met' if value <= goal else 'missed'} (at most {goal:g})"


def lines(found: SimpleNamespace) -> list[str]:
    """The measurements as tables."""
    host = found.about
    busy = (
        f"load {host['load']:.1f} on {host['cores']} cores: {'shared, so an upper bound' if host['shared'] else 'idle'}"
    )
    text = [f"{host['cpu']}, {busy}; torch {host['torch']}, commit {host['commit']}", ""]
    rows = []
    for one in found.calls:
        ratio = one["us"] / one["torch_us"]
        goal = _goal(ratio, GOAL_RATIO) if one["path"] == "auto, CPU" else _goal(one["us"], GOAL_CALL)
        goal = goal if one["step"] == "forward" else ""
        rows.append(
            [one["layer"], one["path"], one["step"], f"{one['us']:.1f}", f"{one['torch_us']:.1f}", f"{ratio:.2f}", goal]
        )
    text += table(("layer", "path", "step", "us", "torch.nn us", "times", "goal"), rows)
    imports = found.imports
    text += ["", f"import: torch {imports['torch']:.2f} s, cnnkernels {imports['cnnkernels']:.2f} s more, "
             f"{_goal(imports['cnnkernels'], GOAL_IMPORT)}"]  # fmt: skip
    rates = ", ".join(f"{name} {rate / 1e6:.1f}" for name, rate in found.throughput.items())
    text.append(f"interpreters, million multiply-adds a second of a 3x3 convolution in fp32: {rates}")
    if found.build:
        slowest = ", ".join(f"{Path(name).name} {seconds:.0f} s" for name, seconds in found.build["slowest"].items())
        text.append(f"the build that is here: {found.build['steps']} steps, {found.build['seconds']:.0f} s; {slowest}")
    if found.clean:
        text.append(f"a clean build {found.clean['build']:.0f} s, the tests {found.clean['tests']:.0f} s")
    return text


def run(options: argparse.Namespace) -> int:
    """Measures and prints; writes JSON where --output says so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = SimpleNamespace(
            about=about(),
            calls=calls(),
            imports=import_seconds(),
            throughput=interpreter_throughput(),
            build=recorded_build(),
            clean=clean_build_and_tests() if options.clean else {},
        )
    finally:
        torch.set_num_threads(threads)
    print("\n".join(lines(found)))
    if options.output is not None:
        options.output.write_text(json.dumps(vars(found), indent=1) + "\n")
        print(f"wrote {options.output}")
    return 0
