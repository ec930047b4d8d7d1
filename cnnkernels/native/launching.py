"""What every operator's launchers share: numbers for types, structs for geometries, the device and its stream, and in
the emulator the memory that a kernel may touch."""

from __future__ import annotations

import contextlib
import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..geometry import ConvGeometry, PoolGeometry


def address(tensor: Tensor | None) -> int:
    """Where a tensor's data begins; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def scratch(size: int, device: torch.device) -> Tensor:
    """Bytes that a launch fills and reads; nothing reads them before."""
    return torch.empty(size, dtype=torch.uint8, device=device)


class Touching:
    """While entered, an emulated launch that leaves the memory of these tensors is a fault."""

    WORD = 4  # a kernel of bytes may read the aligned word that holds its tensor's last

    def __init__(self, module: ModuleType, values: tuple[Any, ...]) -> None:
        self.module = module
        self.tensors = [value for value in values if isinstance(value, Tensor)]

    def __enter__(self) -> None:
        storages = [tensor.untyped_storage() for tensor in self.tensors]
        self.module.set_memory([(s.data_ptr(), -(-s.nbytes() // self.WORD) * self.WORD) for s in storages])

    def __exit__(self, *_: object) -> None:
        self.module.set_memory([])


class Launching:
    """A native module and how to call it."""

    def __init__(self, module: ModuleType, device_type: str) -> None:
        self.module = module
        self.device_type = device_type
        self.scratch = scratch  # where workspaces come from: a proof puts guards around them
        self._emulated = hasattr(module, "set_memory")
        self._geometry = functools.lru_cache(maxsize=4096)(self._native_geometry)

    def _native_geometry(self, geometry: ConvGeometry | PoolGeometry) -> Any:
        return getattr(self.module, type(geometry).__name__)(*geometry)

    def _on(self, tensor: Tensor, *others: Any) -> tuple[contextlib.AbstractContextManager[Any], int]:
        """The device to make current and the stream to launch on. `others`: the tensors among them, and the first, are
        all that the launch reads and writes."""
        if self._emulated:
            return Touching(self.module, (tensor, *others)), 0
        if self.device_type != "cuda":
            return contextlib.nullcontext(), 0
        return torch.cuda.device(tensor.device), torch.cuda.current_stream(tensor.device).cuda_stream

    def _launch(
        self,
        name: str,
        tensors: tuple[Tensor, *tuple[Tensor | None, ...]],
        *numbers: Any,
        last: tuple[Any, ...] = (),
        also: tuple[Any, ...] = (),
    ) -> None:
        """Calls name(addresses..., numbers..., stream, last...) on the first tensor's device and current stream. `also`
        has the tensors whose addresses are among numbers and last."""
        device, stream = self._on(*tensors, *also)
        with device:
            getattr(self.module, name)(*map(address, tensors), *numbers, stream, *last)

    def _workspace(self, name: str, on: Tensor, *numbers: Any) -> Tensor:
        """As many bytes as name_workspace(numbers...) asks for on a tensor's device."""
        device, _ = self._on(on)
        with device:
            size = getattr(self.module, f"{name}_workspace")(*numbers)
        return self.scratch(size, on.device)
