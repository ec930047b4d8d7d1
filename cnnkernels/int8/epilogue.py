"""What becomes of an INT8 operator's int32 sums before they are stored."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..activation import ACTIVATIONS, NEGATIVE_SLOPE


class Int8Epilogue(NamedTuple):
    """The numbers of one call. Rows are a product's rows or a convolution's pixels, columns are filters.

        sum[m, n] = sum over k of (a[m, k] - zero_point_a[m]) (b[k, n] - zero_point_b[n])      in int32, exact
        x = float(sum) (scale_a[m] scale_b[n]);   x = x + bias[n];   x = x + r[m, n];   x = activation(x)
        output = sum, where it is int32
               = x rounded once, to nearest even, where it is floating
               = clamp(rint(x (1 / out_scale)) + out_zero_point), where it is int8 or uint8;
                 a product x (1 / out_scale) that is NaN gives out_zero_point

    All of it is fp32, and every operation is rounded by itself: no multiplication is fused with an addition, so that
    all backends give the same bits. r is the residual, or float(residual - residual_zero_point) residual_scale where
    that is int8 or uint8. silu and gelu alone may differ in the last bits, by the platform's exp and erf.

    A number holds for all and is passed by value. A tensor lies dense on the operands' device and has one element, or
    one for each row (of a) or column (of b).

    Fields:
        scale_a, scale_b, out_scale: fp32; a tensor of out_scale has one element.
        zero_point_a, zero_point_b: int32; a convolution has one number for a and none for b.
        bias: fp32, one a column.
        residual: of the output's shape and memory; fp32, fp16, bf16, int8 or uint8.
        activation: of `cnnkernels.activation.ACTIVATIONS`.
        sums_b: int32, the sum over k of b for each column, where it is known beforehand; a backend that needs it (a
            has a zero point) computes it otherwise.
    """

    scale_a: float | Tensor = 1.0
    scale_b: float | Tensor = 1.0
    zero_point_a: int | Tensor = 0
    zero_point_b: int | Tensor = 0
    bias: Tensor | None = None
    residual: Tensor | None = None
    residual_scale: float = 1.0
    residual_zero_point: int = 0
    activation: str = "none"
    negative_slope: float = NEGATIVE_SLOPE
    out_scale: float | Tensor = 1.0
    out_zero_point: int = 0
    sums_b: Tensor | None = None

    @property
    def code(self) -> int:
        """The activation's number in csrc/common/activation_kind.h."""
        return ACTIVATIONS.index(self.activation)
