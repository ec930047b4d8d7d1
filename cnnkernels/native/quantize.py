"""quantize's and dequantize's kernels over tensors."""

from __future__ import annotations

from torch import Tensor

from ..dtypes import dtype_code
from .launching import Launching, address


def _numbers(scale: float | Tensor, zero_point: int | Tensor) -> tuple[int, int, float, int]:
    """Addresses of scales and zero points (0: a number for all groups), and the numbers."""
    scales = scale if isinstance(scale, Tensor) else None
    zero_points = zero_point if isinstance(zero_point, Tensor) else None
    number = 1.0 if isinstance(scale, Tensor) else scale
    return address(scales), address(zero_points), number, 0 if isinstance(zero_point, Tensor) else zero_point


class QuantizeKernels(Launching):
    def quantize(
        self, input: Tensor, output: Tensor, scale: float | Tensor, zero_point: int | Tensor, dynamic: bool = False
    ) -> None:
        """`input` and `output` [outer, groups, inner]; a scale and a zero point for each group, or numbers for all.

        Dynamic: `scale` [groups] is written, the output is int8 and the zero point 0.
        """
        shape = tuple(input.shape)
        types = dtype_code(input.dtype), dtype_code(output.dtype)
        if not dynamic:
            numbers = *_numbers(scale, zero_point), *types, shape
            self._launch("quantize", (input, output), *numbers, also=(scale, zero_point))
            return
        if not isinstance(scale, Tensor):
            raise TypeError(f"quantize: dynamic scales are written to a tensor, but got scale={scale!r}")
        size = self.module.quantize_dynamic_workspace(shape)
        workspace = self.scratch(size, input.device).zero_() if size else None
        self._launch("quantize_dynamic", (input, output, scale, workspace), types[0], shape)

    def dequantize(self, input: Tensor, output: Tensor, scale: float | Tensor, zero_point: int | Tensor) -> None:
        """The same way back."""
        types = dtype_code(input.dtype), dtype_code(output.dtype)
        numbers = *_numbers(scale, zero_point), *types, tuple(input.shape)
        self._launch("dequantize", (input, output), *numbers, also=(scale, zero_point))
