"""The maximum of each window, and its values back in their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..backends import serving
from ..ops import pool as _ops
from .arguments import (
    Ints,
    as_pair,
    as_rows,
    check_device,
    check_is_tensor,
    from_rows,
    pool_windows,
    pool_windows_of_a_row,
    under_autocast,
    unpooled_size,
)

# PyTorch's own; their annotations know fewer kinds of sequence than they take.
_reference: Any = torch.nn.functional
_plain: Any = torch.max_pool2d  # type: ignore[attr-defined]


def max_pool2d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The maximum of each window, as `torch.nn.functional.max_pool2d`.

    The first of equal maxima wins, the last NaN wins, and a window of -inf alone gives its first place inside.

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16 ("reference" takes more).
        kernel_size, stride, padding, dilation: an int or a pair (rows, columns); stride None is kernel_size,
            padding is -inf on both sides, at most half of kernel_size.
        ceil_mode: rounds the output's size up; the last window must start inside input or the padding before it.
        return_indices: also return each winner's index h W + w, int64.

    Returns:
        [N, C, P, Q] or [C, P, Q] with P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1, channels_last
        where input is; with `return_indices` also the indices. The gradient has input's strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.max_pool2d` raises them.
        ValueError: a window of more than 2^31 - 1 places, or one that reaches over 2^31 rows or columns.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> cnnkernels.functional.max_pool2d(image, 2)
        tensor([[[[ 5.,  7.],
                  [13., 15.]]]])
    """
    if has_torch_function_variadic(input):
        return handle_torch_function(
            max_pool2d,
            (input,),
            input,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
            return_indices=return_indices,
        )
    check_is_tensor("max_pool2d", "input", input)
    backend = serving("max_pool2d", input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose((input, kernel_size, stride, padding, dilation, ceil_mode, return_indices), max_pool2d)
    if backend == "reference" or input.numel() == 0:
        if return_indices:
            return _reference.max_pool2d_with_indices(input, kernel_size, stride, padding, dilation, ceil_mode)
        return _plain(input, kernel_size, () if stride is None else stride, padding, dilation, ceil_mode)
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"non-empty 3D or 4D (batch mode) tensor expected for input, but got input of size: {list(input.shape)}"
        )
    windows = pool_windows("max_pool2d", kernel_size, stride, padding, dilation, ceil_mode)
    batch = input if input.dim() == 4 else input.unsqueeze(0)
    output, argmax = _ops.max_pool_forward(batch, *windows, backend)
    if input.dim() == 3:
        output = output.squeeze(0)
    if not return_indices:
        return output
    indices = _ops.max_pool_indices(argmax, batch.shape, *windows, backend)
    return output, indices if input.dim() == 4 else indices.squeeze(0)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool2d` with `return_indices=True`: the maxima and their int64 indices h W + w.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> values, indices = cnnkernels.functional.max_pool2d_with_indices(image, 2)
        >>> indices.flatten().tolist()
        [5, 7, 13, 15]
    """
    output, indices = max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)
    return output, indices


def max_pool1d(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The maximum of each window, as `torch.nn.functional.max_pool1d`: `max_pool2d` of planes of one row.

    Args:
        input: [N, C, L] or [C, L]; float64, float32, float16 or bfloat16 ("reference" takes more).
        kernel_size, stride, padding, dilation: an int, or one in a tuple; else as `max_pool2d`.
        ceil_mode: as `max_pool2d`.
        return_indices: also return each winner's place in its row, int64.

    Returns:
        [N, C, Q] or [C, Q], with the channels of a place side by side where input's are; with `return_indices` also
        the indices. The gradient has input's strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.max_pool1d` raises them.
        ValueError, NotImplementedError, ImportError: as `max_pool2d`.

    Example:
        >>> cnnkernels.functional.max_pool1d(torch.tensor([[1.0, 5.0, 2.0, 4.0]]), 2)
        tensor([[5., 4.]])
    """
    if has_torch_function_variadic(input):
        return handle_torch_function(
            max_pool1d,
            (input,),
            input,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
            return_indices=return_indices,
        )
    op = "max_pool1d"
    check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose((input, kernel_size, stride, padding, dilation, ceil_mode, return_indices), max_pool1d)
    if backend == "reference" or input.numel() == 0:
        return _reference.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"{op}: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for input, but got: "
            f"{list(input.shape)}"
        )
    windows = pool_windows_of_a_row(op, kernel_size, stride, padding, dilation, ceil_mode)
    rows = as_rows(input)
    output, argmax = _ops.max_pool_forward(rows, *windows, backend)
    output = from_rows(output, input)
    if not return_indices:
        return output
    return output, from_rows(_ops.max_pool_indices(argmax, rows.shape, *windows, backend), input)


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool1d` with `return_indices=True`: the maxima and their int64 places.

    Example:
        >>> values, indices = cnnkernels.functional.max_pool1d_with_indices(torch.tensor([[1.0, 5.0, 2.0, 4.0]]), 2)
        >>> indices
        tensor([[1, 3]])
    """
    output, indices = max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)
    return output, indices


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Puts values back where `max_pool2d` found them, zeros elsewhere, as `torch.nn.functional.max_unpool2d`.

    Where indices repeat, the last one in row-major order wins (PyTorch leaves it open). The gradient reads
    grad_output at every index, as PyTorch's does.

    Args:
        input: [N, C, P, Q] or [C, P, Q]; float64, float32, float16 or bfloat16.
        indices: int64 h W + w into the output's planes, of input's shape.
        kernel_size, stride, padding: those of the pooling; they give output's default size
            (P - 1) stride - 2 padding + kernel_size.
        output_size: (H, W) or output's whole shape, less than a stride away from the default.

    Returns:
        [N, C, H, W] or [C, H, W]; channels_last where input is, on CUDA too (PyTorch's is contiguous there).

    Raises:
        ValueError, RuntimeError: where `torch.nn.functional.max_unpool2d` raises them. An index outside the output
            raises on the CPU alone; on a GPU, where looking would wait for the device, it is left out.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> values, indices = cnnkernels.functional.max_pool2d(image, 2, return_indices=True)
        >>> cnnkernels.functional.max_unpool2d(values, indices, 2)
        tensor([[[[ 0.,  0.,  0.,  0.],
                  [ 0.,  5.,  0.,  7.],
                  [ 0.,  0.,  0.,  0.],
                  [ 0., 13.,  0., 15.]]]])
    """
    if has_torch_function_variadic(input, indices):
        return handle_torch_function(
            max_unpool2d,
            (input, indices),
            input,
            indices,
            kernel_size,
            stride=stride,
            padding=padding,
            output_size=output_size,
        )
    check_is_tensor("max_unpool2d", "input", input)
    check_is_tensor("max_unpool2d", "indices", indices)
    if under_autocast(input.device):
        (input,) = _ops.cast_unpool_for_autocast(input.device.type, input)
    backend = serving("max_unpool2d", input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose((input, indices, kernel_size, stride, padding, output_size), max_unpool2d)
    if backend == "reference" or input.numel() == 0:
        return _reference.max_unpool2d(input, indices, kernel_size, stride, padding, output_size)
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"Input to max_unpooling2d should be a 3d or 4d Tensor, but got a tensor with {input.dim()} dimensions."
        )
    if indices.dtype != torch.int64:
        raise RuntimeError(f"elements in indices should be type int64 but got: {indices.dtype}")
    if indices.shape != input.shape:
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) "
            f"but got indices tensor with shape: {list(indices.shape)}"
        )
    check_device("indices", indices, "input", input.device)
    window = as_pair("max_unpool2d", "kernel_size", kernel_size)
    steps = window if stride is None else as_pair("max_unpool2d", "stride", stride)
    size = unpooled_size(input.shape[-2:], window, steps, as_pair("max_unpool2d", "padding", padding), output_size)
    if input.dim() == 4:
        return _ops.max_unpool_forward(input, indices, size, backend)
    return _ops.max_unpool_forward(input.unsqueeze(0), indices.unsqueeze(0), size, backend).squeeze(0)
