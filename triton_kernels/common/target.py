"""What kernels are compiled for and launched on, and what of it the choice of tiles looks at."""

from __future__ import annotations

import contextlib
import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .types import INTERPRETED

# The most registers of a thread. A kernel that is not told of them may spill a few bytes: ptxas wants to fit one more
# program on a processor.
MOST_REGISTERS = 255
# Its loads in one step of a product, as many as ptxas was seen to compile without spilling their addresses.
MOST_LOADS = 32


class Gpu(NamedTuple):
    """Its streaming multiprocessors, and the shared memory that a program of Triton's may take on one."""

    processors: int
    shared_bytes: int


# By compute capability; 0 is Triton's interpreter, one program after the other.
GPUS = {
    0: Gpu(1, 2**30),
    80: Gpu(108, 163 * 1024),
    86: Gpu(84, 99 * 1024),
    87: Gpu(16, 163 * 1024),
    89: Gpu(128, 99 * 1024),
    90: Gpu(132, 227 * 1024),
    100: Gpu(148, 227 * 1024),
    120: Gpu(170, 99 * 1024),
}


def gpu_of(arch: int) -> Gpu:
    """The newest listed GPU that is not newer."""
    return GPUS[max(known for known in GPUS if known <= arch)]


def family(arch: int) -> int:
    """Architectures of one kind of tensor core: 80 is mma.sync, 90 wgmma, 100 tcgen05 (120 has mma.sync again)."""
    if arch == 0:
        return 0
    return 90 if 90 <= arch < 100 else 100 if 100 <= arch < 120 else 80


class Target(NamedTuple):
    """What a kernel is compiled for: 90 is compute capability 9.0, 0 Triton's interpreter; `gpu` is PyTorch's name."""

    gpu: str
    arch: int


@functools.cache
def _device_target(device: torch.device) -> Target:
    major, minor = torch.cuda.get_device_capability(device)
    return Target(torch.cuda.get_device_name(device), 10 * major + minor)


def target(tensor: Tensor) -> Target:
    if tensor.is_cuda:
        return _device_target(tensor.device)
    if INTERPRETED.value:
        return Target("interpreter", 0)
    return Target("", triton.runtime.driver.active.get_current_target().arch)


def _launches_on_cpu() -> bool:
    """Whether Triton interprets, or its driver's GPU is the emulator."""
    if INTERPRETED.value:
        return True
    driver = triton.runtime.driver._active
    return driver is not None and driver.get_active_torch_device().type == "cpu"


def on(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Makes the tensor's device current for a launch.

    Raises:
        RuntimeError: for a CPU tensor, unless Triton interprets or launches in the emulator.
    """
    if tensor.is_cuda:
        return torch.cuda.device(tensor.device)
    if tensor.device.type == "cpu" and not _launches_on_cpu():
        raise RuntimeError(
            "a Triton kernel got a tensor on the CPU: only Triton's interpreter and the emulator take those, "
            "set CNNKERNELS_INTERPRET=1 or ptx (or TRITON_INTERPRET=1) before the kernels are imported"
        )
    return contextlib.nullcontext()
