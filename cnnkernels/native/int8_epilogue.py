"""An INT8 operator's epilogue as the native modules take it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..dtypes import dtype_code
from ..int8.epilogue import Int8Epilogue
from .launching import address


def native_epilogue(module: ModuleType, epilogue: Int8Epilogue, out_dtype: torch.dtype) -> Any:
    """A struct of numbers and addresses: the epilogue's tensors must outlive it."""
    e = epilogue
    residual_dtype = out_dtype if e.residual is None else e.residual.dtype
    return module.Int8Epilogue(
        dtype_code(out_dtype),
        _number(e.scale_a, 1.0),
        _number(e.scale_b, 1.0),
        _number(e.zero_point_a, 0),
        _number(e.zero_point_b, 0),
        address(e.sums_b),
        address(e.bias),
        address(e.residual),
        dtype_code(residual_dtype),
        e.residual_scale,
        e.residual_zero_point,
        e.code,
        e.negative_slope,
        _number(e.out_scale, 1.0),
        e.out_zero_point,
    )


def _number(value: float | Tensor, unread: float) -> tuple[float, int, int]:
    """The value, or an address and the elements from one row's or column's number to the next."""
    if isinstance(value, Tensor):
        return unread, value.data_ptr(), int(value.numel() > 1)
    return value, 0, 0
