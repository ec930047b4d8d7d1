"""Transposed convolution with what follows it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE
from ..epilogue import Epilogue
from .arguments import Ints, check_is_tensor, checked_activation
from .transpose import transpose


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
) -> Tensor:
    """Two-dimensional transposed convolution, as `torch.nn.functional.conv_transpose2d`, with what follows it.

        output[n,k,h,w] = activation(scale[k] (sum + bias[k]) + shift[k] + residual[n,k,h,w]),   sum = sum over c,r,s of
            input[n,c,p,q] weight[c,k,r,s]   where p stride + r dilation - padding = h and likewise q, s and w

    Args:
        input: [N, C, P, Q] or [C, P, Q]; types and sums as `conv2d`'s.
        weight: [C, K / groups, R, S], of input's dtype and device.
        bias: [K] or None; what no filter reaches is bias and what follows it.
        stride, dilation: an int or a pair (rows, columns), at least 1.
        padding: an int or a pair: rows and columns that the result leaves out on both sides.
        output_padding: an int or a pair: more of them after the last, below stride or below dilation.
        groups: splits channels into that many independent convolutions.
        activation, residual, scale, shift, negative_slope: as `conv2d`'s.

    Returns:
        [N, K, H, W] or [K, H, W] with H = (P - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1;
        channels_last where input or weight is, else contiguous. The gradient of weight has its strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.conv_transpose2d` raises them, and for a residual, scale or
            shift of another size, dtype or device.
        ValueError, NotImplementedError, ImportError: as `conv2d`.

    Example:
        >>> pixel = torch.ones(1, 1, 2, 2)
        >>> cnnkernels.functional.conv_transpose2d(pixel, torch.ones(1, 1, 3, 3), stride=2)  # windows overlap
        tensor([[[[1., 1., 2., 1., 1.],
                  [1., 1., 2., 1., 1.],
                  [2., 2., 4., 2., 2.],
                  [1., 1., 2., 1., 1.],
                  [1., 1., 2., 1., 1.]]]])
    """
    return _served(
        2, conv_transpose2d, input, weight, bias, stride, padding, output_padding, groups, dilation,
        activation, residual, scale, shift, negative_slope,
    )  # fmt: skip


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
) -> Tensor:
    """One-dimensional transposed convolution, as `torch.nn.functional.conv_transpose1d`: `conv_transpose2d` of planes
    of one row, on the same kernels.

    Args:
        input: [N, C, Q] or [C, Q].
        weight: [C, K / groups, S].
        stride, padding, output_padding, dilation: an int, or one in a tuple; all else as `conv_transpose2d`'s.

    Returns:
        [N, K, W] or [K, W], contiguous as PyTorch's.

    Raises:
        TypeError, RuntimeError, ValueError, NotImplementedError, ImportError: as `conv_transpose2d`.

    Example:
        >>> cnnkernels.functional.conv_transpose1d(torch.ones(1, 1, 2), torch.ones(1, 1, 3), stride=2)
        tensor([[[1., 1., 2., 1., 1.]]])
    """
    return _served(
        1, conv_transpose1d, input, weight, bias, stride, padding, output_padding, groups, dilation,
        activation, residual, scale, shift, negative_slope,
    )  # fmt: skip


def _served(
    rank: int,
    function: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    activation: str | None,
    residual: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    negative_slope: float,
) -> Tensor:
    given = (input, weight, bias, residual, scale, shift)
    if has_torch_function_variadic(*given):
        fused: dict[str, Any] = {"activation": activation, "residual": residual, "scale": scale, "shift": shift}
        fused = {name: value for name, value in fused.items() if value is not None}
        if negative_slope != NEGATIVE_SLOPE:
            fused["negative_slope"] = negative_slope
        return handle_torch_function(
            function, given, input, weight, bias=bias, stride=stride, padding=padding, output_padding=output_padding,
            groups=groups, dilation=dilation, **fused,
        )  # fmt: skip
    op = f"conv_transpose{rank}d"
    name, slope = checked_activation(op, activation, negative_slope)
    for argument, tensor in (("residual", residual), ("scale", scale), ("shift", shift)):
        if tensor is not None:
            check_is_tensor(op, argument, tensor)
    epilogue = Epilogue(scale, shift, residual, name, slope)
    return transpose(rank, input, weight, bias, stride, padding, output_padding, groups, dilation, epilogue)
