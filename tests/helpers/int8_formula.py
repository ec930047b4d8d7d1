"""int8_helpers' formula for the numbers of one Int8Epilogue."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cnnkernels.int8.epilogue import Int8Epilogue
from helpers.int8 import formula

EXACT_ACTIVATIONS = ("none", "relu", "relu6", "leaky_relu", "hardswish")


def bytes_of(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Bytes of the whole range, both ends among them."""
    limits = torch.iinfo(dtype)
    values = torch.randint(limits.min, limits.max + 1, shape, generator=torch.Generator().manual_seed(seed))
    flat = values.view(-1)
    flat[0] = limits.min
    flat[-1] = limits.max
    flat[len(flat) // 2] = limits.min
    return values.to(dtype)


def floats(count: int, seed: int, low: float = -3.0, high: float = 3.0) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=torch.Generator().manual_seed(seed))


def finished(sums: np.ndarray, e: Int8Epilogue, dtype: torch.dtype, residual: Tensor | None = None) -> Tensor:
    """What becomes of exact sums [rows, columns], which must fit int32; the residual as a matrix."""
    assert np.abs(sums).max() < 2**31
    if dtype is torch.int32:
        return torch.from_numpy(sums.astype(np.int32))
    numbers = e._asdict() | {"residual": residual}
    for name in ("zero_point_a", "zero_point_b", "sums_b"):
        del numbers[name]
    return formula(sums, **numbers, out_dtype=dtype)
