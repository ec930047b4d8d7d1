"""The CUDA kernels as a backend: tensors in, pointers, geometry and a stream down to a native module.

`load("cuda")` serves CUDA tensors with the kernels nvcc compiled, `load("interpreter")` serves CPU tensors with the
very same sources run by the interpreter.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from . import tuned
from .activation import ACTIVATIONS
from .epilogue import Epilogue
from .geometry import Conv2dGeometry, Layout, Pool2dGeometry

# The values of csrc/common/types.h.
_DTYPES = {
    torch.float64: 0,
    torch.float32: 1,
    torch.float16: 2,
    torch.bfloat16: 3,
    torch.int8: 4,
    torch.uint8: 5,
    torch.uint16: 6,
    torch.int32: 7,
    torch.int64: 8,
}

# By which a tuned table calls them.
_DTYPE_NAMES = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

BUILD_HINT = "build the extensions with `make build` in a checkout or `pip install .`"


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _epilogue_arguments(epilogue: Epilogue) -> tuple[Any, ...]:
    """scale, shift, residual, activation, slope as the native module takes them."""
    tensors = epilogue.scale, epilogue.shift, epilogue.residual
    return *map(_address, tensors), epilogue.code, epilogue.negative_slope


def dtype_code(dtype: torch.dtype) -> int:
    """The number of a type in csrc/common/types.h."""
    return _DTYPES[dtype]


class NativeKernels:
    """One native module's launchers over tensors. Inputs are validated and dense, outputs allocated by the caller."""

    def __init__(self, module: ModuleType, device_type: str) -> None:
        self.module = module
        self.device_type = device_type
        self._geometry = functools.lru_cache(maxsize=4096)(self._native_geometry)
        self._measured = functools.cache(self._measured_plans)

    def _native_geometry(self, geometry: Conv2dGeometry | Pool2dGeometry) -> Any:
        return getattr(self.module, type(geometry).__name__)(*geometry)

    def _measured_plans(self, device: torch.device) -> dict[tuned.Key, Any]:
        """The tuned plans of a device. They are preferences: one that cannot serve unaligned tensors gives way."""
        if device.type != "cuda":
            return {}
        found = tuned.plans(torch.cuda.get_device_name(device), "cuda")
        return {key: self.plan(fields, binding=False) for key, fields in found.items()}

    def plan(self, fields: dict[str, Any], binding: bool = True) -> Any:
        """A plan of conv2d from a tuned table's fields: engine, tile, a, b, splits.

        Raises:
            KeyError, ValueError, AttributeError: for an engine, a tile or a loader that there is not.
        """
        m = self.module
        plan = m.Conv2dPlan()
        plan.tile = m.conv2d_tile_shapes[fields["engine"]].index(tuple(fields["tile"]))
        plan.engine = getattr(m.Conv2dEngine, fields["engine"])
        plan.a, plan.b = getattr(m.Conv2dLoader, fields["a"]), getattr(m.Conv2dLoader, fields["b"])
        plan.splits, plan.binding = fields["splits"], binding
        return plan

    def _preferred(
        self, direction: str, tensor: Tensor, geometry: Conv2dGeometry, layout: Layout, tf32: bool
    ) -> Any | None:
        """The tuned plan of a problem; None leaves the choice to csrc/conv2d/select.h."""
        measured = self._measured(tensor.device)
        if not measured:
            return None
        name = "tf32" if tf32 else _DTYPE_NAMES[tensor.dtype]
        return measured.get(tuned.key(direction, name, layout, geometry))

    def _on(self, tensor: Tensor) -> tuple[contextlib.AbstractContextManager[Any], int]:
        """The device to make current and the stream to launch on."""
        if self.device_type != "cuda":
            return contextlib.nullcontext(), 0
        return torch.cuda.device(tensor.device), torch.cuda.current_stream(tensor.device).cuda_stream

    def conv2d_forward(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        output: Tensor,
        geometry: Conv2dGeometry,
        layout: Layout,
        tf32: bool,
        plan: Any = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        device, stream = self._on(input)
        plan = plan or self._preferred("forward", input, geometry, layout, tf32)
        with device:
            self.module.conv2d_forward(
                input.data_ptr(),
                weight.data_ptr(),
                _address(bias),
                output.data_ptr(),
                _DTYPES[input.dtype],
                int(layout),
                tf32,
                self._geometry(geometry),
                stream,
                plan,
                *(() if epilogue is None else _epilogue_arguments(epilogue)),
            )

    def conv2d_backward_input(
        self,
        grad_output: Tensor,
        weight: Tensor,
        grad_input: Tensor,
        geometry: Conv2dGeometry,
        layout: Layout,
        tf32: bool,
        plan: Any = None,
    ) -> None:
        device, stream = self._on(grad_output)
        plan = plan or self._preferred("backward_input", grad_output, geometry, layout, tf32)
        with device:
            self.module.conv2d_backward_input(
                grad_output.data_ptr(),
                weight.data_ptr(),
                grad_input.data_ptr(),
                _DTYPES[grad_output.dtype],
                int(layout),
                tf32,
                self._geometry(geometry),
                stream,
                plan,
            )

    def conv2d_backward_weight(
        self,
        grad_output: Tensor,
        input: Tensor,
        grad_weight: Tensor,
        geometry: Conv2dGeometry,
        layout: Layout,
        tf32: bool,
        plan: Any = None,
    ) -> None:
        device, stream = self._on(input)
        dtype, native = _DTYPES[input.dtype], self._geometry(geometry)
        plan = plan or self._preferred("backward_weight", input, geometry, layout, tf32)
        with device:
            size = self.module.conv2d_backward_weight_workspace(dtype, int(layout), tf32, native, plan)
            workspace = torch.empty(size, dtype=torch.uint8, device=input.device)
            self.module.conv2d_backward_weight(
                grad_output.data_ptr(),
                input.data_ptr(),
                grad_weight.data_ptr(),
                workspace.data_ptr(),
                dtype,
                int(layout),
                tf32,
                native,
                stream,
                plan,
            )

    def conv2d_backward_bias(
        self, grad_output: Tensor, grad_bias: Tensor, geometry: Conv2dGeometry, layout: Layout
    ) -> None:
        device, stream = self._on(grad_output)
        dtype, native = _DTYPES[grad_output.dtype], self._geometry(geometry)
        with device:
            size = self.module.conv2d_backward_bias_workspace(dtype, int(layout), native)
            workspace = torch.empty(size, dtype=torch.uint8, device=grad_output.device)
            self.module.conv2d_backward_bias(
                grad_output.data_ptr(),
                grad_bias.data_ptr(),
                workspace.data_ptr(),
                dtype,
                int(layout),
                native,
                stream,
            )

    def depthwise_conv2d_forward(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        output: Tensor,
        geometry: Conv2dGeometry,
        layout: Layout,
    ) -> None:
        device, stream = self._on(input)
        with device:
            self.module.depthwise_conv2d_forward(
                input.data_ptr(),
                weight.data_ptr(),
                0 if bias is None else bias.data_ptr(),
                output.data_ptr(),
                _DTYPES[input.dtype],
                int(layout),
                self._geometry(geometry),
                stream,
            )

    def depthwise_conv2d_backward_input(
        self, grad_output: Tensor, weight: Tensor, grad_input: Tensor, geometry: Conv2dGeometry, layout: Layout
    ) -> None:
        device, stream = self._on(grad_output)
        with device:
            self.module.depthwise_conv2d_backward_input(
                grad_output.data_ptr(),
                weight.data_ptr(),
                grad_input.data_ptr(),
                _DTYPES[grad_output.dtype],
                int(layout),
                self._geometry(geometry),
                stream,
            )

    def depthwise_conv2d_backward_weight(
        self, grad_output: Tensor, input: Tensor, grad_weight: Tensor, geometry: Conv2dGeometry, layout: Layout
    ) -> None:
        device, stream = self._on(input)
        dtype, native = _DTYPES[input.dtype], self._geometry(geometry)
        with device:
            size = self.module.depthwise_conv2d_backward_weight_workspace(dtype, int(layout), native)
            workspace = torch.empty(size, dtype=torch.uint8, device=input.device)
            self.module.depthwise_conv2d_backward_weight(
                grad_output.data_ptr(),
                input.data_ptr(),
                grad_weight.data_ptr(),
                workspace.data_ptr(),
                dtype,
                int(layout),
                native,
                stream,
            )

    def depthwise_separable_conv2d_forward(
        self,
        input: Tensor,
        depthwise_weight: Tensor,
        pointwise_weight: Tensor,
        depthwise_bias: Tensor | None,
        pointwise_bias: Tensor | None,
        output: Tensor,
        intermediate: Tensor | None,
        geometry: Conv2dGeometry,
        layout: Layout,
        tf32: bool,
        depthwise_activation: str,
        pointwise_activation: str,
        negative_slope: float,
    ) -> None:
        """`geometry` is the depthwise convolution's: k = c multiplier, groups = c. The output [N, K, P, Q] has the
        pointwise filter's K. Where an intermediate is given, it takes the depthwise sums before their activation."""
        device, stream = self._on(input)
        optional = depthwise_bias, pointwise_bias, intermediate
        bias, pointwise, saved = (0 if t is None else t.data_ptr() for t in optional)
        with device:
            self.module.depthwise_separable_conv2d_forward(
                input.data_ptr(),
                depthwise_weight.data_ptr(),
                pointwise_weight.data_ptr(),
                bias,
                pointwise,
                output.data_ptr(),
                saved,
                _DTYPES[input.dtype],
                int(layout),
                tf32,
                self._geometry(geometry),
                output.shape[1],
                ACTIVATIONS.index(depthwise_activation),
                ACTIVATIONS.index(pointwise_activation),
                negative_slope,
                stream,
            )

    def depthwise_separable_conv2d_intermediate(
        self,
        input: Tensor,
        depthwise_weight: Tensor,
        depthwise_bias: Tensor | None,
        intermediate: Tensor,
        geometry: Conv2dGeometry,
        layout: Layout,
    ) -> None:
        """What the forward saves, bit for bit: the depthwise sums before their activation."""
        device, stream = self._on(input)
        with device:
            self.module.depthwise_separable_conv2d_intermediate(
                input.data_ptr(),
                depthwise_weight.data_ptr(),
                0 if depthwise_bias is None else depthwise_bias.data_ptr(),
                intermediate.data_ptr(),
                _DTYPES[input.dtype],
                int(layout),
                self._geometry(geometry),
                stream,
            )

    def max_pool2d_forward(
        self, input: Tensor, output: Tensor, argmax: Tensor, geometry: Pool2dGeometry, layout: Layout
    ) -> None:
        self._pool("max_pool2d_forward", input, (input, output, argmax), argmax, geometry, layout)

    def max_pool2d_backward(
        self, grad_output: Tensor, argmax: Tensor, grad_input: Tensor, geometry: Pool2dGeometry, layout: Layout
    ) -> None:
        self._pool("max_pool2d_backward", grad_output, (grad_output, argmax, grad_input), argmax, geometry, layout)

    def max_pool2d_gather(
        self, input: Tensor, argmax: Tensor, output: Tensor, geometry: Pool2dGeometry, layout: Layout
    ) -> None:
        self._pool("max_pool2d_gather", input, (input, argmax, output), argmax, geometry, layout)

    def _pool(
        self,
        name: str,
        values: Tensor,
        tensors: tuple[Tensor, ...],
        argmax: Tensor,
        geometry: Pool2dGeometry,
        layout: Layout,
    ) -> None:
        device, stream = self._on(values)
        with device:
            getattr(self.module, name)(
                *(t.data_ptr() for t in tensors),
                _DTYPES[values.dtype],
                _DTYPES[argmax.dtype],
                int(layout),
                self._geometry(geometry),
                stream,
            )

    def max_pool2d_indices(self, argmax: Tensor, indices: Tensor, geometry: Pool2dGeometry, layout: Layout) -> None:
        device, stream = self._on(argmax)
        with device:
            self.module.max_pool2d_indices(
                argmax.data_ptr(),
                indices.data_ptr(),
                _DTYPES[argmax.dtype],
                int(layout),
                self._geometry(geometry),
                stream,
            )

    def max_unpool2d_forward(
        self, input: Tensor, indices: Tensor, winner: Tensor, output: Tensor, layout: Layout
    ) -> None:
        device, stream = self._on(input)
        n, c, p, q = input.shape
        h, w = output.shape[-2:]
        with device:
            self.module.max_unpool2d_forward(
                input.data_ptr(),
                indices.data_ptr(),
                winner.data_ptr(),
                output.data_ptr(),
                _DTYPES[input.dtype],
                int(layout),
                (n, c, p, q, h, w),
                stream,
            )

    def max_unpool2d_backward(self, grad_output: Tensor, indices: Tensor, grad_input: Tensor, layout: Layout) -> None:
        device, stream = self._on(grad_output)
        n, c, p, q = grad_input.shape
        h, w = grad_output.shape[-2:]
        with device:
            self.module.max_unpool2d_backward(
                grad_output.data_ptr(),
                indices.data_ptr(),
                grad_input.data_ptr(),
                _DTYPES[grad_output.dtype],
                int(layout),
                (n, c, p, q, h, w),
                stream,
            )


@functools.cache
def load(name: Literal["cuda", "interpreter"]) -> NativeKernels:
    """The kernels of a native module; ImportError names the build command where it was not built.

    CNNKERNELS_NATIVE_DIR names a folder to look in first: that of a build under a sanitizer, say.
    """
    if folder := os.environ.get("CNNKERNELS_NATIVE_DIR"):
        package = sys.modules[__package__].__path__
        if folder not in package:
            package.insert(0, folder)
    try:
        module = importlib.import_module(f"cnnkernels._{name}")
    except ImportError as error:
        raise ImportError(f"cnnkernels._{name} is not built ({error}): {BUILD_HINT}") from error
    return NativeKernels(module, "cuda" if name == "cuda" else "cpu")
