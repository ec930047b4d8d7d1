"""What the functional interface takes, as PyTorch takes it: numbers and pairs of them, tensors that fit each other.

Errors are of PyTorch's types and name the argument and its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from operator import index
from typing import Any

import torch
from torch import Tensor

from ..activation import ACTIVATIONS, NEGATIVE_SLOPE
from ..epilogue import Epilogue

Ints = int | Sequence[int]


def as_int(op: str, name: str, value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, torch.SymInt) or (isinstance(value, Tensor) and torch.jit.is_tracing()):
        return value  # type: ignore[return-value]
    try:
        if not isinstance(value, bool):
            return index(value)
    except TypeError:
        pass
    raise TypeError(f"{op}(): argument '{name}' must be int or a tuple of 2 ints, but got {name}={value!r}")


def as_pair(op: str, name: str, value: Any) -> tuple[int, int]:
    """An int, or one or two of them, as a pair."""
    if type(value) is int:
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int:
        return value  # a layer's
    if not isinstance(value, Sequence) or isinstance(value, str):
        value = (as_int(op, name, value),)
    if len(value) not in (1, 2):
        raise RuntimeError(
            f"{op}: expected {name} to be a single integer value or a list of 2 values, but got {name}={list(value)}"
        )
    return as_int(op, name, value[0]), as_int(op, name, value[-1])


def as_axes(op: str, name: str, value: Any, rank: int) -> tuple[int, ...]:
    """An int, or one or `rank` of them, as a number for each spatial axis of a convolution."""
    if rank == 2:
        return as_pair(op, name, value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        value = (value,)
    if len(value) != 1:
        raise RuntimeError(
            f"{op}: expected {name} to be a single integer value or a list of 1 values, but got {name}={list(value)}"
        )
    return (as_int(op, name, value[0]),)


def as_single(op: str, name: str, value: Any) -> int:
    """An int, or one in a sequence."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        value = (value,)
    if len(value) != 1:
        raise RuntimeError(f"{op}() argument '{name}' should contain one int, but got {name}={tuple(value)}")
    return as_int(op, name, value[0])


def under_autocast(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)


def check_is_tensor(op: str, name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}(): argument '{name}' must be Tensor, not {type(value).__name__}")


def check_dimensions(op: str, input: Tensor, weight: Tensor, rank: int = 2) -> None:
    if input.dim() not in (rank + 1, rank + 2):
        raise RuntimeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {op}, but got input of size: "
            f"{list(input.shape)}"
        )
    if weight.dim() != rank + 2:
        raise RuntimeError(
            f"{op}: weight should have {rank + 2} dimensions, but got weight of size {list(weight.shape)}"
        )


def check_device(name: str, tensor: Tensor, first: str, device: torch.device) -> None:
    if tensor.device != device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but got {first} on {device} and {name} on {tensor.device}"
        )


def check_like(name: str, tensor: Tensor, input: Tensor) -> None:
    """Raises PyTorch's errors for a tensor that is not of input's dtype, and on its device."""
    if tensor.dtype is input.dtype and tensor.device == input.device:
        return
    if tensor.dtype is not input.dtype:
        raise RuntimeError(f"Input type ({input.dtype}) and {name} type ({tensor.dtype}) should be the same")
    check_device(name, tensor, "input", input.device)


def check_conv_tensors(op: str, input: Tensor, weight: Tensor, bias: Tensor | None, rank: int = 2) -> None:
    check_dimensions(op, input, weight, rank)
    check_like("weight", weight, input)
    if bias is not None:
        check_bias(f"Given weight of size {list(weight.shape)}", bias, weight.shape[0], input)


def check_bias(given: str, bias: Tensor, elements: int, input: Tensor) -> None:
    if bias.dim() != 1 or bias.shape[0] != elements:
        raise RuntimeError(
            f"{given}, expected bias to be 1-dimensional with {elements} elements, but got bias of size "
            f"{list(bias.shape)} instead"
        )
    check_like("bias", bias, input)


def check_epilogue(op: str, input: Tensor, epilogue: Epilogue, size: Sequence[int], rank: int = 2) -> None:
    """Raises PyTorch's errors for a scale, shift or residual that does not fit an output of `size`."""
    channels = size[-rank - 1 : -rank]
    for name, wanted in (("scale", channels), ("shift", channels), ("residual", size)):
        tensor = getattr(epilogue, name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != tuple(wanted):
            raise RuntimeError(f"{op}: expected {name} to be of size {list(wanted)}, but got {list(tensor.shape)}")
        check_like(name, tensor, input)


def check_groups(op: str, groups: Any) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{op}(): argument 'groups' must be int, but got groups={groups!r}")


def checked_activation(
    op: str, activation: Any, negative_slope: Any = NEGATIVE_SLOPE, name: str = "activation"
) -> tuple[str, float]:
    """An activation's name and leaky_relu's slope as the kernels take them.

    Args:
        op, name: the function whose argument this is and the argument's name, for the error.
        activation: one of `ACTIVATIONS`, or None for "none".
        negative_slope: what leaky_relu multiplies negative values by; the others take no notice of it.

    Raises:
        TypeError: `activation` is no string, or `negative_slope` no number.
        ValueError: `activation` is no activation.
    """
    if activation is None:
        activation = "none"
    if not isinstance(activation, str):
        raise TypeError(f"{op}(): argument '{name}' must be str or None, not {type(activation).__name__}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: {name} must be None or one of {', '.join(ACTIVATIONS)}, but got {activation!r}")
    if isinstance(negative_slope, bool) or not isinstance(negative_slope, Real):
        raise TypeError(f"{op}(): argument 'negative_slope' must be float, not {type(negative_slope).__name__}")
    return activation, float(negative_slope)


def sides(
    op: str, kernel: Sequence[int], stride: Sequence[int], padding: str | Ints, dilation: Sequence[int]
) -> tuple[int, ...]:
    """What stands (before, after) each axis, first axis first, of a convolution's padding."""
    if padding == "causal" and op == "conv1d":
        return dilation[0] * (kernel[0] - 1), 0
    if isinstance(padding, str):
        return named_padding(padding, kernel, stride, dilation)
    return tuple(side for pad in as_axes(op, "padding", padding, len(kernel)) for side in (pad, pad))


def named_padding(
    padding: str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """The sides of 'same' or 'valid'."""
    if padding == "valid":
        return (0,) * (2 * len(kernel))
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if any(step != 1 for step in stride):
        raise RuntimeError(f"padding='same' is not supported for strided convolutions, but got stride={stride}")
    reaches = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple(side for reach in reaches for side in (reach // 2, reach - reach // 2))


def pool_windows(
    op: str, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints, ceil_mode: bool
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], bool]:
    """Kernel size, stride, padding, dilation and ceil_mode as the pooling operators take them."""
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"{op}(): argument 'ceil_mode' must be bool, but got ceil_mode={ceil_mode!r}")
    window = as_pair(op, "kernel_size", kernel_size)
    defaulted = stride is None or (isinstance(stride, Sequence) and len(stride) == 0)
    return (
        window,
        window if defaulted else as_pair(op, "stride", stride),
        as_pair(op, "padding", padding),
        as_pair(op, "dilation", dilation),
        ceil_mode,
    )


def pool_windows_of_a_row(
    op: str, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints, ceil_mode: bool
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], bool]:
    """The same of pooling in one axis, whose input is a plane of one row."""
    window = as_single(op, "kernel_size", kernel_size)
    defaulted = stride is None or (isinstance(stride, Sequence) and len(stride) == 0)
    step = window if defaulted else as_single(op, "stride", stride)
    pad, apart = as_single(op, "padding", padding), as_single(op, "dilation", dilation)
    return pool_windows(op, (1, window), (1, step), (0, pad), (1, apart), ceil_mode)


def as_rows(input: Tensor) -> Tensor:
    """[N, C, 1, L] of [N, C, L] or [C, L]: a view."""
    rows = input.unsqueeze(-2)
    return rows if rows.dim() == 4 else rows.unsqueeze(0)


def from_rows(result: Tensor, input: Tensor) -> Tensor:
    """What came of as_rows(input), of as many axes as input."""
    return result.squeeze(-2) if input.dim() == 3 else result.squeeze(-2).squeeze(0)


def unpooled_size(
    input_size: Sequence[int],
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_size: Sequence[int] | None,
) -> tuple[int, int]:
    default = [
        (size - 1) * step + kernel - 2 * pad
        for size, kernel, step, pad in zip(input_size, kernel_size, stride, padding, strict=True)
    ]
    if output_size is None:
        size = default
    else:
        if len(output_size) not in (2, 4):
            raise ValueError(
                "output_size should be a sequence containing 2 or 4 elements, "
                f"but it has a length of '{len(output_size)}'"
            )
        size = [as_int("max_unpool2d", "output_size", extent) for extent in output_size[-2:]]
        for axis in (0, 1):
            low, high = default[axis] - stride[axis], default[axis] + stride[axis]
            if not low < size[axis] < high:
                raise ValueError(
                    f'invalid output_size "{tuple(output_size)}" (dim {axis} must be between {low} and {high})'
                )
    for axis in (0, 1):
        if size[axis] < 0:
            raise ValueError(
                "max_unpooling: output_size must contain non-negative spatial dimensions, "
                f"but got output_size[{axis}]={size[axis]}"
            )
    return size[0], size[1]
