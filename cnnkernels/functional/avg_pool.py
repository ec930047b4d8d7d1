"""The mean of each window, and of each of a given number of bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..backends import serving
from ..ops import avg_pool as _ops
from .arguments import (
    Ints,
    as_int,
    as_rows,
    as_single,
    check_is_tensor,
    from_rows,
    pool_windows,
    pool_windows_of_a_row,
)

# PyTorch's own; their annotations know fewer kinds of sequence than they take.
_reference: Any = functional

OutputSize = int | None | Sequence[int | None]


def avg_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window, as `torch.nn.functional.avg_pool2d`: its sum over the divisor, rounded once.

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16 ("reference" takes more).
        kernel_size, stride, padding: an int or a pair (rows, columns); stride None is kernel_size, padding is zeros on
            both sides, at most half of kernel_size.
        ceil_mode: rounds the output's size up; the last window must start inside input or the padding before it.
        count_include_pad: whether the divisor counts the places in the padding; those beyond it, of ceil_mode, never.
        divisor_override: a divisor for all windows.

    Returns:
        [N, C, P, Q] or [C, P, Q] with P = floor((H + 2 padding - R) / stride) + 1, channels_last where input is. The
        gradient has input's strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.avg_pool2d` raises them.
        ValueError: a window of more than 2^31 - 1 places, or one that reaches over 2^31 rows or columns.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> cnnkernels.functional.avg_pool2d(image, 2)
        tensor([[[[ 2.5000,  4.5000],
                  [10.5000, 12.5000]]]])
    """
    if has_torch_function_variadic(input):
        return handle_torch_function(
            avg_pool2d,
            (input,),
            input,
            kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )
    op = "avg_pool2d"
    check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose(
            (input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override), avg_pool2d
        )
    if backend == "reference" or 0 in input.shape[-3:]:
        strides = () if stride is None else stride
        return _reference.avg_pool2d(
            input, kernel_size, strides, padding, ceil_mode, count_include_pad, divisor_override
        )  # fmt: skip
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but got: {[*input.shape]}"
        )
    window, strides, pads, _, _ = pool_windows(op, kernel_size, stride, padding, 1, ceil_mode)
    _check_bool(op, "count_include_pad", count_include_pad)
    divisor = _checked_divisor(op, divisor_override)
    return _of_a_batch(
        lambda batch: _ops.avg_pool_forward(
            batch, window, strides, pads, ceil_mode, count_include_pad, divisor, backend
        ),
        input,
    )


def adaptive_avg_pool2d(input: Tensor, output_size: OutputSize) -> Tensor:
    """The means of P x Q bins, as `torch.nn.functional.adaptive_avg_pool2d`.

    Bin p holds the rows from floor(p H / P) to before ceil((p + 1) H / P), and so the columns; where sizes do not
    divide, bins overlap.

    Args:
        input: [N, C, H, W] or [C, H, W], or, for an output of one pixel, of any other number of axes from [H, W] on;
            float64, float32, float16 or bfloat16 ("reference" takes more).
        output_size: an int or a pair (P, Q), of which None is input's own size.

    Returns:
        [N, C, P, Q] or [C, P, Q], channels_last where input is. The gradient has input's strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.adaptive_avg_pool2d` raises them.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> cnnkernels.functional.adaptive_avg_pool2d(image, 1)
        tensor([[[[7.5000]]]])
    """
    if has_torch_function_variadic(input):
        return handle_torch_function(adaptive_avg_pool2d, (input,), input, output_size)
    op = "adaptive_avg_pool2d"
    check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose((input, output_size), adaptive_avg_pool2d)
    if backend == "reference" or 0 in input.shape[-2:]:
        return _reference.adaptive_avg_pool2d(input, output_size)
    size = _output_size(op, output_size, input.shape)
    if input.dim() not in (3, 4):
        if input.dim() < 2 or size != (1, 1):
            raise RuntimeError(f"{op}(): Expected 3D or 4D tensor, but got input of size: {[*input.shape]}")
        planes = input.reshape(1, -1, *input.shape[-2:])
        return _ops.adaptive_avg_pool_forward(planes, size, backend).reshape(*input.shape[:-2], 1, 1)
    return _of_a_batch(lambda batch: _ops.adaptive_avg_pool_forward(batch, size, backend), input)


def avg_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window, as `torch.nn.functional.avg_pool1d`: `avg_pool2d` of planes of one row.

    Args:
        input: [N, C, L] or [C, L]; float64, float32, float16 or bfloat16 ("reference" takes more).
        kernel_size, stride, padding: an int, or one in a tuple; else as `avg_pool2d`.
        ceil_mode, count_include_pad: as `avg_pool2d`.

    Returns:
        [N, C, Q] or [C, Q], with the channels of a place side by side where input's are.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.avg_pool1d` raises them.
        ValueError, NotImplementedError, ImportError: as `avg_pool2d`.

    Example:
        >>> cnnkernels.functional.avg_pool1d(torch.tensor([[1.0, 5.0, 2.0, 4.0]]), 2)
        tensor([[3., 3.]])
    """
    if has_torch_function_variadic(input):
        return handle_torch_function(
            avg_pool1d,
            (input,),
            input,
            kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )
    op = "avg_pool1d"
    check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose((input, kernel_size, stride, padding, ceil_mode, count_include_pad), avg_pool1d)
    if backend == "reference" or 0 in input.shape[-2:]:
        strides = () if stride is None else stride
        return _reference.avg_pool1d(input, kernel_size, strides, padding, ceil_mode, count_include_pad)
    _check_rows(op, input)
    window, strides, pads, _, _ = pool_windows_of_a_row(op, kernel_size, stride, padding, 1, ceil_mode)
    _check_bool(op, "count_include_pad", count_include_pad)
    rows = as_rows(input)
    means = _ops.avg_pool_forward(rows, window, strides, pads, ceil_mode, count_include_pad, None, backend)
    return from_rows(means, input)


def adaptive_avg_pool1d(input: Tensor, output_size: Ints) -> Tensor:
    """The means of Q bins, as `torch.nn.functional.adaptive_avg_pool1d`: `adaptive_avg_pool2d` of planes of one row.

    Args:
        input: [N, C, L] or [C, L]; float64, float32, float16 or bfloat16 ("reference" takes more).
        output_size: Q, or one in a tuple.

    Returns:
        [N, C, Q] or [C, Q], with the channels of a place side by side where input's are.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.adaptive_avg_pool1d` raises them.
        NotImplementedError, ImportError: as `adaptive_avg_pool2d`.

    Example:
        >>> cnnkernels.functional.adaptive_avg_pool1d(torch.tensor([[1.0, 5.0, 2.0, 4.0]]), 1)
        tensor([[3.]])
    """
    if has_torch_function_variadic(input):
        return handle_torch_function(adaptive_avg_pool1d, (input,), input, output_size)
    op = "adaptive_avg_pool1d"
    check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose((input, output_size), adaptive_avg_pool1d)
    if backend == "reference" or 0 in input.shape[-1:]:
        return _reference.adaptive_avg_pool1d(input, output_size)
    _check_rows(op, input)
    size = 1, as_single(op, "output_size", output_size)
    return from_rows(_ops.adaptive_avg_pool_forward(as_rows(input), size, backend), input)


def _check_rows(op: str, input: Tensor) -> None:
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"{op}: Expected 2 to 3 dimensions, but got {input.dim()}-dimensional tensor of size {[*input.shape]}"
        )


def _of_a_batch(call: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    return call(input) if input.dim() == 4 else call(input.unsqueeze(0)).squeeze(0)


def _check_bool(op: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{op}(): argument '{name}' must be bool, but got {name}={value!r}")


def _checked_divisor(op: str, divisor: Any) -> int | None:
    if divisor is None:
        return None
    if isinstance(divisor, bool) or not hasattr(divisor, "__index__"):
        raise TypeError(f"{op}(): argument 'divisor_override' must be int, but got divisor_override={divisor!r}")
    divisor = int(divisor)
    if divisor == 0 or not -(2**63) <= divisor < 2**63:
        raise RuntimeError(f"divisor must be an int64 and not zero, but got divisor_override={divisor}")
    return divisor


def _output_size(op: str, size: Any, input_size: Sequence[int]) -> tuple[int, ...]:
    """Of adaptive pooling in two axes, None being the input's."""
    if not isinstance(size, Sequence) or isinstance(size, str):
        size = (as_int(op, "output_size", size),) * 2
    elif len(input_size) <= len(size):
        raise ValueError(f"Input dimension should be at least {len(size) + 1}, but got input of size {[*input_size]}")
    if len(size) != 2:
        raise RuntimeError(f"{op}: output_size must be 2, but got output_size={tuple(size)}")
    return tuple(
        extent if bins is None else as_int(op, "output_size", bins)
        for bins, extent in zip(size, input_size[-2:], strict=True)
    )
