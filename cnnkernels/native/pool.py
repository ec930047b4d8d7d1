"""The kernels of max_pool2d, max_unpool2d, avg_pool2d and adaptive_avg_pool2d over tensors."""

from __future__ import annotations

import copy
import functools
from types import ModuleType
from typing import Any, TypeVar

from torch import Tensor

from ..dtypes import dtype_code
from ..geometry import Layout, PoolGeometry
from .launching import Launching

_Kernels = TypeVar("_Kernels", bound=Launching)


class MaxPoolKernels(Launching):
    def max_pool_forward(
        self, input: Tensor, output: Tensor, argmax: Tensor, geometry: PoolGeometry, layout: Layout
    ) -> None:
        self._max_pool2d("max_pool_forward", (input, output, argmax), argmax, geometry, layout)

    def max_pool_backward(
        self, grad_output: Tensor, argmax: Tensor, grad_input: Tensor, geometry: PoolGeometry, layout: Layout
    ) -> None:
        self._max_pool2d("max_pool_backward", (grad_output, argmax, grad_input), argmax, geometry, layout)

    def max_pool_gather(
        self, input: Tensor, argmax: Tensor, output: Tensor, geometry: PoolGeometry, layout: Layout
    ) -> None:
        self._max_pool2d("max_pool_gather", (input, argmax, output), argmax, geometry, layout)

    def _max_pool2d(
        self,
        name: str,
        tensors: tuple[Tensor, Tensor, Tensor],
        argmax: Tensor,
        geometry: PoolGeometry,
        layout: Layout,
    ) -> None:
        """`tensors`: the values first."""
        types = dtype_code(tensors[0].dtype), dtype_code(argmax.dtype)
        self._launch(name, tensors, *types, int(layout), self._geometry(geometry))

    def max_pool_indices(self, argmax: Tensor, indices: Tensor, geometry: PoolGeometry, layout: Layout) -> None:
        numbers = dtype_code(argmax.dtype), int(layout), self._geometry(geometry)
        self._launch("max_pool_indices", (argmax, indices), *numbers)


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


class AvgPoolKernels(Launching):
    def avg_pool_forward(
        self,
        input: Tensor,
        output: Tensor,
        geometry: PoolGeometry,
        layout: Layout,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> None:
        numbers = self._of(input, geometry, layout)
        self._launch("avg_pool_forward", (input, output), *numbers, count_include_pad, divisor_override or 0)

    def avg_pool_backward(
        self,
        grad_output: Tensor,
        grad_input: Tensor,
        geometry: PoolGeometry,
        layout: Layout,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> None:
        numbers = self._of(grad_output, geometry, layout)
        tensors = grad_output, grad_input
        self._launch("avg_pool_backward", tensors, *numbers, count_include_pad, divisor_override or 0)

    def adaptive_avg_pool_forward(self, input: Tensor, output: Tensor, geometry: PoolGeometry, layout: Layout) -> None:
        numbers = self._of(input, geometry, layout)
        workspace = None
        if geometry.p == geometry.q == 1:
            workspace = self._workspace("adaptive_avg_pool", input, *numbers)
        self._launch("adaptive_avg_pool_forward", (input, output, workspace), *numbers)

    def adaptive_avg_pool_backward(
        self, grad_output: Tensor, grad_input: Tensor, geometry: PoolGeometry, layout: Layout
    ) -> None:
        numbers = self._of(grad_output, geometry, layout)
        self._launch("adaptive_avg_pool_backward", (grad_output, grad_input), *numbers)

    def _of(self, tensor: Tensor, geometry: PoolGeometry, layout: Layout) -> tuple[Any, ...]:
        return dtype_code(tensor.dtype), int(layout), self._geometry(geometry)


class _Limited:
    """A native module to whose launchers of pools fewer elements are the most that 32 bits may count."""

    def __init__(self, module: ModuleType, largest_index: int) -> None:
        self._module = module
        self._largest_index = largest_index

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name.startswith(("max_pool_", "max_unpool_", "avg_pool_", "adaptive_avg_pool_")) and "workspace" not in name:
            return functools.partial(found, largest_index=self._largest_index)
        return found


def limited(kernels: _Kernels, largest_index: int) -> _Kernels:
    """The same pools, but for a small problem as for one of more than 2^31 elements: in slices of the batch, or, where
    an image has more than `largest_index`, in 64 bits."""
    found = copy.copy(kernels)
    found.module = _Limited(kernels.module, largest_index)  # type: ignore[assignment]
    return found
