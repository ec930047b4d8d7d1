"""depthwise_separable_conv2d's kernels over tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..activation import ACTIVATIONS
from ..dtypes import dtype_code
from ..geometry import ConvGeometry, Layout
from .launching import Launching


class DepthwiseSeparableConvKernels(Launching):
    def depthwise_separable_conv_forward(
        self,
        input: Tensor,
        depthwise_weight: Tensor,
        pointwise_weight: Tensor,
        depthwise_bias: Tensor | None,
        pointwise_bias: Tensor | None,
        output: Tensor,
        intermediate: Tensor | None,
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool,
        depthwise_activation: str,
        pointwise_activation: str,
        negative_slope: float,
        plan: Any = None,
    ) -> None:
        """`geometry` is the depthwise convolution's: k = c multiplier, groups = c. The output [N, K, P, Q] has the
        pointwise filter's K. Where an intermediate is given, it takes the depthwise sums before their activation.
        `plan`: a DepthwiseSeparablePlan of the module; None leaves the choice to its select.h."""
        self._launch(
            "depthwise_separable_conv_forward",
            (input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, output, intermediate),
            dtype_code(input.dtype),
            int(layout),
            tf32,
            self._geometry(geometry),
            output.shape[1],
            ACTIVATIONS.index(depthwise_activation),
            ACTIVATIONS.index(pointwise_activation),
            negative_slope,
            last=(plan,),
        )

    def depthwise_separable_conv_intermediate(
        self,
        input: Tensor,
        depthwise_weight: Tensor,
        depthwise_bias: Tensor | None,
        intermediate: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
    ) -> None:
        """What the forward saves, bit for bit: the depthwise sums before their activation."""
        self._launch(
            "depthwise_separable_conv_intermediate",
            (input, depthwise_weight, depthwise_bias, intermediate),
            dtype_code(input.dtype),
            int(layout),
            self._geometry(geometry),
        )

    def depthwise_separable_conv_fuses_backward(self, dtype: torch.dtype, filters: int, tf32: bool) -> bool:
        """Whether `depthwise_separable_conv_backward` pays for a pair with so many pointwise filters."""
        return bool(self.module.depthwise_separable_conv_fuses_backward(dtype_code(dtype), filters, tf32))

    def depthwise_separable_conv_backward(
        self,
        grad_output: Tensor,
        input: Tensor,
        depthwise_weight: Tensor,
        pointwise_weight: Tensor | None,
        depthwise_bias: Tensor | None,
        intermediate: Tensor | None,
        grad_intermediate: Tensor | None,
        grad_pointwise: Tensor | None,
        geometry: ConvGeometry,
        layout: Layout,
        depthwise_activation: str,
        negative_slope: float,
    ) -> None:
        """From the error of the pointwise sums: that of the depthwise sums, and the pointwise filter's, either of which
        may be None. Where an intermediate is given, it is read; else it is made anew."""
        filters = grad_output.shape[1]
        shape = dtype_code(input.dtype), int(layout), self._geometry(geometry), filters
        name = "depthwise_separable_conv_backward"
        self._launch(
            name,
            (
                grad_output, input, depthwise_weight, pointwise_weight, depthwise_bias, intermediate,
                grad_intermediate, grad_pointwise,
                None if grad_pointwise is None else self._workspace(name, input, *shape),
            ),
            *shape,
            ACTIVATIONS.index(depthwise_activation),
            negative_slope,
        )  # fmt: skip
