"""depthwise_conv2d's kernels over tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..dtypes import dtype_code
from ..geometry import ConvGeometry, Layout
from .launching import Launching, address


class DepthwiseConvKernels(Launching):
    def _depthwise(self, tensor: Tensor, geometry: ConvGeometry, layout: Layout) -> tuple[Any, ...]:
        return dtype_code(tensor.dtype), int(layout), self._geometry(geometry)

    def depthwise_conv_forward(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        output: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        plan: Any = None,
    ) -> None:
        numbers = self._depthwise(input, geometry, layout)
        self._launch("depthwise_conv_forward", (input, weight, bias, output), *numbers, last=(plan,))

    def depthwise_conv_backward_input(
        self,
        grad_output: Tensor,
        weight: Tensor,
        grad_input: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        plan: Any = None,
        bias: Tensor | None = None,
    ) -> None:
        numbers = self._depthwise(grad_output, geometry, layout)
        images = grad_output, weight, grad_input
        self._launch("depthwise_conv_backward_input", images, *numbers, last=(plan, address(bias)), also=(bias,))

    def depthwise_conv_backward_weight(
        self,
        grad_output: Tensor,
        input: Tensor,
        grad_weight: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        plan: Any = None,
    ) -> None:
        name, numbers = "depthwise_conv_backward_weight", self._depthwise(input, geometry, layout)
        workspace = self._workspace(name, input, *numbers, plan)
        self._launch(name, (grad_output, input, grad_weight, workspace), *numbers, last=(plan,))
