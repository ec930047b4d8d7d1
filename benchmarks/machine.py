"""The machine a run is on: what a result must name, and the ceilings it is held against, measured in the same run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cnnkernels.dtypes import ELEMENTS
from cnnkernels.tuning.timing import ONCE, GpuChain, HostChain, Patience, in_turns

from .providers import flags

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Machine:
    """A GPU, or a CPU where only whether things run is of interest."""

    name: str
    device: str
    l2_bytes: int
    memory_bytes: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.name.lower()).split())


@dataclass(frozen=True)
class Ceilings:
    """What the machine does at best: bytes a second copied, operations a second multiplied, by type."""

    copy: float
    rates: dict[str, float]

    def floor(self, flops: float, nbytes: float, dtype: str) -> float:
        """Microseconds below which no kernel can be: its operations at the best rate, or its bytes."""
        return 1e6 * max(flops / self.rates[dtype] if flops else 0.0, nbytes / self.copy)

    def __str__(self) -> str:
        rates = "".join(f", {name} {rate / 1e12:.0f} TFLOP/s" for name, rate in self.rates.items())
        return f"copy {self.copy / 1e12:.2f} TB/s{rates}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """What a command prints, None where it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def commit() -> str:
    """The commit that runs, with a mark where files differ from it; "unknown" outside of a repository."""
    return os.environ.get("CNNKERNELS_COMMIT") or _output("git", "describe", "--always", "--dirty") or "unknown"


def sources() -> str:
    """Twelve digits that change when a kernel, its caller or the way of measuring does."""
    digest = hashlib.sha256()
    folders = ("csrc", "triton_kernels", "cnnkernels", "benchmarks")
    suffixes = {".cu", ".cuh", ".h", ".cpp", ".py", ".json"}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and RESULTS not in path.parents:
                digest.update(str(path.relative_to(ROOT)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def versions() -> dict[str, Any]:
    """What the results depend on beside the hardware."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "triton": _version("triton"),
        "commit": commit(),
        "sources": sources(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


# nvidia-smi's fields; clocks in MHz, limits in watts
CLOCKS = (
    *("clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem"),
    *("power.limit", "temperature.gpu", "driver_version"),
)


def clocks() -> dict[str, str]:
    """The GPU's clocks now, empty where nvidia-smi cannot tell."""
    index = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    line = _output("nvidia-smi", f"--id={index}", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader,nounits")
    values = [word.strip() for word in line.splitlines()[0].split(",")] if line else []
    return dict(zip(CLOCKS, values, strict=False)) if len(values) == len(CLOCKS) else {}


def this_machine() -> Machine:
    """The current GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return Machine(f"CPU {platform.machine()}", "cpu", 1, 2**34, {"cpu": True})
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    about = {
        "capability": f"{gpu.major}.{gpu.minor}",
        "multiprocessors": gpu.multi_processor_count,
    }
    return Machine(gpu.name, "cuda", gpu.L2_cache_size, gpu.total_memory, about)


def ceilings(machine: Machine, types: tuple[str, ...]) -> Ceilings:
    """Copies and multiplies random numbers until the clocks are warm, then takes the time."""
    gpu = machine.device == "cuda"
    patience = Patience(seconds=0.3, most_seconds=1.5, warm_up=5) if gpu else ONCE
    side, size = (8192, 1 << 30) if gpu else (64, 1 << 12)

    def microseconds(work: Callable[[], object]) -> float:
        chain = GpuChain(lambda _: work, 1, torch.cuda.Stream()) if gpu else HostChain(lambda _: work, 1)
        return in_turns({"": chain}, patience)[""].median

    rates = {}
    for dtype in types:
        rates[dtype] = 2.0 * side**3 / microseconds(_product(dtype, side, machine.device)) * 1e6
    source = torch.empty(size, dtype=torch.uint8, device=machine.device).random_(0, 256)
    target = torch.empty_like(source)
    copy = 2.0 * size / microseconds(lambda: target.copy_(source)) * 1e6
    return Ceilings(copy, rates)


def _product(dtype: str, side: int, device: str) -> Callable[[], object]:
    if dtype == "int8":
        a, b = (torch.randint(-128, 128, (side, side), dtype=torch.int8, device=device) for _ in range(2))
        return lambda: torch._int_mm(a, b.t())
    x, y = (torch.randn(side, side, device=device).to(ELEMENTS[dtype].dtype) for _ in range(2))

    def multiply() -> object:
        with flags(tf32=dtype == "tf32"):
            return x @ y

    return multiply


def session(machine: Machine, measured: Ceilings) -> dict[str, Any]:
    """Everything a result must name, as one line of a result file."""
    return {
        "gpu": machine.name,
        "device": machine.device,
        "l2_bytes": machine.l2_bytes,
        "memory_bytes": machine.memory_bytes,
        **machine.about,
        **versions(),
        "clocks": clocks() if machine.device == "cuda" else {},
        "ceilings": asdict(measured),
    }
