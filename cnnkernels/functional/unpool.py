"""max_pool2d's values back in their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..backends import serving
from ..ops import unpool as _max_unpool2d
from .arguments import Ints, as_pair, check_is_tensor, under_autocast, unpooled_size

_reference: Any = torch.nn.functional  # its annotations know fewer kinds of sequence than it takes


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
        (input,) = _max_unpool2d.cast_unpool_for_autocast(input.device.type, input)
    backend = serving("max_unpool2d", input.device, input.dtype)
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
    if indices.device != input.device:
        raise RuntimeError(
            "Expected all tensors to be on the same device, "
            f"but got input on {input.device} and indices on {indices.device}"
        )
    window = as_pair("max_unpool2d", "kernel_size", kernel_size)
    steps = window if stride is None else as_pair("max_unpool2d", "stride", stride)
    size = unpooled_size(input.shape[-2:], window, steps, as_pair("max_unpool2d", "padding", padding), output_size)
    if input.dim() == 4:
        return _max_unpool2d.max_unpool_forward(input, indices, size, backend)
    return _max_unpool2d.max_unpool_forward(input.unsqueeze(0), indices.unsqueeze(0), size, backend).squeeze(0)
