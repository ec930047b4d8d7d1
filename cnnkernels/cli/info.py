"""`cnnkernels info`: what is installed and built, and which backend serves a call and why."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .. import __version__, backends, certified, environment
from ..certified.absent import why_no_gpu
from ..native import BUILD_HINT
from ..operators import OPERATORS
from ..ops.conv_kernel import tf32_allowed
from ..records import tuned


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _native(name: str) -> str | ModuleType:
    """A native module, or why it is not there."""
    if importlib.util.find_spec(f"cnnkernels.{name}") is None:
        return f"not built: {BUILD_HINT}" + (" (needs nvcc)" if name != "_interpreter" else "")
    try:
        return importlib.import_module(f"cnnkernels.{name}")
    except ImportError as error:
        return f"built, but cannot be loaded: {error}"


def _cuda(version: int) -> str:
    return f"CUDA {version // 1000}.{version % 1000 // 10}"


def built(module: Any) -> str:
    """What a native module was compiled for, of _cuda also with what and what that needs; or why it is not there."""
    if isinstance(module, str):
        return module
    line, (runtime, _) = f"built for {module.built_for}", module.cuda_versions()
    if runtime:
        line += f", with {_cuda(runtime)}, which needs release {module.oldest_driver(runtime)} of the driver or later"
    return line


def emulated(module: Any) -> str:
    """What is built, how much PTX lies beside it, and the GPU it stands for; or why it is not there."""
    if isinstance(module, str):
        return module
    archive = Path(module.__file__).with_name("_emulated.zip")
    size = f"{archive.stat().st_size / 2**20:.1f} MiB of PTX" if archive.exists() else f"no {archive.name} beside it"
    try:
        return f"built for {module.built_for}; {size}; stands for {module.standing_for()}"
    except ValueError as error:
        return f"{size}; {error}"


def driver(module: Any) -> str:
    """Which CUDA the driver serves, and whether that is enough for what `_cuda` was compiled with."""
    if isinstance(module, str):
        return "unknown without the cuda kernels"
    versions = module.cuda_versions()
    return module.why_not_driver(*versions) or f"serves {_cuda(versions[1])}"


def able(machine: Any) -> str:
    """What the build can do on a GPU, as `_cuda.this_gpu` has it, or the error that came instead."""
    if isinstance(machine, Exception):
        return f"no kernel runs: {machine}"
    return f"wgmma kernels: {'no, ' + machine.why_not_wgmma if machine.why_not_wgmma else 'yes'}"


def _triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: `pip install triton`"
    return "compiled at their first call on a GPU; interpreted without one"


def _gpus(module: Any) -> list[str]:
    if not torch.cuda.is_available():
        return [f"PyTorch sees none: {why_no_gpu()}"]
    gpus: list[str] = []
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        gpus.append(f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB")
        if not isinstance(module, str):
            with torch.cuda.device(index):
                try:
                    gpus.append(f"  {able(module.this_gpu())}")
                except RuntimeError as error:
                    gpus.append(f"  {able(error)}")
        gpus += [f"  {line}" for line in _certified(torch.device("cuda", index))]
    return gpus


def _certified(device: torch.device) -> list[str]:
    """What its certificate says, and which engines gave way or took their operator with them."""
    found = certified.certificate(device)
    if found is None:
        return [f"kernels: not proved, so that PyTorch's own operators serve: `{certified.COMMAND}`"]
    good = len(found.families) - len(found.failed)
    lines = [f"kernels: {good} of {len(found.families)} families certified, {found.since}"]
    return lines + [f"  not {name}: {why}" for name, why in found.failed.items()]


def _served() -> list[str]:
    """Who serves a call, one line a decision; operators and types that are decided alike stand together."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda", torch.cuda.current_device()))
    lines = []
    for device in devices:
        groups: dict[tuple[str, tuple[torch.dtype, ...]], list[str]] = {}
        for op, operator in OPERATORS.items():
            others = () if operator.int8 else (torch.complex64, torch.int8)  # those of INT8 take no other types
            for dtype in (*operator.dtypes, *others):
                decision = backends.choose(backends.problem_on(op, device, dtype))
                name = str(dtype).removeprefix("torch.")
                answer = f"{decision.backend or 'nobody'}: {decision.reason}"
                if decision.backend is not None:
                    answer += "".join(f"\n      not {other}: {why}" for other, why in decision.rejected)
                key = answer.replace(f"not {name}", "not this type"), operator.dtypes
                groups.setdefault(key, []).append(f"{op} {name}")
        for (answer, _), calls in groups.items():
            ops = list(dict.fromkeys(call.split()[0] for call in calls))
            dtypes = list(dict.fromkeys(call.split()[1] for call in calls))
            lines.append(f"  {', '.join(ops)} of {', '.join(dtypes)} on {device.type}:\n    {answer}")
    return lines


def _variables() -> list[str]:
    """Those that are set and begin as the project's or Triton's do; a misspelt one is read by nobody."""
    found = {name: value for name, value in os.environ.items() if name.startswith(("CNNKERNELS_", "TRITON_"))}
    misspelt = {name for name in found if name.startswith("CNNKERNELS_")} - set(environment.VARIABLES)
    return [f"{name}={value}" + " (nobody reads it)" * (name in misspelt) for name, value in sorted(found.items())]


def _tuned() -> list[str]:
    """What `cnnkernels tune` measured that holds here, and why other tables do not."""
    lines = []
    for name in dict.fromkeys(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))):
        calls = sum(map(len, tuned.choices(name).values()))
        rows = sum(len(tuned.plans(name, backend)) for backend in backends.KERNEL_BACKENDS)
        lines += [f"{name}: {calls} calls and {rows} plans of conv2d", *tuned.ignored(name)]
    return lines


def _fp32() -> str:
    setting = "torch.backends.cudnn.conv.fp32_precision"
    if tf32_allowed(torch.float32):
        return f'multiplied in TF32: {setting} is "tf32", "ieee" switches that off'
    now = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return f'multiplied in fp32: {setting} is "{now}", "tf32" allows TF32'


def run() -> int:
    """Prints it all; always 0."""
    print(f"cnnkernels {__version__} in {Path(__file__).parent.parent}")
    of_torch = f"torch {torch.__version__} (CUDA {torch.version.cuda or 'none'})"
    print(f"Python {platform.python_version()}, {of_torch}, triton {_version('triton')}")
    cuda = _native("_cuda")
    print("\nKernels")
    print(f"  cuda         {built(cuda)}")
    print(f"  interpreter  {built(_native('_interpreter'))}")
    print(f"  emulated     {emulated(_native('_emulated'))}")
    print(f"  triton       {_triton()}")
    print("\nGPU")
    print(*(f"  {gpu}" for gpu in _gpus(cuda)), sep="\n")
    print(f"  driver: {driver(cuda)}")
    if measured := _tuned():
        print("\nTuned")
        print(*(f"  {line}" for line in measured), sep="\n")
    if variables := _variables():
        print("\nEnvironment")
        print(*(f"  {variable}" for variable in variables), sep="\n")
    print("\nfp32 in convolutions, on a GPU and in the interpreters")
    print(f"  {_fp32()}")
    print(f"\nWhat serves a call, asked for {backends.requested()}")
    print(*_served(), sep="\n")
    return 0
