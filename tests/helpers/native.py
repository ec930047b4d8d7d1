"""What runs kernels in tests: the interpreter, or a GPU through the module nvcc made of the same sources."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch

SCHEDULES = [("ordered", "late", 0), ("reversed", "early", 0), ("random", "random", 1), ("random", "late", 2)]


def why_no_wgmma() -> str | None:
    """Why the GPU here runs no kernel that uses wgmma: it is no Hopper, or the build has no code for it."""
    if not torch.cuda.is_available():
        return None
    from cnnkernels import native

    return native.load("cuda").module.this_gpu().why_not_wgmma


class Runner:
    """A native module, and where its kernels run. What derives from it launches kernels of one kind."""

    def __init__(self, module: ModuleType, device: str) -> None:
        self.module = module
        self.device = device

    @property
    def interprets(self) -> bool:
        return self.device == "cpu"


class PrimitiveRunner(Runner):
    """Runs the kernels of tests/csrc over numpy arrays: those passed as arrays are copied there and back."""

    def needs_hopper(self) -> None:
        """Skips on a GPU that has no TMA and wgmma: the kernels are compiled for sm_90a alone."""
        if not self.interprets and (why := why_no_wgmma()):
            pytest.skip(why)

    def run(self, name: str, *values: int | bool | np.ndarray | Host) -> None:
        copies = {}
        numbers = []
        for value in values:
            if isinstance(value, np.ndarray):
                bytes_there = torch.from_numpy(value.reshape(-1).view(np.uint8)).to(self.device)
                if self.interprets:  # numpy's memory is not aligned as a GPU's is
                    bytes_there = aligned_copy(bytes_there)
                copies[id(value)] = (value, bytes_there)
                numbers.append(bytes_there.data_ptr())
            elif isinstance(value, Host):
                numbers.append(value.address(self, copies))
            else:
                numbers.append(int(value))
        self.module.run(name, *numbers)
        if not self.interprets:
            torch.cuda.synchronize()
        for value, bytes_there in copies.values():
            value.reshape(-1).view(np.uint8)[:] = bytes_there.cpu().numpy()


class Host:
    """Numbers a launcher reads on the host: a row of int64, in which arrays stand for their addresses there."""

    def __init__(self, *fields: int | np.ndarray) -> None:
        self.fields = fields

    def address(self, runner: Runner, copies: dict) -> int:
        numbers = []
        for field in self.fields:
            if isinstance(field, np.ndarray):
                there = torch.from_numpy(field.reshape(-1).view(np.uint8)).to(runner.device)
                there = aligned_copy(there)
                copies[id(field)] = (field, there)
                numbers.append(there.data_ptr())
            else:
                numbers.append(int(field))
        self.numbers = np.array(numbers, np.int64)
        return self.numbers.ctypes.data


def aligned_copy(tensor: torch.Tensor, alignment: int = 256) -> torch.Tensor:
    """A copy that begins at a multiple of `alignment`."""
    storage = torch.empty(len(tensor) + alignment, dtype=tensor.dtype, device=tensor.device)
    start = -storage.data_ptr() % alignment
    copy = storage[start : start + len(tensor)]
    copy.copy_(tensor)
    return copy


def emulated_tests() -> ModuleType:
    """Skips where there is no nvcc, whose objects it is made of."""
    return pytest.importorskip("cnnkernels._emulated_tests", reason="needs nvcc when building")


def interpreter_tests() -> ModuleType:
    return importlib.import_module("cnnkernels._interpreter_tests")


RUNNERS = [
    *[pytest.param(schedule, id="-".join(map(str, schedule[:2]))) for schedule in SCHEDULES],
    pytest.param("ptx", id="ptx"),
    pytest.param(None, id="gpu", marks=pytest.mark.gpu),
]


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest):
    """The interpreter in several orders of threads and of asynchronous work, the emulator in one, and a GPU."""
    if request.param is None:
        yield PrimitiveRunner(importlib.import_module("cnnkernels._cuda_tests"), "cuda")
        return
    emulated = request.param == "ptx"
    module = emulated_tests() if emulated else interpreter_tests()
    before = module.schedule()
    order, delivery, seed = ("random", "late", 1) if emulated else request.param
    module.set_schedule(order=order, delivery=delivery, seed=seed)
    gpu = module.standing_for() if emulated else ""
    if emulated:
        module.stand_for("h200")  # which has every instruction, whatever GPU this process emulates
    yield PrimitiveRunner(module, "cpu")
    if emulated:
        module.stand_for(gpu)
    module.set_schedule(order=before["order"], delivery=before["delivery"], seed=before["seed"])


def pointers(*arguments: object) -> list[object]:
    """Tensors as their addresses."""
    return [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]
