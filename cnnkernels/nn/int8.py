"""Layers of INT8, for inference: weights of one byte, exact integer sums, floating numbers only between them.

They are made of trained layers by `from_float`, or empty, to load a state_dict into. Their tensors are buffers, not
parameters: nothing here has a gradient. `half()` or `to(dtype)` leave int8 weights and float32 scales as they are;
what is floating comes out in the input's dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional as F
from ..activation import NEGATIVE_SLOPE
from ..backends import traced_for_onnx, use_backend
from ..dtypes import INT8_DTYPES, ROUNDED_DTYPES
from ..functional.arguments import checked_activation
from ..functional.int8_arguments import checked_scale, checked_zero_point
from . import onnx
from .conv import Conv2dAct
from .numbered import NumberedLayer

MODES = ("static", "dynamic", "weight_only")


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


class Int8Linear(Int8Layer):
    """A linear layer with an int8 weight [out_features, in_features].

    Modes:
        static: a floating input is quantized with input_scale; integers are taken as they are. Products are INT8.
        dynamic: each row of a floating input is quantized by its own largest magnitude. Products are INT8.
        weight_only: only the weight is int8, and is read as such (`functional.int8_weight_only_linear`, which says when
            it is widened and PyTorch multiplies). Products are floating; an input may have a gradient.

    Args:
        in_features, out_features, bias, device: as torch.nn.Linear's.
        mode: "static", "dynamic" or "weight_only".
        numbers: those of `Int8Layer`. input_scale is static's, integer outputs are not weight_only's.

    Raises:
        ValueError: an unknown mode, or a number that is out of range or not the mode's.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        *,
        mode: str = "static",
        **numbers: Any,
    ) -> None:
        weight = torch.zeros(out_features, in_features, dtype=torch.int8, device=device)
        super().__init__(weight, bias, **_numbers_of(mode, numbers))
        self.in_features, self.out_features, self.mode = in_features, out_features, mode

    @classmethod
    def from_float(
        cls, layer: torch.nn.Linear, *, mode: str = "static", weight_scale: Tensor | None = None, **numbers: Any
    ) -> Int8Linear:
        """The INT8 form of a linear layer.

        Args:
            layer: a torch.nn.Linear of any floating dtype; it is left as it is.
            mode: see the class. static needs `input_scale=`.
            weight_scale: float32 [out_features]; None makes each output's largest magnitude 127.
            numbers: those of `Int8Layer`.

        Raises:
            TypeError: layer is no linear layer.
            ValueError: weights that are not finite, and as the class.
        """
        if not isinstance(layer, torch.nn.Linear):
            raise TypeError(f"Int8Linear.from_float: expected a torch.nn.Linear, but got {type(layer).__name__}")
        if mode == "static":
            numbers.setdefault("input_scale", None)
        has_bias = layer.bias is not None
        made = cls(layer.in_features, layer.out_features, has_bias, layer.weight.device, mode=mode, **numbers)
        made._take(layer.weight, layer.bias, weight_scale)
        return made.train(layer.training)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        if self.mode != "static" and not input.is_floating_point():
            raise RuntimeError(f"Int8Linear: mode={self.mode!r} needs a floating input, but got {input.dtype}")
        if traced_for_onnx():
            return onnx.layer(self, input, residual, torch.nn.functional.linear)
        with self._backend():
            if self.mode == "weight_only":
                return self._weight_only(input, residual)
            weight, bias = self._integers, self._buffers["bias"]
            return F.int8_linear(input, weight, self.input_scale, self.weight_scale, bias, **self._epilogue(residual))

    def _weight_only(self, input: Tensor, residual: Tensor | None) -> Tensor:
        given = self._epilogue(residual)
        for name in ("input_zero_point", "out_scale", "out_zero_point", "weight_sum"):
            del given[name]
        return F.int8_weight_only_linear(input, self._integers, self.weight_scale, self._buffers["bias"], **given)

    def get_extra_state(self) -> dict[str, Any]:
        return {**super().get_extra_state(), "mode": self.mode}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.mode = state["mode"]
        super().set_extra_state({name: value for name, value in state.items() if name != "mode"})

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, mode={self.mode}, {super().extra_repr()}"


def _numbers_of(mode: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """An Int8Linear's numbers, checked to go with its mode."""
    if mode not in MODES:
        raise ValueError(f"Int8Linear: mode must be one of {', '.join(MODES)}, but got mode={mode!r}")
    if mode == "static":
        if numbers.get("input_scale", 1.0) is None:
            raise ValueError("Int8Linear: mode='static' needs input_scale")
        return numbers
    for name in ("input_scale", "input_zero_point", *(("out_scale",) if mode == "weight_only" else ())):
        if numbers.get(name):
            raise ValueError(f"Int8Linear: {name}={numbers[name]} does not go with mode={mode!r}")
    return {**numbers, "input_scale": None}


class Int8Conv2d(Int8Layer):
    """A convolution with an int8 weight [out_channels, in_channels / groups, R, S], channels_last in memory.

    A floating input is quantized with input_scale; integers are taken as they are. The output is channels_last.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device: as
            torch.nn.Conv2d's.
        numbers: those of `Int8Layer`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        **numbers: Any,
    ) -> None:
        # torch.nn.Conv2d checks the arguments and brings them into one form; on meta it holds no weights.
        modes: Any = padding_mode
        form = torch.nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, modes, device="meta"
        )  # fmt: skip
        weight = torch.zeros(form.weight.shape, dtype=torch.int8, device=device)
        super().__init__(weight.contiguous(memory_format=torch.channels_last), bias, **numbers)
        if self.input_scale is None:
            raise ValueError("Int8Conv2d: expected an input_scale")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, form.kernel_size
        self.stride, self.padding, self.dilation, self.groups = form.stride, form.padding, form.dilation, groups
        self.padding_mode = padding_mode
        self._both_sides = form._reversed_padding_repeated_twice

    @classmethod
    def from_float(
        cls,
        layer: torch.nn.Conv2d,
        *,
        input_scale: float,
        activation: str | None = None,
        weight_scale: Tensor | None = None,
        **numbers: Any,
    ) -> Int8Conv2d:
        """The INT8 form of a convolution.

        Args:
            layer: a torch.nn.Conv2d of any floating dtype; it is left as it is. The scale and shift of a
                `cnnkernels.nn.Conv2dAct` are folded into weight and bias, and its activation is kept.
            input_scale: of the integers that it will be given.
            activation: what follows instead of the layer's own.
            weight_scale: float32 [out_channels]; None makes each filter's largest magnitude 127.
            numbers: those of `Int8Layer`.

        Raises:
            TypeError: layer is no convolution.
            ValueError: weights that are not finite, or a number out of range.
        """
        if not isinstance(layer, torch.nn.Conv2d):
            raise TypeError(f"Int8Conv2d.from_float: expected a torch.nn.Conv2d, but got {type(layer).__name__}")
        weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
        if isinstance(layer, Conv2dAct):
            weight, bias = folded_weight(layer, weight, bias)
            if activation is None:
                activation = layer.activation
                numbers.setdefault("negative_slope", layer.negative_slope)
        form: Any = layer  # torch.nn.Conv2d's annotations know not that its pairs are pairs
        made = cls(
            form.in_channels, form.out_channels, form.kernel_size, form.stride, form.padding, form.dilation,
            form.groups, bias is not None, form.padding_mode, weight.device,
            input_scale=input_scale, activation=activation, **numbers,
        )  # fmt: skip
        made._take(weight, bias, weight_scale)
        return made.train(layer.training)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        padding: Any = self.padding
        if traced_for_onnx():
            return onnx.layer(self, input, residual, self._product)
        if self.padding_mode != "zeros":
            # PyTorch pads no integers this way; floats hold them exactly.
            padded = torch.nn.functional.pad(input.float(), self._both_sides, mode=self.padding_mode)
            input, padding = padded.to(input.dtype), 0
        with self._backend():
            return F.int8_conv2d(
                input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups,
                input_scale=self.input_scale, weight_scale=self.weight_scale, **self._epilogue(residual),
            )  # fmt: skip

    def _product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """In floats, for ONNX."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = torch.nn.functional.pad(input, self._both_sides, mode=self.padding_mode), 0
        return torch.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", (0, 0)), ("dilation", (1, 1)), ("groups", 1), ("padding_mode", "zeros")):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        return f"{text}, {super().extra_repr()}"


def folded_weight(layer: Conv2dAct, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with the layer's scale and shift in them."""
    if layer.scale is not None:
        weight = weight * layer.scale.detach()[:, None, None, None]
        bias = None if bias is None else bias * layer.scale.detach()
    if layer.shift is not None:
        bias = layer.shift.detach() if bias is None else bias + layer.shift.detach()
    return weight, bias
