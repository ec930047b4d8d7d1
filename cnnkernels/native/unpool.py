"""max_unpool2d's kernels over tensors."""

from __future__ import annotations

from torch import Tensor

from ..dtypes import dtype_code
from ..geometry import Layout
from .launching import Launching


class MaxUnpoolKernels(Launching):
    def max_unpool_forward(
        self, input: Tensor, indices: Tensor, winner: Tensor, output: Tensor, layout: Layout
    ) -> None:
        sizes = (*input.shape, *output.shape[-2:])
        tensors = input, indices, winner, output
        self._launch("max_unpool_forward", tensors, dtype_code(input.dtype), int(layout), sizes)

    def max_unpool_backward(self, grad_output: Tensor, indices: Tensor, grad_input: Tensor, layout: Layout) -> None:
        sizes = (*grad_input.shape, *grad_output.shape[-2:])
        tensors = grad_output, indices, grad_input
        self._launch("max_unpool_backward", tensors, dtype_code(grad_output.dtype), int(layout), sizes)
