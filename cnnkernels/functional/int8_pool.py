"""Pooling of int8 and uint8 images: scale and zero point stay what they are."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..dtypes import INT8_DTYPES
from ..ops import int8_pool as _int8_pool2d
from .arguments import Ints, as_int, as_pair, check_is_tensor, pool_windows
from .int8_arguments import checked_zero_point
from .served import served

LARGEST_SUM = 2**31 - 1


def int8_max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest of each window, as `torch.nn.functional.max_pool2d`; padding never wins.

    Args:
        input: [N, C, H, W] or [C, H, W], int8 or uint8; best channels_last, else it is copied so.
        kernel_size, stride, padding, dilation: an int or a pair (rows, columns); stride None is kernel_size, padding
            is at most half of kernel_size.
        ceil_mode: rounds the output's size up; the last window must start inside input or the padding before it.

    Returns:
        [N, C, P, Q] or [C, P, Q] of input's dtype, channels_last. A window without a place inside input (dilation)
        gives the least number of the dtype.

    Raises:
        RuntimeError, TypeError: where `torch.nn.functional.max_pool2d` raises them, and for another dtype.

    Example:
        >>> image = torch.arange(16, dtype=torch.int8).reshape(1, 1, 4, 4)
        >>> cnnkernels.functional.int8_max_pool2d(image, 2)
        tensor([[[[ 5,  7],
                  [13, 15]]]], dtype=torch.int8)
    """
    op = "int8_max_pool2d"
    if has_torch_function_variadic(input):
        return handle_torch_function(
            int8_max_pool2d, (input,), input, kernel_size, stride, padding, dilation, ceil_mode
        )  # fmt: skip
    parameters = _parameters(op, input, kernel_size, stride, padding, dilation, ceil_mode)
    output = served(op, _int8_pool2d.int8_max_pool, input.dtype, _batch(input), *parameters)
    return output if input.dim() == 4 else output.squeeze(0)


def int8_avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    zero_point: int = 0,
) -> Tensor:
    """The mean of each window, as `torch.nn.functional.avg_pool2d`, rounded half to even and saturated.

        clamp(rint(float(sum of (x - zero_point)) / float(divisor)) + zero_point)

    The sum is over the places inside input, and exact: padding stands for zero_point. The division is fp32's.

    Args:
        input, kernel_size, stride, padding, ceil_mode: as `int8_max_pool2d`.
        count_include_pad: whether the divisor counts the places in the padding.
        divisor_override: a divisor for all windows.
        zero_point: the integer that stands for 0.

    Returns:
        [N, C, P, Q] or [C, P, Q] of input's dtype, channels_last.

    Raises:
        RuntimeError, TypeError: where `torch.nn.functional.avg_pool2d` raises them, and for another dtype.
        ValueError: zero_point is none of the dtype's numbers; divisor_override is 0 or no int32; a window has so many
            places that its sum might overflow an int32.

    Example:
        >>> image = torch.arange(16, dtype=torch.int8).reshape(1, 1, 4, 4)
        >>> cnnkernels.functional.int8_avg_pool2d(image, 2)  # ties go to the even neighbour
        tensor([[[[ 2,  4],
                  [10, 12]]]], dtype=torch.int8)
    """
    op = "int8_avg_pool2d"
    if has_torch_function_variadic(input):
        return handle_torch_function(
            int8_avg_pool2d, (input,), input, kernel_size, stride, padding, ceil_mode, count_include_pad,
            divisor_override, zero_point=zero_point,
        )  # fmt: skip
    parameters = _parameters(op, input, kernel_size, stride, padding, 1, ceil_mode)
    zero_point = _checked_zero_point(op, input, zero_point)
    if divisor_override is not None:
        divisor_override = as_int(op, "divisor_override", divisor_override)
        if divisor_override == 0 or not -LARGEST_SUM <= divisor_override <= LARGEST_SUM:
            raise ValueError(f"{op}: divisor_override must be an int32 other than 0, but got {divisor_override}")
    places = min(parameters[0][0], input.shape[-2]) * min(parameters[0][1], input.shape[-1])
    if places * 255 > LARGEST_SUM:
        raise ValueError(f"{op}: sums over {places} places could overflow int32: a window has at most 8421504")
    numbers = zero_point, bool(count_include_pad), divisor_override
    output = served(op, _int8_pool2d.int8_avg_pool, input.dtype, _batch(input), *parameters, *numbers)
    return output if input.dim() == 4 else output.squeeze(0)


def int8_adaptive_avg_pool2d(input: Tensor, output_size: Any = 1, *, zero_point: int = 0) -> Tensor:
    """The mean of each channel, as `torch.nn.functional.adaptive_avg_pool2d` with output_size 1, rounded as
    `int8_avg_pool2d`.

    Args:
        input: [N, C, H, W] or [C, H, W], int8 or uint8.
        output_size: 1 or (1, 1).
        zero_point: the integer that stands for 0.

    Returns:
        [N, C, 1, 1] or [C, 1, 1] of input's dtype.

    Raises:
        ValueError: another output_size, or as `int8_avg_pool2d`.
        RuntimeError, TypeError: as `int8_avg_pool2d`.

    Example:
        >>> image = torch.arange(16, dtype=torch.int8).reshape(1, 1, 4, 4)
        >>> cnnkernels.functional.int8_adaptive_avg_pool2d(image, 1)
        tensor([[[[8]]]], dtype=torch.int8)
    """
    op = "int8_adaptive_avg_pool2d"
    if has_torch_function_variadic(input):
        return handle_torch_function(int8_adaptive_avg_pool2d, (input,), input, output_size, zero_point=zero_point)
    if as_pair(op, "output_size", output_size) != (1, 1):
        raise ValueError(f"{op}: output_size must be 1 or (1, 1), but got output_size={output_size}")
    _check_images(op, input)
    return int8_avg_pool2d(input, tuple(input.shape[-2:]), 1, zero_point=zero_point)


def _check_images(op: str, input: Any) -> None:
    check_is_tensor(op, "input", input)
    if input.dtype not in INT8_DTYPES:
        raise RuntimeError(f"{op}: expected input to be of dtype int8 or uint8, but got {input.dtype}")
    if input.dim() not in (3, 4) or 0 in input.shape[-3:]:
        raise RuntimeError(
            f"{op}: non-empty 3D or 4D (batch mode) tensor expected for input, but got input of size: "
            f"{list(input.shape)}"
        )


def _checked_zero_point(op: str, input: Tensor, zero_point: Any) -> int:
    if isinstance(zero_point, bool) or not isinstance(zero_point, Integral):
        raise TypeError(f"{op}(): argument 'zero_point' must be int, not {type(zero_point).__name__}")
    return checked_zero_point(op, "zero_point", int(zero_point), input.dtype)


def _parameters(
    op: str, input: Any, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints, ceil_mode: bool
) -> tuple[Any, ...]:
    _check_images(op, input)
    return pool_windows(op, kernel_size, stride, padding, dilation, ceil_mode)


def _batch(input: Tensor) -> Tensor:
    return input if input.dim() == 4 else input.unsqueeze(0)
