"""Layers with numbers that kernels take by value: scales and zero points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from .layer import KernelLayer


class NumberedLayer(KernelLayer):
    """Keeps its numbers twice: as attributes in Python, for kernels, and in buffers, as the layer's state.

    Setting an attribute changes the buffer, and what a state_dict brings the attributes.

    Buffers:
        scales: float64, one of each of `scale_names`; 0 where the attribute is None.
        zero_points: int32, likewise.

    Attributes:
        only_for_inference: `train()` is refused, as in a model whose other parts are of the code in evaluation.
    """

    scale_names: tuple[str, ...] = ()
    zero_point_names: tuple[str, ...] = ()
    scales: Tensor
    zero_points: Tensor
    only_for_inference = False

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.scale_names:
            self._keep("scales", self.scale_names, torch.float64)[self.scale_names.index(name)] = value or 0.0
        if name in self.zero_point_names:
            self._keep("zero_points", self.zero_point_names, torch.int32)[self.zero_point_names.index(name)] = value

    def _keep(self, buffer: str, names: tuple[str, ...], dtype: torch.dtype) -> Tensor:
        if buffer not in self._buffers:
            device = next((tensor.device for tensor in self._buffers.values() if tensor is not None), None)
            self.register_buffer(buffer, torch.zeros(len(names), dtype=dtype, device=device))
        return self.get_buffer(buffer)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if f"{prefix}scales" in state_dict:
            for name, scale in zip(self.scale_names, state_dict[f"{prefix}scales"].tolist(), strict=True):
                setattr(self, name, scale or None)
        if f"{prefix}zero_points" in state_dict:
            for name, zero_point in zip(
                self.zero_point_names, state_dict[f"{prefix}zero_points"].tolist(), strict=True
            ):
                setattr(self, name, zero_point)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Follows to another device or memory, never to another dtype."""

        def keeping_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keeping_dtype, recurse)

    def train(self, mode: bool = True) -> Any:
        if mode and self.only_for_inference:
            refuse_training()
        return super().train(mode)


def refuse_training() -> NoReturn:
    raise RuntimeError(
        "an INT8 model is for inference, not for train(): train the float model, or what prepare_qat makes of it"
    )
