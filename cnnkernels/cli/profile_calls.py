"""A call of each operator for `cnnkernels profile`: tensors of the sizes that were asked for, and what they enter."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from ..dtypes import ELEMENTS

Directions = dict[str, tuple[int, ...]]  # what is differentiated, as places among the tensors
FORWARD: Directions = {"forward": ()}
POOLING = FORWARD | {"backward_input": (0,)}
CONVOLUTION = POOLING | {"backward_weight": (1,)}
SEPARABLE = POOLING | {"backward_weight": (1, 2)}


class Call(NamedTuple):
    """An operator's function and the tensors it takes, by name. `multiply_adds`: of the output, and again of each
    tensor's gradient, given the output."""

    function: Callable[..., Tensor]
    tensors: dict[str, Tensor]
    multiply_adds: Callable[[Tensor], int] = lambda output: 0


class Sizes:
    """What was asked for; makes tensors of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """Random numbers, small ones where they are integers, in the layout of images that was asked for."""
        dtype = dtype or ELEMENTS[self.args.dtype].dtype
        made = torch.rand(shape).to(dtype) if dtype.is_floating_point else torch.randint(0, 10, shape, dtype=dtype)
        if len(shape) == 4 and self.args.layout == "nhwc":
            return made.contiguous(memory_format=torch.channels_last)
        return made

    def needed(self, name: str, rank: int) -> tuple[int, ...]:
        """A size; ValueError where it is missing or has another number of axes."""
        given: tuple[int, ...] | None = getattr(self.args, name)
        if given is None or len(given) != rank:
            raise ValueError(f"{self.args.operator} needs --{name} of {rank} numbers, but got {given}")
        return given

    def steps(self) -> dict[str, Any]:
        """Of a convolution."""
        return {"stride": self.args.stride or (1,), "padding": self.args.padding, "dilation": self.args.dilation}

    def window(self, rank: int = 2) -> dict[str, Any]:
        """Of a pooling."""
        if self.args.kernel is None:
            raise ValueError(f"{self.args.operator} needs --kernel")
        sizes = {"kernel_size": self.args.kernel, "padding": self.args.padding}
        sizes["stride"] = self.args.stride or self.args.kernel
        return {name: size * (rank // len(size)) if len(size) < rank else size for name, size in sizes.items()}

    @property
    def integers(self) -> torch.dtype:
        return torch.uint8 if self.args.dtype == "uint8" else torch.int8


def _conv(rank: int) -> Callable[[Sizes], Call]:
    def make(sizes: Sizes) -> Call:
        args = sizes.args
        weight = sizes.needed("weight", 2 + rank)
        tensors = {"input": sizes.tensor(sizes.needed("input", 2 + rank)), "weight": sizes.tensor(weight)}
        options = {**sizes.steps(), "groups": args.groups}
        options |= {"activation": args.activation, "padding_mode": args.padding_mode}
        if args.bias:
            options["bias"] = torch.zeros(weight[0], dtype=tensors["input"].dtype)
        function: Any = functional.conv2d if rank == 2 else functional.conv1d
        return Call(
            lambda x, w: function(x, w, **options), tensors, lambda output: output.numel() * math.prod(weight[1:])
        )

    return make


def _conv_transpose(rank: int) -> Callable[[Sizes], Call]:
    """--weight is [C, K / groups, ...], as PyTorch has it."""

    def make(sizes: Sizes) -> Call:
        args = sizes.args
        image, weight = sizes.needed("input", 2 + rank), sizes.needed("weight", 2 + rank)
        tensors = {"input": sizes.tensor(image), "weight": sizes.tensor(weight)}
        options = {**sizes.steps(), "groups": args.groups, "activation": args.activation}
        if args.bias:
            options["bias"] = torch.zeros(weight[1] * args.groups, dtype=tensors["input"].dtype)
        function: Any = functional.conv_transpose2d if rank == 2 else functional.conv_transpose1d
        return Call(lambda x, w: function(x, w, **options), tensors, lambda _: math.prod(image) * math.prod(weight[1:]))

    return make


def _depthwise_conv2d(sizes: Sizes) -> Call:
    weight = sizes.needed("weight", 4)
    tensors = {"input": sizes.tensor(sizes.needed("input", 4)), "weight": sizes.tensor(weight)}
    return Call(
        lambda x, w: functional.depthwise_conv2d(x, w, **sizes.steps()),
        tensors,
        lambda output: output.numel() * math.prod(weight[2:]),
    )


def _depthwise_separable_conv2d(sizes: Sizes) -> Call:
    image, weight = sizes.needed("input", 4), sizes.needed("weight", 4)
    pointwise = (sizes.args.filters or weight[0], weight[0], 1, 1)
    tensors = {"input": image, "weight": weight, "pointwise": pointwise}
    taps = math.prod(weight[2:])
    return Call(
        lambda x, w, v: functional.depthwise_separable_conv2d(x, w, v, **sizes.steps()),
        {name: sizes.tensor(shape) for name, shape in tensors.items()},
        lambda output: output.numel() // pointwise[0] * weight[0] * (taps + pointwise[0]),
    )


def _max_pool(rank: int) -> Callable[[Sizes], Call]:
    def make(sizes: Sizes) -> Call:
        options = {**sizes.window(rank), "dilation": sizes.args.dilation, "ceil_mode": sizes.args.ceil_mode}
        function: Any = functional.max_pool2d if rank == 2 else functional.max_pool1d
        return Call(
            lambda x: function(x, **options), {"input": sizes.tensor(sizes.needed("input", 2 + rank))}
        )  # fmt: skip

    return make


def _max_unpool2d(sizes: Sizes) -> Call:
    """--input is that of the pooling whose result is put back."""
    window = sizes.window()
    pooled, indices = F.max_pool2d(sizes.tensor(sizes.needed("input", 4)).float(), **window, return_indices=True)
    values = pooled.to(ELEMENTS[sizes.args.dtype].dtype)
    return Call(lambda x: functional.max_unpool2d(x, indices, **window), {"input": values})


def _avg_pool(rank: int) -> Callable[[Sizes], Call]:
    def make(sizes: Sizes) -> Call:
        options = {**sizes.window(rank), "ceil_mode": sizes.args.ceil_mode}
        function: Any = functional.avg_pool2d if rank == 2 else functional.avg_pool1d
        return Call(lambda x: function(x, **options), {"input": sizes.tensor(sizes.needed("input", 2 + rank))})

    return make


def _adaptive_avg_pool(rank: int) -> Callable[[Sizes], Call]:
    def make(sizes: Sizes) -> Call:
        bins = sizes.args.bins if rank == len(sizes.args.bins) else sizes.args.bins[:1] * rank
        function: Any = functional.adaptive_avg_pool2d if rank == 2 else functional.adaptive_avg_pool1d
        return Call(lambda x: function(x, bins), {"input": sizes.tensor(sizes.needed("input", 2 + rank))})

    return make


def _batch_norm(sizes: Sizes) -> Call:
    """In training, of an input of any number of axes."""
    return Call(
        lambda x: functional.batch_norm(x, None, None, training=True), {"input": sizes.tensor(sizes.needed("input", 4))}
    )


def _int8_scales(sizes: Sizes, outputs: int) -> dict[str, Any]:
    """What makes int8 of the sums; nothing where int32 is wanted."""
    if not sizes.args.requantize:
        return {}
    return {
        "scale_a": 0.02,
        "scale_b": torch.linspace(0.005, 0.015, outputs),
        "out_dtype": torch.int8,
        "out_scale": 0.1,
    }


def _int8_gemm(sizes: Sizes) -> Call:
    """--weight is [N, K], as a linear layer's."""
    (rows, depth), (columns, _) = sizes.needed("input", 2), sizes.needed("weight", 2)
    tensors = {
        "input": sizes.tensor((rows, depth), sizes.integers),
        "weight": sizes.tensor((columns, depth), torch.int8),
    }
    options = {**_int8_scales(sizes, columns), "activation": sizes.args.activation}
    return Call(lambda a, b: functional.int8_gemm(a, b.t(), **options), tensors, lambda output: output.numel() * depth)


def _int8_conv2d(sizes: Sizes) -> Call:
    weight = sizes.needed("weight", 4)
    tensors = {
        "input": sizes.tensor(sizes.needed("input", 4), sizes.integers),
        "weight": sizes.tensor(weight, torch.int8),
    }
    scales = _int8_scales(sizes, weight[0])
    options = {
        name.replace("scale_a", "input_scale").replace("scale_b", "weight_scale"): s for name, s in scales.items()
    }
    options |= {**sizes.steps(), "groups": sizes.args.groups, "activation": sizes.args.activation}
    return Call(
        lambda x, w: functional.int8_conv2d(x, w, **options),
        tensors,
        lambda output: output.numel() * math.prod(weight[1:]),
    )


def _int8_weight_only_linear(sizes: Sizes) -> Call:
    (rows, depth), (columns, _) = sizes.needed("input", 2), sizes.needed("weight", 2)
    tensors = {"input": sizes.tensor((rows, depth)), "weight": sizes.tensor((columns, depth), torch.int8)}
    return Call(
        lambda x, w: functional.int8_weight_only_linear(x, w, 0.01), tensors, lambda output: output.numel() * depth
    )


def _int8_max_pool2d(sizes: Sizes) -> Call:
    options = {**sizes.window(), "dilation": sizes.args.dilation, "ceil_mode": sizes.args.ceil_mode}
    tensors = {"input": sizes.tensor(sizes.needed("input", 4), sizes.integers)}
    return Call(lambda x: functional.int8_max_pool2d(x, **options), tensors)


def _int8_avg_pool2d(sizes: Sizes) -> Call:
    options = {**sizes.window(), "ceil_mode": sizes.args.ceil_mode}
    tensors = {"input": sizes.tensor(sizes.needed("input", 4), sizes.integers)}
    return Call(lambda x: functional.int8_avg_pool2d(x, **options), tensors)


def _quantize(sizes: Sizes) -> Call:
    return Call(lambda x: functional.quantize_per_tensor(x, 0.1)[0], {"input": sizes.tensor(sizes.args.input)})


def _dequantize(sizes: Sizes) -> Call:
    tensors = {"input": sizes.tensor(sizes.args.input, sizes.integers)}
    return Call(lambda x: functional.dequantize(x, 0.1), tensors)


class Operator(NamedTuple):
    """How an operator's call is made, and what of it can be profiled. `chooses`: what its gradient executes depends on
    what the forward found, so that all blocks of that have to run."""

    make: Callable[[Sizes], Call]
    directions: Directions
    chooses: bool = False


OPERATORS = {
    "conv2d": Operator(_conv(2), CONVOLUTION),
    "conv1d": Operator(_conv(1), CONVOLUTION),
    "depthwise_conv2d": Operator(_depthwise_conv2d, CONVOLUTION),
    "depthwise_separable_conv2d": Operator(_depthwise_separable_conv2d, SEPARABLE),
    "conv_transpose2d": Operator(_conv_transpose(2), CONVOLUTION),
    "conv_transpose1d": Operator(_conv_transpose(1), CONVOLUTION),
    "max_pool2d": Operator(_max_pool(2), POOLING, chooses=True),
    "max_pool1d": Operator(_max_pool(1), POOLING, chooses=True),
    "max_unpool2d": Operator(_max_unpool2d, POOLING),
    "avg_pool1d": Operator(_avg_pool(1), POOLING),
    "adaptive_avg_pool1d": Operator(_adaptive_avg_pool(1), POOLING),
    "avg_pool2d": Operator(_avg_pool(2), POOLING),
    "adaptive_avg_pool2d": Operator(_adaptive_avg_pool(2), POOLING),
    "batch_norm": Operator(_batch_norm, POOLING),
    "int8_gemm": Operator(_int8_gemm, FORWARD),
    "int8_conv2d": Operator(_int8_conv2d, FORWARD),
    "int8_weight_only_linear": Operator(_int8_weight_only_linear, FORWARD),
    "int8_max_pool2d": Operator(_int8_max_pool2d, FORWARD),
    "int8_avg_pool2d": Operator(_int8_avg_pool2d, FORWARD),
    "quantize": Operator(_quantize, FORWARD),
    "dequantize": Operator(_dequantize, FORWARD),
}
