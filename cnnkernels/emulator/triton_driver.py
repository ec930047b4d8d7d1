"""A driver for Triton whose GPU is the emulator: kernels are compiled to PTX for a real GPU and run on CPU tensors.

Triton's interpreter runs a kernel's Python; here runs what Triton's compiler made of it. ptxas alone is left out.
`install` is called once a process, before a kernel is launched: CNNKERNELS_INTERPRET=ptx does it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends import Backend, backends
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import _allocation
from triton.runtime.driver import driver

WARP = 32
# How a scalar argument's bytes are made, by its type in a kernel's signature.
SCALARS = {"i1": "<?", "i8": "<b", "i16": "<h", "i32": "<i", "i64": "<q"}
SCALARS |= {"u1": "<?", "u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q"}
SCALARS |= {"fp16": "<e", "fp32": "<f", "f32": "<f", "fp64": "<d"}


class PtxBackend(CUDABackend):  # type: ignore[misc]  # Triton has no types
    """Triton's compiler for CUDA, which stops at PTX."""

    def __init__(self, target: GPUTarget) -> None:
        super().__init__(target)
        self.binary_ext = "ptx"

    def add_stages(self, stages: dict[str, Any], options: Any, language: Any) -> None:
        super().add_stages(stages, options, language)
        del stages["cubin"]

    def hash(self) -> str:
        return f"ptx-{self.target.arch}"


class Arguments(NamedTuple):
    """A launch's arguments as a GPU gets them: the bytes of each, and what memory they point to."""

    values: list[bytes]
    memory: list[tuple[int, int]]  # addresses and bytes


def flat(signature: Any, argument: Any) -> Iterator[tuple[str, Any]]:
    """A signature's types, each with its argument: tuples opened, constants left out."""
    if isinstance(signature, tuple | list):
        for each, value in zip(signature, argument, strict=True):
            yield from flat(each, value)
    elif signature != "constexpr":
        yield signature, argument


def pack(typed: Iterable[tuple[str, Any]]) -> Arguments:
    """Raises NotImplementedError for a type that is no scalar and no pointer."""
    values, memory = [], []
    for kind, argument in typed:
        if isinstance(argument, Tensor):
            storage = argument.untyped_storage()
            values.append(struct.pack("<Q", argument.data_ptr()))
            memory.append((storage.data_ptr(), storage.nbytes()))
        elif kind.startswith("*"):
            values.append(struct.pack("<Q", argument or 0))
        elif kind in SCALARS:
            values.append(struct.pack(SCALARS[kind], argument))
        else:
            raise NotImplementedError(f"the emulator takes no kernel argument of type {kind}: {argument!r}")
    return Arguments(values, memory)


class Profiling(NamedTuple):
    """Of each launch so many blocks run, and what they executed is given to `note` (cnnkernels/emulator/profile.py)."""

    blocks: int
    note: Callable[[dict[str, Any]], None]


_profiling: Profiling | None = None


def set_profiling(blocks: int | None, note: Callable[[dict[str, Any]], None] | None) -> None:
    """From now on, until both are None."""
    global _profiling
    _profiling = None if blocks is None or note is None else Profiling(blocks, note)


class Launcher:
    """What Triton calls to launch one compiled kernel."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.signature = tuple(source.signature.values())
        self.blocks = metadata.num_ctas  # of a program: a cluster
        self.shared = metadata.shared
        self.scratch = metadata.global_scratch_size, metadata.global_scratch_align

    def __call__(self, x: int, y: int, z: int, stream: int, kernel: Any, *others: Any) -> None:
        arguments = others[4:]  # packed metadata, launch metadata and two hooks come first
        packed = pack(flat(self.signature, arguments))
        scratch = self._scratch(x * y * z, stream)
        if scratch is not None:
            packed.memory.append((scratch.data_ptr(), scratch.nbytes))
        # After a kernel's own parameters come its scratch memory, and that of a profiler.
        extra = [struct.pack("<Q", 0 if scratch is None else scratch.data_ptr()), struct.pack("<Q", 0)]
        if x * y * z:
            kernel.launch((x * self.blocks, y, z), self.blocks, self.shared, packed, extra)

    def _scratch(self, programs: int, stream: int) -> Tensor | None:
        size, align = self.scratch
        if size == 0:
            return None
        return _allocation._allocator.get()(programs * self.blocks * size, align, stream)  # type: ignore[no-any-return]


class Loaded:
    """A kernel as the emulator holds it."""

    def __init__(self, emulator: ModuleType, ptx: str, name: str, mode: Callable[[Sequence[tuple[int, int]]], Any]):
        self.emulator, self.name, self.mode = emulator, name, mode
        self.program = emulator.parse(ptx, f"{name}.ptx")
        (self.entry,) = (entry for entry in emulator.entries(self.program) if entry.name == name)

    def launch(
        self, grid: tuple[int, int, int], cluster: int, shared: int, packed: Arguments, extra: list[bytes]
    ) -> None:
        parameters = self.entry.parameters
        values = (packed.values + extra)[: len(parameters)]
        if len(values) != len(parameters):
            raise RuntimeError(f"{self.name} has {len(parameters)} parameters and was given {len(values)}")
        block = bytearray(max((p.offset + p.bytes for p in parameters), default=0))
        for parameter, value in zip(parameters, values, strict=True):
            if len(value) != parameter.bytes:
                raise RuntimeError(
                    f"{self.name}: parameter {parameter.name} has {parameter.bytes} bytes, got {len(value)}"
                )
            block[parameter.offset : parameter.offset + parameter.bytes] = value
        how = {
            "grid": grid,
            "block": (self.entry.most_threads, 1, 1),  # .reqntid, which Triton writes: warps beyond num_warps counted
            "cluster": (cluster, 1, 1),
            "shared_bytes": shared,
        }
        if _profiling is not None:
            mode = self.emulator.Mode(late=False, races=False, memory=packed.memory)
            found = self.emulator.profile(
                self.program, self.name, **how, parameters=bytes(block), mode=mode, blocks=_profiling.blocks
            )
            return _profiling.note({**found, **how, "kernel": self.name, "registers": 0})
        self.emulator.run(self.program, self.name, **how, parameters=bytes(block), mode=self.mode(packed.memory))


class EmulatedDriver(DriverBase):  # type: ignore[misc]  # Triton has no types
    """One GPU of an architecture, with the shared memory that a block of its may take."""

    def __init__(
        self, emulator: ModuleType, arch: int, shared_bytes: int, mode: Callable[[Sequence[tuple[int, int]]], Any]
    ) -> None:
        super().__init__()
        self.emulator, self.arch, self.mode = emulator, arch, mode
        properties = {"max_shared_mem": shared_bytes, "warpSize": WARP}
        self.utils = SimpleNamespace(get_device_properties=lambda device: properties, load_binary=self._load)
        self.launcher_cls = Launcher

    def _load(self, name: str, binary: bytes, shared: int, device: int) -> tuple[Any, Loaded, int, int, int]:
        """As a CUDA driver's: module, function, registers, spills and the most threads of a block."""
        loaded = Loaded(self.emulator, binary.decode(), name, self.mode)
        return loaded.program, loaded, 0, 0, 1024

    @classmethod
    def is_active(cls) -> bool:
        return False  # only where it is asked for

    def map_python_to_cpp_type(self, ty: str) -> str:
        raise NotImplementedError("the emulator's launcher is not compiled")

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, WARP)

    def get_current_device(self) -> int:
        return self.arch  # kernels are cached by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("the emulator's time is not a GPU's: nothing is benchmarked in it")


def install(
    emulator: ModuleType, arch: int, shared_bytes: int, mode: Callable[[Sequence[tuple[int, int]]], Any]
) -> None:
    """Has Triton compile for compute capability `arch` (90 is 9.0) and launch in the emulator, from now on.

    Args:
        emulator: the module `cnnkernels._emulator`.
        arch: of the GPU that the emulator stands for.
        shared_bytes: what a block may take of its shared memory.
        mode: makes the modes of a launch, given the memory it may touch.

    Raises:
        RuntimeError: in a process where Triton interprets.
    """
    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: Triton compiles nothing in this process")
    backends["nvidia"] = Backend(compiler=PtxBackend, driver=backends["nvidia"].driver)
    driver.set_active(EmulatedDriver(emulator, arch, shared_bytes, mode))


def installed() -> bool:
    """Whether Triton launches in the emulator."""
    return isinstance(driver._active, EmulatedDriver)
