"""What layers of INT8 share: weights, and the numbers that turn integers into what they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..activation import NEGATIVE_SLOPE
from ..dtypes import INT8_DTYPES, ROUNDED_DTYPES
from ..functional.arguments import checked_activation
from ..functional.int8_arguments import checked_scale, checked_zero_point
from ..scope import use_backend
from .numbered import NumberedLayer


def _scale(layer: str, name: str, value: Any) -> float | None:
    """A Python number, which a state_dict can keep, or None."""
    return None if value is None else checked_scale(layer, name, float(value))


class Int8Layer(NumberedLayer):
    """What Int8Linear and Int8Conv2d share: weights, and the numbers that turn integers into what they stand for.

    Buffers:
        weight: int8, the first axis counts outputs; what it stands for is weight weight_scale.
        weight_scale: float32 [outputs].
        weight_sum: int32 [outputs], weight summed for each output; an input with a zero point needs it.
        bias: float32 [outputs], or None.

        scales, zero_points: of input, output and residual, as `NumberedLayer` keeps them.

    Numbers, which are keyword arguments and attributes; what is no scale or zero point is the state_dict's extra state:
        input_scale, input_zero_point: an integer input q stands for (q - input_zero_point) input_scale, and a floating
            one is quantized so, to int8.
        out_scale, out_zero_point: the output's, if it is to be integers; out_scale None gives a floating one.
        out_dtype: int8 (None) or uint8 where there is an out_scale; else a floating dtype, or None for that of a
            floating input, float32 after integers.
        residual_scale, residual_zero_point: of a residual of integers.
        activation, negative_slope: `cnnkernels.activation.ACTIVATIONS`, and leaky_relu's factor below zero.
    """

    scale_names = "input_scale", "out_scale", "residual_scale"
    zero_point_names = "input_zero_point", "out_zero_point", "residual_zero_point"
    weight: Tensor
    weight_scale: Tensor
    weight_sum: Tensor
    bias: Tensor | None
    input_scale: float | None
    input_zero_point: int
    out_scale: float | None
    out_zero_point: int
    residual_scale: float | None
    residual_zero_point: int
    out_dtype: torch.dtype | None
    activation: str
    negative_slope: float

    def __init__(self, weight: Tensor, bias: bool, **numbers: Any) -> None:
        super().__init__()
        outputs, device = weight.shape[0], weight.device
        self.register_buffer("weight", weight)
        self.register_buffer("weight_scale", torch.ones(outputs, dtype=torch.float32, device=device))
        self.register_buffer("weight_sum", torch.zeros(outputs, dtype=torch.int32, device=device))
        self.register_buffer("bias", torch.zeros(outputs, dtype=torch.float32, device=device) if bias else None)
        self._set_numbers(**numbers)

    def _set_numbers(
        self,
        input_scale: float | None = 1.0,
        input_zero_point: int = 0,
        out_scale: float | None = None,
        out_zero_point: int = 0,
        out_dtype: torch.dtype | None = None,
        residual_scale: float | None = None,
        residual_zero_point: int = 0,
        activation: str | None = None,
        negative_slope: float = NEGATIVE_SLOPE,
    ) -> None:
        name = type(self).__name__
        self.input_scale = _scale(name, "input_scale", input_scale)
        self.out_scale = _scale(name, "out_scale", out_scale)
        self.residual_scale = _scale(name, "residual_scale", residual_scale)
        if out_dtype not in ((None, *ROUNDED_DTYPES) if out_scale is None else (None, *INT8_DTYPES)):
            raise ValueError(f"{name}: out_dtype={out_dtype} does not go with out_scale={out_scale}")
        if out_scale is None and out_zero_point != 0:
            raise ValueError(f"{name}: out_zero_point={out_zero_point} needs out_scale")
        # Whether an input's or a residual's zero point is of int8 or uint8 is seen when the layer is called.
        for argument, zero_point in (
            ("input_zero_point", input_zero_point),
            ("residual_zero_point", residual_zero_point),
        ):
            if not -128 <= zero_point <= 255:
                raise ValueError(f"{name}: {argument} must be -128 to 255, but got {argument}={zero_point}")
        checked_zero_point(
            name, "out_zero_point", out_zero_point, out_dtype if out_dtype in INT8_DTYPES else torch.int8
        )
        self.input_zero_point, self.out_zero_point = int(input_zero_point), int(out_zero_point)
        self.residual_zero_point, self.out_dtype = int(residual_zero_point), out_dtype
        self.activation, self.negative_slope = checked_activation(name, activation, negative_slope)

    def _numbers(self) -> dict[str, Any]:
        names = (*self.scale_names, *self.zero_point_names, "out_dtype", "activation", "negative_slope")
        return {name: getattr(self, name) for name in names}

    def get_extra_state(self) -> dict[str, Any]:
        out_dtype = None if self.out_dtype is None else str(self.out_dtype).removeprefix("torch.")
        return {"out_dtype": out_dtype, "activation": self.activation, "negative_slope": self.negative_slope}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        numbers = self._numbers() | state
        if numbers["out_dtype"] is not None:
            numbers["out_dtype"] = getattr(torch, numbers["out_dtype"])
        self._set_numbers(**numbers)

    @property
    def _integers(self) -> Tensor:
        """The int8 weight, whatever a subclass shows as its weight."""
        integers = self._buffers["weight"]
        assert integers is not None
        return integers

    @torch.no_grad()
    def _take(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None) -> None:
        """Takes floating weights and a bias; without scales each output's largest magnitude becomes 127."""
        name = type(self).__name__
        rows = weight.detach().float().flatten(1)
        if rows.numel() and not all(end.isfinite() for end in torch.aminmax(rows)):
            raise ValueError(f"{name}.from_float: expected finite weights, but got {rows[~rows.isfinite()][0].item()}")
        if scale is not None and scale.shape != self.weight_scale.shape:
            raise ValueError(
                f"{name}.from_float: expected weight_scale to be of size {list(self.weight_scale.shape)}, but got "
                f"{list(scale.shape)}"
            )
        with use_backend("reference"):  # weights may lie where the backend in force has no kernels
            integers, scale = F.quantize_per_channel(rows, 0, scale)
        self.weight_scale.copy_(scale)
        self._integers.copy_(integers.view(weight.shape))
        self.weight_sum.copy_(integers.sum(1, dtype=torch.int32))
        if bias is not None and self.bias is not None:
            self.bias.copy_(bias)

    def _epilogue(self, residual: Tensor | None) -> dict[str, Any]:
        """The epilogue's arguments of `functional`."""
        integers = residual is not None and not residual.is_floating_point()
        return {
            "input_zero_point": self.input_zero_point,
            "activation": self.activation,
            "negative_slope": self.negative_slope,
            "residual": residual,
            "residual_scale": self.residual_scale if integers else None,
            "residual_zero_point": self.residual_zero_point if integers else None,
            "out_dtype": self.out_dtype,
            "out_scale": self.out_scale,
            "out_zero_point": None if self.out_scale is None else self.out_zero_point,
            "weight_sum": self.weight_sum,
        }

    def extra_repr(self) -> str:
        usual = {
            "input_zero_point": 0, "out_zero_point": 0, "residual_zero_point": 0, "activation": "none",
            "negative_slope": NEGATIVE_SLOPE,
        }  # fmt: skip
        told = [f"{name}={value}" for name, value in self._numbers().items() if value != usual.get(name)]
        return ", ".join([f"bias={self.bias is not None}", *told, *filter(None, [super().extra_repr()])])
