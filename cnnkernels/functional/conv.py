"""Convolution with what follows it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE
from ..epilogue import Epilogue
from ..geometry import PADDING_MODES
from .arguments import Ints, check_is_tensor, checked_activation
from .convolve import convolve


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
    padding_mode: str = "zeros",
) -> Tensor:
    """Two-dimensional convolution (cross-correlation), as `torch.nn.functional.conv2d`, with what follows it.

        output[n,k,p,q] = activation(scale[k] (sum + bias[k]) + shift[k] + residual[n,k,p,q]),   sum = sum over c,r,s of
            input[n, c, p stride - padding + r dilation, q stride - padding + s dilation] weight[k,c,r,s]

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16 (PyTorch's own operator, the backend
            "reference", takes more). 16-bit types are summed in float32 and rounded once. float32 is multiplied in
            tf32 exactly where `torch.backends.cudnn.conv.fp32_precision` is "tf32", in the interpreter too.
        weight: [K, C / groups, R, S], of input's dtype and device.
        bias: [K] or None.
        stride, dilation: an int or a pair (rows, columns), at least 1.
        padding: an int or a pair of zeros on both sides, "valid" (none), or "same" (output as large as input; the
            odd one of an uneven total goes after the last row or column; stride 1 only).
        groups: splits channels into that many independent convolutions.
        activation: None, "relu", "relu6", "leaky_relu", "silu", "gelu" (the exact one) or "hardswish".
        residual: of output's size, added before the activation; of any strides, best of output's.
        scale, shift: [K], a batch norm that was folded, say. They and residual are of input's dtype and device. All of
            it is computed in the sums' precision and rounded once, by the kernels themselves (of a depthwise
            convolution by PyTorch, in a second pass).
        negative_slope: leaky_relu's factor below zero.
        padding_mode: "zeros", or "reflect", "replicate" or "circular": input's own pixels, as `torch.nn.Conv2d`'s. Read
            through the index where the kernels can, else from a copy of input with its border (docs/conv.md).

    Returns:
        [N, K, P, Q] or [K, P, Q] with P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1; channels_last
        where input or weight is, else contiguous. Gradients of input and weight have their strides.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.conv2d` raises them, and for a residual, scale or shift of
            another size, dtype or device.
        ValueError: no activation or padding mode is called so.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.

    Example:
        >>> image = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> cnnkernels.functional.conv2d(image, torch.ones(1, 1, 2, 2), activation="relu")
        tensor([[[[ 8., 12.],
                  [20., 24.]]]])
    """
    return _served(
        2, conv2d, input, weight, bias, stride, padding, dilation, groups,
        activation, residual, scale, shift, negative_slope, padding_mode,
    )  # fmt: skip


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
    padding_mode: str = "zeros",
) -> Tensor:
    """One-dimensional convolution (cross-correlation), as `torch.nn.functional.conv1d`, with what follows it: `conv2d`
    of planes of one row, on the same kernels.

    Args:
        input: [N, C, L] or [C, L].
        weight: [K, C / groups, S].
        stride, dilation: an int, or one in a tuple.
        padding: an int, or one in a tuple, "valid", "same", or "causal": dilation (S - 1) before the first and none
            after the last, so that no output reads an input later than its own. Read through the index, not a copy.
        bias, groups, activation, residual, scale, shift, negative_slope, padding_mode: as `conv2d`'s.

    Returns:
        [N, K, Q] or [K, Q], contiguous as PyTorch's.

    Raises:
        TypeError, RuntimeError: where `torch.nn.functional.conv1d` raises them, and as `conv2d`.
        ValueError, NotImplementedError, ImportError: as `conv2d`.

    Example:
        >>> row = torch.arange(4.0).reshape(1, 1, 4)
        >>> cnnkernels.functional.conv1d(row, torch.ones(1, 1, 3), padding="causal")  # each sum ends at its own pixel
        tensor([[[0., 1., 3., 6.]]])
    """
    return _served(
        1, conv1d, input, weight, bias, stride, padding, dilation, groups,
        activation, residual, scale, shift, negative_slope, padding_mode,
    )  # fmt: skip


def _served(
    rank: int,
    function: Any,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints | str,
    dilation: Ints,
    groups: int,
    activation: str | None,
    residual: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    negative_slope: float,
    padding_mode: str,
) -> Tensor:
    if has_torch_function_variadic(input, weight, bias, residual, scale, shift):
        given = (input, weight, bias, residual, scale, shift)
        fused: dict[str, Any] = {"activation": activation, "residual": residual, "scale": scale, "shift": shift}
        fused = {name: value for name, value in fused.items() if value is not None}
        if negative_slope != NEGATIVE_SLOPE:
            fused["negative_slope"] = negative_slope
        if padding_mode != "zeros":
            fused["padding_mode"] = padding_mode
        return handle_torch_function(  # type: ignore[no-any-return]
            function, given, input, weight, bias=bias, stride=stride, padding=padding, dilation=dilation,
            groups=groups, **fused,
        )  # fmt: skip
    op = f"conv{rank}d"
    if padding_mode not in PADDING_MODES:
        raise ValueError(
            f"padding_mode must be one of {', '.join(PADDING_MODES)}, but got padding_mode={padding_mode!r}"
        )
    epilogue = None
    if not (activation is None and residual is None and scale is None and shift is None):
        name, slope = checked_activation(op, activation, negative_slope)
        for argument, tensor in (("residual", residual), ("scale", scale), ("shift", shift)):
            if tensor is not None:
                check_is_tensor(op, argument, tensor)
        epilogue = Epilogue(scale, shift, residual, name, slope)
    return convolve(op, input, weight, bias, stride, padding, dilation, groups, epilogue, padding_mode, rank)
