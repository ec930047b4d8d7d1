"""What the INT8 functions take, checked: scales, zero points and the rest of an epilogue.

Numbers and tensors on the CPU are looked at. Tensors on a GPU never are: reading them would wait for the device.
Errors name the argument and its value. A tensor of the wrong type, size or device is a RuntimeError, as in PyTorch; a
value out of range a ValueError; what is no number or tensor at all a TypeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..activation import NEGATIVE_SLOPE
from ..dtypes import INT8_DTYPES, ROUNDED_DTYPES
from ..int8.epilogue import Int8Epilogue
from ..ops.operator import is_plain
from .arguments import check_device, check_is_tensor, checked_activation

LARGEST = 2**31 - 1
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # float32's normal numbers

Shapes = Sequence[tuple[int, ...]]


class Names(NamedTuple):
    """What a function calls the operands and their numbers."""

    a: str = "a"
    b: str = "b"
    scale_a: str = "scale_a"
    scale_b: str = "scale_b"
    zero_point_a: str = "zero_point_a"
    zero_point_b: str = "zero_point_b"
    sums_b: str = "sums_b"


LAYER = Names("input", "weight", "input_scale", "weight_scale", "input_zero_point", "weight_zero_point", "weight_sum")


class Given(NamedTuple):
    """An epilogue as a function's caller gives it, by keywords; None is what was not given."""

    scale_a: Any = None
    scale_b: Any = None
    zero_point_a: Any = None
    zero_point_b: Any = None
    bias: Any = None
    residual: Any = None
    residual_scale: Any = None
    residual_zero_point: Any = None
    activation: Any = None
    negative_slope: Any = NEGATIVE_SLOPE
    out_dtype: Any = None
    out_scale: Any = None
    out_zero_point: Any = None
    sums_b: Any = None

    def fits_int32(self) -> bool:
        """Whether nothing is left to do after the sums."""
        after = self.scale_a, self.scale_b, self.bias, self.residual, self.out_scale, self.out_zero_point
        return all(value is None for value in after) and self.activation in (None, "none")


def refuse_gradients(op: str, **tensors: Any) -> None:
    """Raises where a gradient would be wanted: rounding to integers has none.

    Raises:
        RuntimeError: naming the tensor.
    """
    if not torch.is_grad_enabled():
        return
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.requires_grad:
            raise RuntimeError(
                f"{op}: {name} requires grad, but INT8 operators are for inference and have no gradient: call it under "
                "torch.no_grad(), or train with fake-quantize layers (quantization-aware training) and convert those"
            )


def check_operand(op: str, name: str, tensor: Any, dtypes: Sequence[torch.dtype], dims: int) -> None:
    check_is_tensor(op, name, tensor)
    if tensor.dtype not in dtypes:
        words = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise RuntimeError(f"{op}: expected {name} to be of dtype {words}, but got {tensor.dtype}")
    if tensor.dim() != dims:
        raise RuntimeError(f"{op}: expected {name} to have {dims} dimensions, but got size {list(tensor.shape)}")


def check_reduction(op: str, names: Names, a: Tensor, length: int, given: Given) -> None:
    """Refuses sums of `length` products that an int32 might not hold.

    An operand of uint8, or with a zero point, is at most 255 from it; another at most 128 from zero.
    """
    wide_a = a.dtype is torch.uint8 or _has_zero_point(given.zero_point_a)
    wide_b = _has_zero_point(given.zero_point_b)
    most = LARGEST // ((255 if wide_a else 128) * (255 if wide_b else 128))
    if length > most:
        kinds = (
            f"{name} {'of uint8 or with a zero point' if wide else 'of int8'}"
            for name, wide in ((names.a, wide_a), (names.b, wide_b))
        )
        raise ValueError(
            f"{op}: sums of K={length} products could overflow int32; with {' and '.join(kinds)} K is at most {most}"
        )


def _has_zero_point(value: Any) -> bool:
    return isinstance(value, Tensor) or bool(value)


def checked_epilogue(
    op: str,
    names: Names,
    a: Tensor,
    given: Given,
    size: Sequence[int],
    rows: Shapes,
    columns: Shapes,
    default: torch.dtype | None = None,
) -> tuple[Int8Epilogue, torch.dtype]:
    """The epilogue as the operators take it, and the output's dtype.

    Args:
        size: the output's.
        rows, columns: the sizes that a tensor of numbers for each row or each column may have, besides one element.
        default: the output's dtype where neither out_dtype nor out_scale is given and int32 will not do.
    """
    device, g = a.device, given
    where = names.a, device
    refuse_gradients(
        op,
        **{names.scale_a: g.scale_a, names.scale_b: g.scale_b},
        bias=g.bias,
        residual=g.residual,
        out_scale=g.out_scale,
    )
    out_dtype = _output_dtype(op, given, default)
    activation, slope = checked_activation(op, g.activation, g.negative_slope)
    quantized = out_dtype in INT8_DTYPES
    if not quantized and (g.out_scale is not None or g.out_zero_point is not None):
        name = "out_scale" if g.out_scale is not None else "out_zero_point"
        raise ValueError(f"{op}: {name}={getattr(g, name)} is for out_dtype int8 or uint8, but got {out_dtype}")
    if quantized and g.out_scale is None:
        raise ValueError(f"{op}: out_dtype={out_dtype} needs out_scale")
    residual_scale, residual_zero_point = _residual(op, where, given, size)
    return Int8Epilogue(
        checked_scales(op, names.scale_a, g.scale_a, where, rows),
        checked_scales(op, names.scale_b, g.scale_b, where, columns),
        checked_zero_points(op, names.zero_point_a, g.zero_point_a, where, rows, a.dtype),
        checked_zero_points(op, names.zero_point_b, g.zero_point_b, where, columns, torch.int8),
        _vector(op, "bias", g.bias, where, columns[0], torch.float32),
        g.residual,
        residual_scale,
        residual_zero_point,
        activation,
        slope,
        checked_scales(op, "out_scale", g.out_scale, where, ()),
        _integer(op, "out_zero_point", g.out_zero_point, out_dtype) if quantized else 0,
        _vector(op, names.sums_b, g.sums_b, where, columns[0], torch.int32),
    ), out_dtype


def checked_input(op: str, input: Tensor, scale: Any, zero_point: Any) -> tuple[float | Tensor, int | Tensor]:
    """The scale and zero point that a layer's floating input is quantized with, to int8."""
    where = LAYER.a, input.device
    return (
        checked_scales(op, LAYER.scale_a, scale, where, ()),
        checked_zero_points(op, LAYER.zero_point_a, zero_point, where, (), torch.int8),
    )


def _output_dtype(op: str, given: Given, default: torch.dtype | None) -> torch.dtype:
    dtype = given.out_dtype
    if dtype is None:
        if given.out_scale is not None:
            return torch.int8
        return torch.int32 if given.fits_int32() else default or torch.float32
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{op}(): argument 'out_dtype' must be torch.dtype, not {type(dtype).__name__}")
    if dtype is torch.int32:
        if not given.fits_int32():
            raise ValueError(
                f"{op}: out_dtype=torch.int32 gives the sums themselves: scales, bias, residual, activation, out_scale "
                "and out_zero_point must be None"
            )
    elif dtype not in (*ROUNDED_DTYPES, *INT8_DTYPES):
        raise ValueError(
            f"{op}: out_dtype must be int32, float32, float16, bfloat16, int8 or uint8, but got out_dtype={dtype}"
        )
    return dtype


def checked_scales(op: str, name: str, value: Any, where: tuple[str, torch.device], shapes: Shapes) -> float | Tensor:
    """A number, or a vector: of one element or of a tensor of one of the sizes; 1 where nothing is given.

    Args:
        where: the first operand's name and device.
    """
    if value is None:
        return 1.0
    if isinstance(value, Tensor):
        vector = _numbers(op, name, value, where, shapes, torch.float32)
        if value.device.type == "cpu" and value.numel() > 0 and is_plain(value):
            low, high = torch.aminmax(value)
            if not (low >= SMALLEST_SCALE and high <= LARGEST_SCALE):  # NaN fails both
                right = (value >= SMALLEST_SCALE) & (value <= LARGEST_SCALE)
                checked_scale(op, f"every element of {name}", value[~right][0].item())
        return vector
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{op}(): argument '{name}' must be float or Tensor, not {type(value).__name__}")
    return checked_scale(op, name, float(value))


def checked_scale(op: str, name: str, value: float) -> float:
    """A positive number of fp32, no subnormal one, which some processors take for 0.

    Raises:
        ValueError: it is none.
    """
    if not SMALLEST_SCALE <= value <= LARGEST_SCALE:
        raise ValueError(f"{op}: {name} must be positive and finite (1.2e-38 to 3.4e38), but got {value}")
    return value


def checked_zero_points(
    op: str, name: str, value: Any, where: tuple[str, torch.device], shapes: Shapes, dtype: torch.dtype
) -> int | Tensor:
    """The same of zero points, which are values of `dtype`; 0 where nothing is given."""
    if not isinstance(value, Tensor):
        return _integer(op, name, value, dtype)
    vector = _numbers(op, name, value, where, shapes, torch.int32)
    if value.device.type == "cpu" and value.numel() > 0 and is_plain(value):
        for extreme in torch.aminmax(value):
            _integer(op, name, int(extreme), dtype)
    return vector


def _integer(op: str, name: str, value: Any, dtype: torch.dtype) -> int:
    """A zero point that is a number: of the range of the values that it belongs to."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{op}(): argument '{name}' must be int, not {type(value).__name__}")
    return checked_zero_point(op, name, int(value), dtype)


def checked_zero_point(op: str, name: str, value: int, dtype: torch.dtype) -> int:
    """A zero point that is one of the values of `dtype`.

    Raises:
        ValueError: it is not.
    """
    limits = torch.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        raise ValueError(f"{op}: {name} must be {limits.min} to {limits.max} for {dtype}, but got {name}={value}")
    return value


def _numbers(
    op: str, name: str, tensor: Tensor, where: tuple[str, torch.device], shapes: Shapes, dtype: torch.dtype
) -> Tensor:
    """A tensor of one element or of one of the sizes, as a vector."""
    if tensor.numel() != 1 and tuple(tensor.shape) not in shapes:
        sizes = " or ".join(str(list(shape)) for shape in ((1,), *shapes))
        raise RuntimeError(f"{op}: expected {name} to be of size {sizes}, but got {list(tensor.shape)}")
    return _typed(op, name, tensor, where, dtype).reshape(-1)


def _vector(
    op: str, name: str, tensor: Any, where: tuple[str, torch.device], shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor | None:
    if tensor is None:
        return None
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{op}(): argument '{name}' must be Tensor or None, not {type(tensor).__name__}")
    if tuple(tensor.shape) != shape:
        raise RuntimeError(f"{op}: expected {name} to be of size {list(shape)}, but got {list(tensor.shape)}")
    return _typed(op, name, tensor, where, dtype)


def _typed(op: str, name: str, tensor: Tensor, where: tuple[str, torch.device], dtype: torch.dtype) -> Tensor:
    if tensor.dtype != dtype:
        raise RuntimeError(f"{op}: expected {name} to be of dtype {dtype}, but got {tensor.dtype}")
    check_device(name, tensor, *where)
    return tensor


def _residual(op: str, where: tuple[str, torch.device], given: Given, size: Sequence[int]) -> tuple[float, int]:
    """Checks the residual; its scale and zero point."""
    residual, scale, zero_point = given.residual, given.residual_scale, given.residual_zero_point
    if residual is None or (isinstance(residual, Tensor) and residual.dtype in ROUNDED_DTYPES):
        for name, value in (("residual_scale", scale), ("residual_zero_point", zero_point)):
            if value is not None:
                kind = "None" if residual is None else residual.dtype
                raise ValueError(f"{op}: {name}={value} is for a residual of int8 or uint8, but residual is {kind}")
        if residual is None:
            return 1.0, 0
    if not isinstance(residual, Tensor):
        raise TypeError(f"{op}(): argument 'residual' must be Tensor or None, not {type(residual).__name__}")
    if residual.dtype not in (*ROUNDED_DTYPES, *INT8_DTYPES):
        raise RuntimeError(
            f"{op}: expected residual to be of dtype float32, float16, bfloat16, int8 or uint8, but got "
            f"{residual.dtype}"
        )
    if tuple(residual.shape) != tuple(size):
        raise RuntimeError(f"{op}: expected residual to be of size {list(size)}, but got {list(residual.shape)}")
    check_device("residual", residual, *where)
    if residual.dtype in ROUNDED_DTYPES:
        return 1.0, 0
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(
            f"{op}(): argument 'residual_scale' must be float for a residual of {residual.dtype}, not "
            f"{type(scale).__name__}"
        )
    return (
        checked_scale(op, "residual_scale", float(scale)),
        _integer(op, "residual_zero_point", zero_point, residual.dtype),
    )
