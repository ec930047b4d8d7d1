"""conv2d's kernels over tensors."""

from __future__ import annotations

import contextlib
import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..dtypes import dtype_code, dtype_name
from ..epilogue import Epilogue
from ..geometry import ConvGeometry, Layout, PaddingMode
from ..records import tuned
from .launching import Launching, address


def _epilogue_arguments(epilogue: Epilogue) -> tuple[Any, ...]:
    """scale, shift, residual, activation, slope as the native module takes them."""
    tensors = epilogue.scale, epilogue.shift, epilogue.residual
    return *map(address, tensors), epilogue.code, epilogue.negative_slope


class ConvKernels(Launching):
    def __init__(self, module: ModuleType, device_type: str) -> None:
        super().__init__(module, device_type)
        self._measured = tuned.until_forgotten(functools.cache(self._measured_plans))
        self._bytes_by_rule = functools.lru_cache(maxsize=4096)(self._workspace_bytes)

    def plan(self, fields: dict[str, Any], binding: bool = True) -> Any:
        """A plan of conv2d from a tuned table's fields: engine, tile, a, b, splits and, unless it is none, packing.

        Raises:
            KeyError, ValueError, AttributeError: for an engine, a tile or a loader that there is not.
        """
        m = self.module
        plan = m.ConvPlan()
        plan.tile = m.conv_tile_shapes[fields["engine"]].index(tuple(fields["tile"]))
        plan.engine = getattr(m.ConvEngine, fields["engine"])
        plan.a, plan.b = getattr(m.ConvLoader, fields["a"]), getattr(m.ConvLoader, fields["b"])
        plan.splits, plan.binding = fields["splits"], binding
        plan.packing = getattr(m.ConvPacking, fields.get("packing", "none"))
        return plan

    def _workspace_bytes(
        self,
        direction: str,
        dtype: torch.dtype,
        numbers: tuple[Any, ...],
        device: torch.device,
        addresses: tuple[int, ...],
        plan: Any = None,
    ) -> int:
        """Of a device; of addresses only the alignment counts, and whether there is a residual."""
        which = getattr(self.module.ConvDirection, direction)
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            return self.module.conv_workspace(which, dtype_code(dtype), *numbers, plan, *addresses)

    def _room(
        self,
        direction: str,
        tensors: tuple[Tensor, Tensor, Tensor],
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool,
        plan: Any,
        residual: Tensor | None = None,
    ) -> Tensor | None:
        """The workspace of a launch: for packed copies of 16-bit tensors, and backward_weight's partial sums."""
        on = tensors[0]
        if on.element_size() != 2 and direction != "backward_weight":
            return None
        addresses = *(tensor.data_ptr() % 16 for tensor in tensors), 0 if residual is None else 16
        arguments = direction, on.dtype, (int(layout), tf32, self._geometry(geometry)), on.device, addresses
        remembered = plan is None and on.device.type == "cuda"  # the interpreter may stand for another GPU each time
        size = self._bytes_by_rule(*arguments) if remembered else self._workspace_bytes(*arguments, plan)
        return self.scratch(size, on.device) if size else None

    def give_way(self, word: str, direction: str, engine: str, code: int, device: int = 0, gives: bool = True) -> None:
        """Has selection pass over an engine that failed its proof on a GPU (`cnnkernels.certified.families`)."""
        self.module.give_way(word, direction, engine, code, device, gives)
        self._bytes_by_rule.cache_clear()

    def _measured_plans(self, device: torch.device) -> dict[tuned.Key, Any]:
        """The tuned plans of a device. They are preferences: one that cannot serve unaligned tensors gives way."""
        if device.type != "cuda":
            return {}
        with torch.cuda.device(device):
            wgmma = self.module.this_gpu().wgmma
        found = tuned.plans(torch.cuda.get_device_name(device), "cuda", wgmma)
        return {key: self.plan(fields, binding=False) for key, fields in found.items()}

    def _preferred(
        self, direction: str, tensor: Tensor, geometry: ConvGeometry, layout: Layout, tf32: bool
    ) -> Any | None:
        """The tuned plan of a problem; None leaves the choice to csrc/conv/select.h."""
        measured = self._measured(tensor.device)
        if not measured or geometry.padding_mode is not PaddingMode.ZEROS:
            return None
        return measured.get(tuned.key(direction, dtype_name(tensor.dtype, tf32), layout, geometry))

    def conv_forward(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        output: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool,
        plan: Any = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        plan = plan or self._preferred("forward", input, geometry, layout, tf32)
        epilogue = epilogue or Epilogue()
        workspace = self._room("forward", (input, weight, output), geometry, layout, tf32, plan, epilogue.residual)
        self._launch(
            "conv_forward",
            (input, weight, bias, output),
            dtype_code(input.dtype),
            int(layout),
            tf32,
            self._geometry(geometry),
            last=(plan, *_epilogue_arguments(epilogue), address(workspace)),
            also=(*epilogue, workspace),
        )

    def conv_backward_input(
        self,
        grad_output: Tensor,
        weight: Tensor,
        grad_input: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool,
        plan: Any = None,
        bias: Tensor | None = None,
        epilogue: Epilogue | None = None,
    ) -> None:
        direction, images = "backward_input", (grad_output, weight, grad_input)
        plan = plan or self._preferred(direction, grad_output, geometry, layout, tf32)
        epilogue = epilogue or Epilogue()
        workspace = self._room(direction, images, geometry, layout, tf32, plan, epilogue.residual)
        self._launch(
            "conv_backward_input",
            images,
            dtype_code(grad_output.dtype),
            int(layout),
            tf32,
            self._geometry(geometry),
            last=(plan, address(workspace), address(bias), *_epilogue_arguments(epilogue)),
            also=(workspace, bias, *epilogue),
        )

    def conv_backward_weight(
        self,
        grad_output: Tensor,
        input: Tensor,
        grad_weight: Tensor,
        geometry: ConvGeometry,
        layout: Layout,
        tf32: bool,
        plan: Any = None,
    ) -> None:
        plan = plan or self._preferred("backward_weight", input, geometry, layout, tf32)
        workspace = self._room("backward_weight", (grad_output, input, grad_weight), geometry, layout, tf32, plan)
        numbers = dtype_code(input.dtype), int(layout), tf32, self._geometry(geometry)
        self._launch("conv_backward_weight", (grad_output, input, grad_weight, workspace), *numbers, last=(plan,))

    def conv_why_copy_border(
        self, direction: str, first: Tensor, second: Tensor, geometry: ConvGeometry, layout: Layout, tf32: bool
    ) -> str:
        """Why the border of a padding mode is copied before forward or backward_weight of these operands; empty where
        it is read through the index."""
        m, (device, _) = self.module, self._on(first)
        with device:
            return m.conv_why_copy_border(  # type: ignore[no-any-return]
                getattr(m.ConvDirection, direction), dtype_code(first.dtype), int(layout), tf32,
                self._geometry(geometry), first.data_ptr(), second.data_ptr(),
            )  # fmt: skip

    def conv_backward_bias(
        self, grad_output: Tensor, grad_bias: Tensor, geometry: ConvGeometry, layout: Layout
    ) -> None:
        name, numbers = "conv_backward_bias", (dtype_code(grad_output.dtype), int(layout), self._geometry(geometry))
        workspace = self._workspace(name, grad_output, *numbers)
        self._launch(name, (grad_output, grad_bias, workspace), *numbers)
