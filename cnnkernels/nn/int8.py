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
from ..backends import traced_for_onnx
from . import onnx
from .conv import Conv2dAct
from .int8_layer import Int8Layer

MODES = ("static", "dynamic", "weight_only")


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

    Example:
        >>> layer = cnnkernels.nn.Int8Linear.from_float(torch.nn.Linear(16, 4), mode="dynamic")
        >>> layer(torch.zeros(2, 16)).shape, layer.weight.dtype
        (torch.Size([2, 4]), torch.int8)
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

    Example:
        >>> layer = cnnkernels.nn.Int8Conv2d.from_float(torch.nn.Conv2d(16, 4, 3), input_scale=0.1)
        >>> layer(torch.zeros(1, 16, 8, 8)).shape, layer.weight.dtype
        (torch.Size([1, 4, 6, 6]), torch.int8)
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
