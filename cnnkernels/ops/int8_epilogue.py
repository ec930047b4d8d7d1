"""An INT8 epilogue in an operator's schema, which knows numbers and tensors but nothing that may be either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..int8 import reference as int8_reference
from ..int8.epilogue import Int8Epilogue

EPILOGUE = (
    "Tensor? scale_a, Tensor? scale_b, Tensor? zero_point_a, Tensor? zero_point_b, Tensor? out_scale, Tensor? bias, "
    "Tensor? residual, Tensor? sums_b, float scale_a_number, float scale_b_number, int zero_point_a_number, "
    "int zero_point_b_number, float out_scale_number, float residual_scale, int residual_zero_point, str activation, "
    "float negative_slope, int out_zero_point, ScalarType out_dtype, str backend"
)
LENGTH = EPILOGUE.count(",") + 1


def flat(epilogue: Int8Epilogue) -> tuple[Any, ...]:
    """The schema's arguments but for the last two."""
    e = epilogue
    pairs = (
        (e.scale_a, 1.0), (e.scale_b, 1.0), (e.zero_point_a, 0), (e.zero_point_b, 0), (e.out_scale, 1.0),
    )  # fmt: skip
    tensors = (value if isinstance(value, Tensor) else None for value, _ in pairs)
    numbers = (absent if isinstance(value, Tensor) else value for value, absent in pairs)
    return (
        *tensors, e.bias, e.residual, e.sums_b,
        *numbers, e.residual_scale, e.residual_zero_point, e.activation, e.negative_slope, e.out_zero_point,
    )  # fmt: skip


def epilogue_of(arguments: tuple[Any, ...], memory_format: torch.memory_format) -> Int8Epilogue:
    """The epilogue of the schema's arguments, its tensors dense and the residual in the output's memory."""
    (
        scale_a, scale_b, zero_point_a, zero_point_b, out_scale, bias, residual, sums_b,
        scale_a_number, scale_b_number, zero_point_a_number, zero_point_b_number, out_scale_number,
        residual_scale, residual_zero_point, activation, negative_slope, out_zero_point, _, _,
    ) = arguments  # fmt: skip
    return Int8Epilogue(
        scale_a_number if scale_a is None else scale_a.contiguous(),
        scale_b_number if scale_b is None else scale_b.contiguous(),
        zero_point_a_number if zero_point_a is None else zero_point_a.contiguous(),
        zero_point_b_number if zero_point_b is None else zero_point_b.contiguous(),
        None if bias is None else bias.contiguous(),
        None if residual is None else residual.contiguous(memory_format=memory_format),
        residual_scale,
        residual_zero_point,
        activation,
        negative_slope,
        out_scale_number if out_scale is None else out_scale,
        out_zero_point,
        None if sums_b is None else sums_b.contiguous(),
    )


def kernels_of(backend: str, device: torch.device) -> Any:
    """The functions of `int8_reference`, of that or of a backend's kernels."""
    return int8_reference if backend == "reference" else backends.kernels(backend, device.type)


def one_by_one(operator: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, int]]:
    """The batching rule of an operator that has no axis to put a batch into: a call for each sample."""

    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        def sample(i: int) -> Tensor:
            pairs = zip(args, in_dims, strict=True)
            return operator(*(arg.select(axis, i) if isinstance(axis, int) else arg for arg, axis in pairs))

        return torch.stack([sample(i) for i in range(info.batch_size)]), 0

    return vmap
