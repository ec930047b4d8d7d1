"""A convolution whose forward and gradients are not served by one backend: "cuda/reference/triton".

`Mixed` has the functions of `native.NativeKernels` that conv2d's operators call, each of the backend that serves its
direction. Where that is "reference", PyTorch's own operator runs in the kernel's place, on the kernel's arguments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .epilogue import Epilogue
from .geometry import ConvGeometry, Layout, PaddingMode

DIRECTIONS = ("forward", "backward_input", "backward_weight")


def reference_serves(geometry: ConvGeometry) -> bool:
    """Whether PyTorch's operator makes a convolution's outputs with the same padding on both sides, of zeros."""
    places = [
        (axis.size + 2 * axis.pad - axis.dilation * (axis.taps - 1) - 1) // axis.stride + 1 for axis in geometry.axes
    ]
    return geometry.padding_mode is PaddingMode.ZEROS and places == [axis.places for axis in geometry.axes]


class Mixed:
    """The kernels of a convolution, a backend's for each direction; the gradient of the bias is the filter's."""

    def __init__(self, *of_directions: Any) -> None:
        for direction, kernels in zip(DIRECTIONS, of_directions, strict=True):
            for name in (f"conv_{direction}", f"depthwise_conv_{direction}"):
                setattr(self, name, getattr(kernels, name))
        self.conv_backward_bias = of_directions[-1].conv_backward_bias


class Reference:
    """PyTorch's operators as a convolution's kernels. They read `torch.backends.cudnn` for themselves."""

    @staticmethod
    def conv_forward(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        output: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool = False,
        epilogue: Epilogue | None = None,
    ) -> None:
        sums = torch.convolution(input, weight, bias, *_numbers(geometry))
        _give(output, sums if epilogue is None else epilogue.apply(sums))

    @staticmethod
    def conv_backward_input(
        grad_output: Tensor,
        weight: Tensor,
        grad_input: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool = False,
        bias: Tensor | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        # the image itself is not read: what is to be written has its size and strides
        sums = _gradients(grad_output, grad_input, weight, geometry, (True, False, False))[0]
        if bias is not None:
            sums = sums + bias[:, None, None]
        _give(grad_input, sums if epilogue is None else epilogue.apply(sums))

    @staticmethod
    def conv_backward_weight(
        grad_output: Tensor,
        input: Tensor,
        grad_weight: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool = False,
    ) -> None:
        _give(grad_weight, _gradients(grad_output, input, grad_weight, geometry, (False, True, False))[1])

    @staticmethod
    def conv_backward_bias(grad_output: Tensor, grad_bias: Tensor, geometry: ConvGeometry, layout: Layout) -> None:
        torch.sum(grad_output, (0, 2, 3), out=grad_bias)

    depthwise_conv_forward = conv_forward
    depthwise_conv_backward_input = conv_backward_input
    depthwise_conv_backward_weight = conv_backward_weight


def _numbers(g: ConvGeometry) -> tuple[Any, ...]:
    """stride, padding, dilation, transposed, output_padding and groups."""
    steps = [g.stride_h, g.stride_w], [g.pad_h, g.pad_w], [g.dilation_h, g.dilation_w]
    return *steps, False, [0, 0], g.groups


def _gradients(grad: Tensor, input: Tensor, weight: Tensor, g: ConvGeometry, wanted: tuple[bool, ...]) -> Any:
    return torch.ops.aten.convolution_backward.default(grad, input, weight, None, *_numbers(g), wanted)


def _give(tensor: Tensor, result: Tensor) -> None:
    """Makes a tensor that nobody has read yet a result: by its memory where that lies alike, which costs no copy."""
    if tensor.stride() == result.stride():
        tensor.set_(result)  # type: ignore[call-overload]
    else:
        tensor.copy_(result)
