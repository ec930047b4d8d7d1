"""The one table of element types: their names in tables and options, PyTorch's dtypes, and the kernels' numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Element(NamedTuple):
    """code: the number in csrc/common/types.h; tf32: whether products round their operands to TF32."""

    name: str
    dtype: torch.dtype
    code: int
    tf32: bool = False


ELEMENTS = {
    element.name: element
    for element in (
        Element("fp64", torch.float64, 0),
        Element("fp32", torch.float32, 1),
        Element("tf32", torch.float32, 1, tf32=True),
        Element("fp16", torch.float16, 2),
        Element("bf16", torch.bfloat16, 3),
        Element("int8", torch.int8, 4),
        Element("uint8", torch.uint8, 5),
        Element("uint16", torch.uint16, 6),
        Element("int32", torch.int32, 7),
        Element("int64", torch.int64, 8),
    )
}

# Floating types as products take them: dtype, tf32.
PRODUCTS: dict[str, tuple[torch.dtype, bool]] = {
    name: (element.dtype, element.tf32) for name, element in ELEMENTS.items() if element.dtype.is_floating_point
}
FLOATING: dict[str, torch.dtype] = {name: dtype for name, (dtype, tf32) in PRODUCTS.items() if not tf32}
FLOATING_DTYPES = tuple(FLOATING.values())
# What an fp32 epilogue is rounded to.
ROUNDED: dict[str, torch.dtype] = {name: dtype for name, dtype in FLOATING.items() if name != "fp64"}
ROUNDED_DTYPES = tuple(ROUNDED.values())
HALF_DTYPES = tuple(dtype for dtype in FLOATING_DTYPES if dtype.itemsize == 2)
INT8_DTYPES = torch.int8, torch.uint8

_CODES = {element.dtype: element.code for element in ELEMENTS.values()}
_NAMES = {element.dtype: name for name, element in ELEMENTS.items() if not element.tf32}


def dtype_code(dtype: torch.dtype) -> int:
    """The number of a type in csrc/common/types.h."""
    return _CODES[dtype]


def dtype_name(dtype: torch.dtype, tf32: bool = False) -> str:
    """By which tables call a type; `tf32` counts of float32 alone."""
    return "tf32" if tf32 and dtype is torch.float32 else _NAMES[dtype]
