"""Operands of tensor cores as numpy arrays of their bits."""

from __future__ import annotations

import numpy as np

FORMATS = {"float16": 0, "bfloat16": 1, "tf32": 2, "int8": 3, "float64": 4, "uint8": 5}


def to_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Small integers in the operand format: the dtype is that of its bits, except of 8-bit integers and float64."""
    if name == "float16":
        return values.astype(np.float16).view(np.uint16)
    if name == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if name == "tf32":
        return values.astype(np.float32).view(np.uint32)
    return values.astype({"int8": np.int8, "uint8": np.uint8, "float64": np.float64}[name])


def accumulator_dtype(name: str) -> type:
    return {"int8": np.int32, "uint8": np.int32, "float64": np.float64}.get(name, np.float32)


def integers(rng: np.random.Generator, name: str, *shape: int) -> np.ndarray:
    """Integers whose products sum to exact results in the format."""
    least, most = {"int8": (-128, 127), "uint8": (0, 255)}.get(name, (-7, 7))
    return rng.integers(least, most + 1, shape)
