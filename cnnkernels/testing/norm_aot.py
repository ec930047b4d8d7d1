"""Calls of batch_norm's Triton kernels to compile for GPUs that are not there (triton_aot.py)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..activation import ACTIVATIONS
from ..dtypes import FLOATING


@dataclass(frozen=True)
class NormCall:
    """batch_norm of [outer, channels, inner] with a residual and an activation, all gradients, and those of a gradient,
    for one architecture."""

    reason: str
    sizes: tuple[int, int, int]
    dtype: str
    arch: int
    activation: str = "relu"

    @property
    def specialization(self) -> str:
        return f"{self.dtype} {self.reason} {self.activation}"

    def __call__(self) -> None:
        from .. import triton_kernels as kernels

        dtype = FLOATING[self.dtype]
        wide = torch.float64 if dtype is torch.float64 else torch.float32

        def images() -> Tensor:
            return torch.empty(self.sizes, dtype=dtype, device="meta")

        def vector(*before: int) -> Tensor:
            return torch.empty((*before, self.sizes[1]), dtype=wide, device="meta")

        x, residual, y, dy, dx, dr = (images() for _ in range(6))
        mean, var, weight, bias, dw, db = (vector() for _ in range(6))
        numbers, which = (mean, var, weight, bias), ACTIVATIONS.index(self.activation)
        kernels.batch_norm_statistics(x, mean, var, vector(), vector(), 0.1, self.sizes)
        kernels.batch_norm_normalize(x, residual, y, numbers, 1e-5, which, 0.0, self.sizes)
        gradients = dx, dw, db, dr
        kernels.batch_norm_backward(dy, x, residual, y, numbers, 1e-5, which, 0.0, True, gradients, self.sizes)
        kernels.batch_norm_sums(x, dy, mean, vector(2), self.sizes)
        kernels.batch_norm_combine(x, dy, y, dx, (dw, mean, db, weight, bias), self.sizes)


# ResNet-50's first norm, by planes and by pixels: nothing is allocated.
PLANES, PIXELS = (32, 64, 112 * 112), (32 * 112 * 112, 64, 1)


def norm_calls(arch: int) -> list[NormCall]:
    """In every type and order of memory; in bf16 with an activation of exponentials too."""
    found = [
        NormCall(reason, sizes, dtype, arch)
        for reason, sizes in (("planes", PLANES), ("pixels", PIXELS))
        for dtype in FLOATING
    ]
    return [*found, NormCall("pixels", PIXELS, "bf16", arch, "silu")]
