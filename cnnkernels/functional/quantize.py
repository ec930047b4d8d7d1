"""From floating numbers to int8 and uint8, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..dtypes import FLOATING_DTYPES, INT8_DTYPES
from ..ops import quantize as _quantize
from .arguments import check_is_tensor
from .int8_arguments import Shapes, checked_scales, checked_zero_points, refuse_gradients
from .served import served


def quantize_per_tensor(
    input: Tensor, scale: float | Tensor | None = None, zero_point: int | Tensor = 0, dtype: torch.dtype = torch.int8
) -> tuple[Tensor, Any]:
    """clamp(rint(input (1 / scale)) + zero_point): integers with one scale.

    In fp32, each operation rounded by itself; float64 is narrowed to fp32 first. Ties round to even, infinities
    saturate, NaN becomes zero_point.

    Args:
        input: of any shape; float64, float32, float16 or bfloat16.
        scale: a positive number or a float32 tensor of one element. None: the largest magnitude of input, where NaN
            does not count, / 127, within [2^-126, 2^126]; 1 where that is 0. Only an infinity goes beyond, and stays
            one: it saturates, and 127 2^126 is infinite.
        zero_point: the integer that stands for 0, a number or an int32 tensor of one element; 0 with scale None.
        dtype: torch.int8 or torch.uint8; int8 with scale None.

    Returns:
        The integers, of input's shape and, where it is contiguous or channels_last, its memory; and the scale: as it
        was given, or a float32 tensor without dimensions.

    Raises:
        ValueError: scale is NaN, infinite, zero or negative; zero_point or dtype is none of these. Tensors on a GPU are
            not looked at.
        RuntimeError: input or a tensor of numbers has another dtype, size or device, or requires grad: rounding has
            none.
        TypeError: an argument is of another kind.

    Example:
        >>> cnnkernels.functional.quantize_per_tensor(torch.tensor([-1.0, 0.0, 0.5]), scale=0.5)
        (tensor([-2,  0,  1], dtype=torch.int8), 0.5)
    """
    op = "quantize_per_tensor"
    if has_torch_function_variadic(input):
        return handle_torch_function(quantize_per_tensor, (input,), input, scale, zero_point, dtype)
    _check_input(op, input, scale)
    if scale is None:
        _check_dynamic(op, zero_point, dtype)
        q, scales = _dynamic(input, "tensor", 0)
        return q, scales.view(())
    return _static(op, input, scale, zero_point, dtype, (), ("tensor", 0)), scale


def quantize_per_channel(
    input: Tensor,
    axis: int = 0,
    scale: float | Tensor | None = None,
    zero_point: int | Tensor | None = None,
    dtype: torch.dtype = torch.int8,
) -> tuple[Tensor, Any]:
    """`quantize_per_tensor` with a scale and a zero point for each index of one axis.

    Args:
        input: of one dimension or more.
        axis: which one: 0 for the filters of a weight, 1 for the channels of [N, C, H, W].
        scale: a float32 tensor [C], a number for all, or None: the largest magnitude of each / 127, as there.
        zero_point: an int32 tensor [C] or a number for all; None is 0.

    Returns:
        The integers and the scale, as it was given, or float32 [C].

    Raises:
        IndexError: axis is none of input's.
        ValueError, RuntimeError, TypeError: as `quantize_per_tensor`.

    Example:
        >>> codes, scales = cnnkernels.functional.quantize_per_channel(torch.tensor([[1.0, -2.0], [100.0, 50.0]]))
        >>> codes
        tensor([[  64, -127],
                [ 127,   64]], dtype=torch.int8)
    """
    op = "quantize_per_channel"
    if has_torch_function_variadic(input):
        return handle_torch_function(quantize_per_channel, (input,), input, axis, scale, zero_point, dtype)
    _check_input(op, input, scale)
    axis = _checked_axis(input, axis)
    if scale is None:
        _check_dynamic(op, zero_point, dtype)
        return _dynamic(input, "channel", axis)
    shapes = ((input.shape[axis],),)
    return _static(op, input, scale, zero_point, dtype, shapes, ("channel", axis)), scale


def quantize_per_token(input: Tensor) -> tuple[Tensor, Tensor]:
    """int8 with a scale for each row of the last axis: its largest magnitude / 127, as `quantize_per_tensor` finds it.

    Args:
        input: [..., K]; float64, float32, float16 or bfloat16.

    Returns:
        int8 [..., K], contiguous, and the scales, float32 [..., 1].

    Raises:
        RuntimeError, TypeError: as `quantize_per_tensor`.

    Example:
        >>> codes, scales = cnnkernels.functional.quantize_per_token(torch.tensor([[1.0, -2.0], [100.0, 50.0]]))
        >>> codes
        tensor([[  64, -127],
                [ 127,   64]], dtype=torch.int8)
    """
    op = "quantize_per_token"
    if has_torch_function_variadic(input):
        return handle_torch_function(quantize_per_token, (input,), input)
    _check_input(op, input, None)
    if input.dim() == 0:
        raise RuntimeError(f"{op}: expected input to have a dimension or more, but got size []")
    q, scales = _dynamic(input, "token", 0)
    return q, scales.view(*input.shape[:-1], 1)


def dequantize(
    q: Tensor,
    scale: float | Tensor,
    zero_point: int | Tensor = 0,
    axis: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(q - zero_point) scale in fp32, rounded once more where dtype is not float32.

    Args:
        q: int8 or uint8 of any shape.
        scale: a positive number or a float32 tensor: of one element, [C] with an axis, or [..., 1] with one for each
            row of the last axis, as `quantize_per_token` gives them.
        zero_point: a number or an int32 tensor, of one element or of the size that a scale may have.
        axis: the axis of the C channels.
        dtype: torch.float64, float32, float16 or bfloat16.

    Returns:
        Of q's shape and, where it is contiguous or channels_last, its memory.

    Raises:
        IndexError, ValueError, RuntimeError, TypeError: as the functions above.

    Example:
        >>> cnnkernels.functional.dequantize(torch.tensor([-2, 0, 1], dtype=torch.int8), 0.5)
        tensor([-1.0000,  0.0000,  0.5000])
    """
    op = "dequantize"
    if has_torch_function_variadic(q):
        return handle_torch_function(dequantize, (q,), q, scale, zero_point, axis, dtype)
    check_is_tensor(op, "q", q)
    if scale is None:
        raise TypeError(f"{op}(): argument 'scale' must be float or Tensor, not NoneType")
    refuse_gradients(op, scale=scale)
    if q.dtype not in INT8_DTYPES:
        raise RuntimeError(f"{op}: expected q to be of dtype int8 or uint8, but got {q.dtype}")
    if dtype not in FLOATING_DTYPES:
        raise ValueError(f"{op}: dtype must be float64, float32, float16 or bfloat16, but got dtype={dtype}")
    by = ("tensor", 0)
    shapes: Shapes = ()
    if axis is not None:
        by = ("channel", _checked_axis(q, axis))
        shapes = ((q.shape[by[1]],),)
    elif any(isinstance(value, Tensor) and value.numel() != 1 for value in (scale, zero_point)):
        by = ("token", 0)
        shapes = ((*q.shape[:-1], 1),)
    numbers = _numbers(op, ("q", q.device), scale, zero_point, q.dtype, shapes)
    return served(op, _quantize.dequantize, dtype, q, *numbers, *by, dtype)  # type: ignore[no-any-return]


def _check_input(op: str, input: Any, scale: Any) -> None:
    check_is_tensor(op, "input", input)
    refuse_gradients(op, input=input, scale=scale)
    if input.dtype not in FLOATING_DTYPES:
        raise RuntimeError(
            f"{op}: expected input to be of dtype float64, float32, float16 or bfloat16, but got {input.dtype}"
        )


def _checked_axis(input: Tensor, axis: int) -> int:
    rank = input.dim()
    if not -rank <= axis < rank:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-rank}, {rank - 1}], but got {axis})")
    return axis % rank


def _check_dynamic(op: str, zero_point: Any, dtype: torch.dtype) -> None:
    if isinstance(zero_point, Tensor) or zero_point:
        raise ValueError(f"{op}: zero_point={zero_point} needs a scale: dynamic quantization is symmetric")
    if dtype is not torch.int8:
        raise ValueError(f"{op}: dtype={dtype} needs a scale: dynamic quantization is to torch.int8")


def _static(
    op: str,
    input: Tensor,
    scale: Any,
    zero_point: Any,
    dtype: torch.dtype,
    shapes: Shapes,
    by: tuple[str, int],
) -> Tensor:
    if dtype not in INT8_DTYPES:
        raise ValueError(f"{op}: dtype must be torch.int8 or torch.uint8, but got dtype={dtype}")
    numbers = _numbers(op, ("input", input.device), scale, zero_point, dtype, shapes)
    return served("quantize", _quantize.quantize, input.dtype, input, *numbers, *by, dtype)  # type: ignore[no-any-return]


def _dynamic(input: Tensor, granularity: str, axis: int) -> tuple[Tensor, Tensor]:
    return served("quantize", _quantize.quantize_dynamic, input.dtype, input, granularity, axis)  # type: ignore[no-any-return]


def _numbers(
    op: str, where: tuple[str, torch.device], scale: Any, zero_point: Any, dtype: torch.dtype, shapes: Shapes
) -> tuple[Tensor | None, float, Tensor | None, int]:
    """Scale and zero point as the operators take them: a tensor or a number each."""
    scale = checked_scales(op, "scale", scale, where, shapes)
    zero_point = checked_zero_points(op, "zero_point", zero_point, where, shapes, dtype)
    return (
        *((scale, 1.0) if isinstance(scale, Tensor) else (None, scale)),
        *((zero_point, 0) if isinstance(zero_point, Tensor) else (None, zero_point)),
    )
