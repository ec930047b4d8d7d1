"""Activations of codes: 256 codes have 256 results, which are looked up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import functional as F
from ..backends import traced_for_onnx, use_backend
from ..nn import onnx
from ..nn.numbered import NumberedLayer
from .formulas import HIGHEST, LOWEST


class Int8Activation(NumberedLayer):
    """The code that a function gives each code: what it stands for, the function of that, rounded.

    Args:
        function: of floats, element by element.
        code, out_code: scale and zero point of what comes and of what leaves.
        dtype: in which the function is computed.

    Buffers:
        table: int8 [256], of the codes from -128 on.
    """

    scale_names = "scale", "out_scale"
    zero_point_names = "zero_point", "out_zero_point"
    table: Tensor
    scale: float
    zero_point: int
    out_scale: float
    out_zero_point: int

    def __init__(
        self, function: nn.Module, code: tuple[float, int], out_code: tuple[float, int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.function = function
        self.scale, self.zero_point = code
        self.out_scale, self.out_zero_point = out_code
        with torch.no_grad(), use_backend("reference"):
            codes = torch.arange(LOWEST, HIGHEST + 1, dtype=torch.int8)
            numbers = F.dequantize(codes, self.scale, self.zero_point, dtype=dtype)
            made, _ = F.quantize_per_tensor(function(numbers), self.out_scale, self.out_zero_point)
        self.register_buffer("table", made)

    def forward(self, input: Tensor) -> Tensor:
        if traced_for_onnx():
            made = self.function(onnx.dequantize(input, self.scale, self.zero_point))
            return onnx.quantize(made, self.out_scale, self.out_zero_point)
        return self.table[input.int() - LOWEST]
