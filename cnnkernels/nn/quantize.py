"""Layers between floating numbers and the integers of INT8 layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..backends import traced_for_onnx
from ..dtypes import INT8_DTYPES, ROUNDED_DTYPES
from ..functional.int8_arguments import checked_scale, checked_zero_point
from . import onnx
from .numbered import NumberedLayer


class _Scaled(NumberedLayer):
    """A scale and a zero point, which are buffers too, and the output's dtype: the state_dict's extra state."""

    allowed: tuple[torch.dtype, ...]
    scale_names, zero_point_names = ("scale",), ("zero_point",)
    scale: float
    zero_point: int

    def __init__(self, scale: float, zero_point: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._set_numbers(scale, zero_point, dtype)

    def _set_numbers(self, scale: float, zero_point: int, dtype: torch.dtype) -> None:
        name = type(self).__name__
        if dtype not in self.allowed:
            names = ", ".join(str(kind) for kind in self.allowed)
            raise ValueError(f"{name}: dtype must be one of {names}, but got dtype={dtype}")
        self.scale, self.dtype = checked_scale(name, "scale", float(scale)), dtype
        # Whether integers to come are of int8 or uint8 is seen when the layer is called.
        unsigned = dtype is torch.uint8 or (dtype in ROUNDED_DTYPES and zero_point > 127)
        kind = torch.uint8 if unsigned else torch.int8
        self.zero_point = checked_zero_point(name, "zero_point", int(zero_point), kind)

    def get_extra_state(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype).removeprefix("torch.")}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._set_numbers(self.scale, self.zero_point, getattr(torch, state["dtype"]))

    def extra_repr(self) -> str:
        text = f"scale={self.scale}, zero_point={self.zero_point}, dtype={self.dtype}"
        return ", ".join(filter(None, [text, super().extra_repr()]))


class Quantize(_Scaled):
    """clamp(rint(input (1 / scale)) + zero_point) in int8 or uint8; NaN becomes zero_point.

    Args:
        scale: a positive number.
        zero_point: the integer that stands for 0.
        dtype: int8 or uint8.

    Raises:
        ValueError: scale, zero_point or dtype is none of these.

    Example:
        >>> cnnkernels.nn.Quantize(0.5)(torch.tensor([-1.0, 0.0, 0.5]))
        tensor([-2,  0,  1], dtype=torch.int8)
    """

    allowed = INT8_DTYPES

    def __init__(self, scale: float, zero_point: int = 0, dtype: torch.dtype = torch.int8) -> None:
        super().__init__(scale, zero_point, dtype)

    def forward(self, input: Tensor) -> Tensor:
        if traced_for_onnx():
            return onnx.quantize(input, self.scale, self.zero_point, self.dtype)
        with self._backend():
            return F.quantize_per_tensor(input, self.scale, self.zero_point, self.dtype)[0]


class Dequantize(_Scaled):
    """(input - zero_point) scale, in a floating dtype.

    Args:
        scale: a positive number.
        zero_point: the integer that stands for 0.
        dtype: float32, float16 or bfloat16.

    Raises:
        ValueError: scale, zero_point or dtype is none of these.

    Example:
        >>> cnnkernels.nn.Dequantize(0.5)(torch.tensor([-2, 0, 1], dtype=torch.int8))
        tensor([-1.0000,  0.0000,  0.5000])
    """

    allowed = ROUNDED_DTYPES

    def __init__(self, scale: float, zero_point: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(scale, zero_point, dtype)

    def forward(self, input: Tensor) -> Tensor:
        if traced_for_onnx():
            return onnx.dequantize(input, self.scale, self.zero_point, self.dtype)
        with self._backend():
            return F.dequantize(input, self.scale, self.zero_point, None, self.dtype)
