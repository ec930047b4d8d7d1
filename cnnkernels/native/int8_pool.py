"""The kernels of int8_max_pool and int8_avg_pool over tensors."""

from __future__ import annotations

from torch import Tensor

from ..dtypes import dtype_code
from ..geometry import PoolGeometry
from .launching import Launching


class Int8PoolKernels(Launching):
    def int8_max_pool(self, input: Tensor, output: Tensor, geometry: PoolGeometry) -> None:
        """`input` and `output` int8 or uint8, channels_last."""
        self._launch("int8_max_pool", (input, output), dtype_code(input.dtype), self._geometry(geometry))

    def int8_avg_pool(
        self,
        input: Tensor,
        output: Tensor,
        geometry: PoolGeometry,
        zero_point: int,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> None:
        numbers = zero_point, count_include_pad, divisor_override or 0
        self._launch("int8_avg_pool", (input, output), dtype_code(input.dtype), self._geometry(geometry), *numbers)
