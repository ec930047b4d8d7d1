"""The kernels of int8_max_pool2d and int8_avg_pool2d over tensors."""

from __future__ import annotations

from torch import Tensor

from ..geometry import Pool2dGeometry
from .launching import Launching, dtype_code


class Int8Pool2dKernels(Launching):
    def int8_max_pool2d(self, input: Tensor, output: Tensor, geometry: Pool2dGeometry) -> None:
        """`input` and `output` int8 or uint8, channels_last."""
        self._launch("int8_max_pool2d", (input, output), dtype_code(input.dtype), self._geometry(geometry))

    def int8_avg_pool2d(
        self,
        input: Tensor,
        output: Tensor,
        geometry: Pool2dGeometry,
        zero_point: int,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> None:
        numbers = zero_point, count_include_pad, divisor_override or 0
        self._launch("int8_avg_pool2d", (input, output), dtype_code(input.dtype), self._geometry(geometry), *numbers)
