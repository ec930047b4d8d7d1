"""What every operator's launchers share: numbers for types, structs for geometries, the device and its stream."""

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


class Launching:
    """A native module and how to call it."""

    def __init__(self, module: ModuleType, device_type: str) -> None:
        self.module = module
        self.device_type = device_type
        self._geometry = functools.lru_cache(maxsize=4096)(self._native_geometry)

    def _native_geometry(self, geometry: ConvGeometry | PoolGeometry) -> Any:
        return getattr(self.module, type(geometry).__name__)(*geometry)

    def _on(self, tensor: Tensor) -> tuple[contextlib.AbstractContextManager[Any], int]:
        """The device to make current and the stream to launch on."""
        if self.device_type != "cuda":
            return contextlib.nullcontext(), 0
        return torch.cuda.device(tensor.device), torch.cuda.current_stream(tensor.device).cuda_stream

    def _launch(
        self, name: str, tensors: tuple[Tensor, *tuple[Tensor | None, ...]], *numbers: Any, last: tuple[Any, ...] = ()
    ) -> None:
        """Calls name(addresses..., numbers..., stream, last...) on the first tensor's device and current stream."""
        device, stream = self._on(tensors[0])
        with device:
            getattr(self.module, name)(*map(address, tensors), *numbers, stream, *last)

    def _workspace(self, name: str, on: Tensor, *numbers: Any) -> Tensor:
        """As many bytes as name_workspace(numbers...) asks for on a tensor's device."""
        device, _ = self._on(on)
        with device:
            size = getattr(self.module, f"{name}_workspace")(*numbers)
        return torch.empty(size, dtype=torch.uint8, device=on.device)
