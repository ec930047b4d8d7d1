"""The operators that are measured: one entry each, with its inputs, its work, PyTorch's call and ours.

A case computes an output from its inputs (forward), the gradient of one input from the output's (backward_input,
backward_weight), or everything a training step needs (training). The gradients come from autograd on both sides, so a
family only has to say what its forward is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional
from cnnkernels.geometry import argmax_dtype, conv_output_size
from cnnkernels.testing.cases import ConvCase, PoolCase


@dataclass(frozen=True)
class SeparableCase:
    """input [n, c, h, w], a filter r x s for each channel, then a 1x1 to k channels."""

    reason: str
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        extents = zip((self.h, self.w), (self.r, self.s), self.stride, self.padding, self.dilation, strict=True)
        p, q = (conv_output_size(size, taps, step, pad, pad, gap) for size, taps, step, pad, gap in extents)
        return (self.n, self.k, p, q)


@dataclass(frozen=True)
class GemmCase:
    """[m, k] times [k, n], the second the transposed view of an [n, k] weight."""

    reason: str
    m: int
    n: int
    k: int


Problem = ConvCase | PoolCase | SeparableCase | GemmCase
Shape = tuple[int, ...]

# What is differentiated, as places in the inputs; the forward differentiates nothing.
CONVOLUTION = {"forward": (), "backward_input": (0,), "backward_weight": (1,), "training": (0, 1)}
POOLING = {"forward": (), "backward_input": (0,), "training": (0,)}


@dataclass(frozen=True)
class Family:
    """One operator.

    shapes: of the inputs of a problem; the first is the activation, whose axis 0 counts independent samples.
    output: the output's shape.
    torch: PyTorch's own operator on the inputs.   ours: the project's, on the backend in force.
    flops: of the forward and of each gradient.    extra_bytes: what must move beside inputs and output, once.
    reductions: the lengths of the sums in the output and in each input's gradient.
    linear: whether output and gradients are linear in the inputs; else in the output's gradient alone.
    exact: only moves values or adds integers, so that the forward must be equal.
    kernel: the function that a backend must have to serve it, where not every backend has it.
    result: the output's type, where it is not the inputs'.
    """

    name: str
    types: tuple[str, ...]
    directions: dict[str, tuple[int, ...]]
    shapes: Callable[[Any], tuple[Shape, ...]]
    output: Callable[[Any], Shape]
    torch: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    flops: Callable[[Any], float]
    reductions: Callable[[Any], tuple[int, ...]]
    describe: Callable[[Any], str]
    extra_bytes: Callable[[Any], float] = field(default=lambda problem: 0.0)
    linear: bool = True
    exact: bool = False
    layouts: bool = True
    kernel: str = ""
    result: torch.dtype | None = None

    def missing(self) -> str | None:
        """Why nothing of this family can be measured yet, None where it can."""
        return None if hasattr(functional, self.name) else f"cnnkernels.functional has no {self.name} yet"


def samples(problem: Problem) -> int:
    """The batch: how many results do not depend on each other."""
    return problem.m if isinstance(problem, GemmCase) else problem.n


def with_samples(problem: Problem, count: int) -> Problem:
    """The same problem with another batch."""
    return replace(problem, m=count) if isinstance(problem, GemmCase) else replace(problem, n=count)


def _hyphenated(*pairs: tuple[str, tuple[int, int], int]) -> str:
    """Stride, padding and dilation, where they are not the usual ones."""
    words = []
    for letter, (rows, columns), usual in pairs:
        if (rows, columns) != (usual, usual):
            words.append(f" {letter}{rows}" if rows == columns else f" {letter}{rows}x{columns}")
    return "".join(words)


# --- conv2d, and what is one


def _pads(p: ConvCase) -> tuple[int, int]:
    """Padding as PyTorch takes it; the workloads have the same on both sides."""
    top, bottom, left, right = p.padding
    if (top, left) != (bottom, right):
        raise ValueError(f"a benchmark's padding must be the same on both sides, but got padding={p.padding}")
    return top, left


def _conv_text(p: ConvCase) -> str:
    text = f"{p.n}x{p.c}x{p.h}x{p.w} k{p.k} {p.r}x{p.s}"
    return text + _hyphenated(("s", p.stride, 1), ("p", _pads(p), 0), ("d", p.dilation, 1)) + (
        f" g{p.groups}" if p.groups > 1 else ""
    )  # fmt: skip


def _conv_torch(p: ConvCase, x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x, w, None, p.stride, _pads(p), p.dilation, p.groups)


def _conv_ours(p: ConvCase, x: Tensor, w: Tensor) -> Tensor:
    return functional.conv2d(x, w, None, p.stride, _pads(p), p.dilation, p.groups)


def _depthwise_ours(p: ConvCase, x: Tensor, w: Tensor) -> Tensor:
    return functional.depthwise_conv2d(x, w, None, p.stride, _pads(p), p.dilation)


def _conv_flops(p: ConvCase) -> float:
    g = p.geometry
    return 2.0 * g.n * g.p * g.q * g.k * (g.c // g.groups) * g.r * g.s


def _conv_reductions(p: ConvCase) -> tuple[int, ...]:
    g = p.geometry
    taps = g.r * g.s
    return (g.c // g.groups * taps, g.k // g.groups * taps, g.n * g.p * g.q)


# --- conv_transpose2d, described by the convolution that it turns around: its input is that one's output


def _transposed_of(functions: Any) -> Callable[..., Tensor]:
    def transposed(p: ConvCase, x: Tensor, w: Tensor) -> Tensor:
        axes = zip((p.h, p.w), p.output_shape[2:], (p.r, p.s), p.stride, _pads(p), p.dilation, strict=True)
        more = [size - (places - 1) * s + 2 * pad - d * (taps - 1) - 1 for size, places, taps, s, pad, d in axes]
        return functions.conv_transpose2d(x, w, None, p.stride, _pads(p), more, p.groups, p.dilation)

    return transposed


def _int8_conv_torch(p: ConvCase, x: Tensor, w: Tensor) -> Tensor:
    """PyTorch has no INT8 convolution on a GPU: its integers in fp64 stand in where numbers are compared."""
    return _conv_torch(p, x.double(), w.double())


def _int8_conv_ours(p: ConvCase, x: Tensor, w: Tensor) -> Tensor:
    return functional.int8_conv2d(x, w, stride=p.stride, padding=_pads(p), dilation=p.dilation, groups=p.groups)


# --- max_pool2d


def _pool_text(p: PoolCase) -> str:
    text = f"{p.n}x{p.c}x{p.h}x{p.w} {p.kernel[0]}x{p.kernel[1]}"
    text += _hyphenated(("s", p.stride, 1), ("p", p.padding, 0), ("d", p.dilation, 1))
    return text + (" ceil" if p.ceil_mode else "")


def _pool_torch(p: PoolCase, x: Tensor) -> Tensor:
    return F.max_pool2d(x, p.kernel, p.stride, p.padding, p.dilation, p.ceil_mode)


def _pool_ours(p: PoolCase, x: Tensor) -> Tensor:
    y = functional.max_pool2d(x, p.kernel, p.stride, p.padding, p.dilation, p.ceil_mode)
    assert isinstance(y, Tensor)
    return y


def _pool_places(p: PoolCase) -> float:
    """The winners' places, which a training step writes and reads beside the values."""
    n, c, out_h, out_w = p.output_shape
    return float(n * c * out_h * out_w * argmax_dtype(*p.kernel).itemsize)


def _average_text(p: PoolCase) -> str:
    return _pool_text(p) if p.bins is None else f"{p.n}x{p.c}x{p.h}x{p.w} to {p.bins[0]}x{p.bins[1]}"


def _average_of(functions: Any) -> Callable[..., Tensor]:
    def average(p: PoolCase, x: Tensor) -> Tensor:
        if p.bins is not None:
            return functions.adaptive_avg_pool2d(x, p.bins)
        return functions.avg_pool2d(x, p.kernel, p.stride, p.padding, p.ceil_mode)

    return average


def _average_reductions(p: PoolCase) -> tuple[int, ...]:
    """The most elements of a mean, and the most means of an element."""
    if p.bins is not None:
        both = [(size // bins + 2, bins // size + 2) for size, bins in zip((p.h, p.w), p.bins, strict=True)]
        return both[0][0] * both[1][0], both[0][1] * both[1][1]
    return (p.kernel[0] * p.kernel[1],) * 2


def _average(name: str) -> Family:
    return Family(
        name=name,
        types=("bf16", "fp16", "fp32"),
        directions=POOLING,
        shapes=lambda p: (p.input_shape,),
        output=lambda p: p.output_shape,
        torch=_average_of(F),
        ours=_average_of(functional),
        flops=lambda p: 0.0,
        reductions=_average_reductions,
        describe=_average_text,
    )


# --- depthwise_separable_conv2d


def _separable_text(p: SeparableCase) -> str:
    text = f"{p.n}x{p.c}x{p.h}x{p.w} k{p.k} {p.r}x{p.s}"
    return text + _hyphenated(("s", p.stride, 1), ("p", p.padding, 0), ("d", p.dilation, 1))


def _separable_torch(p: SeparableCase, x: Tensor, depthwise: Tensor, pointwise: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(x, depthwise, None, p.stride, p.padding, p.dilation, p.c), pointwise)


def _separable_ours(p: SeparableCase, x: Tensor, depthwise: Tensor, pointwise: Tensor) -> Tensor:
    return functional.depthwise_separable_conv2d(
        x, depthwise, pointwise, stride=p.stride, padding=p.padding, dilation=p.dilation
    )


def _separable_flops(p: SeparableCase) -> float:
    n, k, out_h, out_w = p.output_shape
    return 2.0 * n * out_h * out_w * p.c * (p.r * p.s + k)


def _separable_reductions(p: SeparableCase) -> tuple[int, ...]:
    n, k, out_h, out_w = p.output_shape
    pixels = n * out_h * out_w
    return (p.c * p.r * p.s, k * p.r * p.s, pixels * k, pixels * p.r * p.s)


# --- int8_gemm


def _gemm_torch(p: GemmCase, a: Tensor, b: Tensor) -> Tensor:
    """In fp64, where every int32 sum is exact: `_int_mm` does not take every size."""
    return a.double() @ b.double().t()


def _gemm_ours(p: GemmCase, a: Tensor, b: Tensor) -> Tensor:
    return functional.int8_gemm(a, b.t())


# --- int8_linear: the same product, as a layer gives it: one scale for the input, one for each output, in bf16

INPUT_SCALE = 0.02


@functools.lru_cache(maxsize=8)
def weight_scales(outputs: int, device: torch.device) -> Tensor:
    return torch.linspace(0.005, 0.015, outputs, device=device)


def _linear_torch(p: GemmCase, x: Tensor, w: Tensor) -> Tensor:
    return x.double() @ w.double().t() * (INPUT_SCALE * weight_scales(p.n, x.device).double())


def _linear_ours(p: GemmCase, x: Tensor, w: Tensor) -> Tensor:
    return functional.int8_linear(x, w, INPUT_SCALE, weight_scales(p.n, x.device), out_dtype=torch.bfloat16)


FLOATS = ("bf16", "fp16", "tf32", "fp32")


def _convolution(name: str, ours: Callable[..., Tensor], **rest: Any) -> Family:
    defaults: dict[str, Any] = {
        "types": FLOATS,
        "directions": CONVOLUTION,
        "shapes": lambda p: (p.input_shape, p.weight_shape),
        "output": lambda p: p.output_shape,
        "torch": _conv_torch,
        "flops": _conv_flops,
        "reductions": _conv_reductions,
        "describe": _conv_text,
    }
    return Family(name=name, ours=ours, **(defaults | rest))


def _product(name: str, torch: Callable[..., Tensor], ours: Callable[..., Tensor], **rest: Any) -> Family:
    return Family(
        name=name,
        types=("int8",),
        directions={"forward": ()},
        shapes=lambda p: ((p.m, p.k), (p.n, p.k)),
        output=lambda p: (p.m, p.n),
        torch=torch,
        ours=ours,
        flops=lambda p: 2.0 * p.m * p.n * p.k,
        reductions=lambda p: (p.k,),
        describe=lambda p: f"m{p.m} n{p.n} k{p.k}",
        layouts=False,
        kernel="int8_gemm",
        **rest,
    )


FAMILIES = {
    family.name: family
    for family in (
        _convolution("conv2d", _conv_ours),
        _convolution(
            "conv_transpose2d",
            _transposed_of(functional),
            shapes=lambda p: (p.output_shape, p.weight_shape),
            output=lambda p: p.input_shape,
            torch=_transposed_of(F),
            reductions=lambda p: tuple(_conv_reductions(p)[i] for i in (1, 0, 2)),
        ),
        Family(
            name="max_pool2d",
            types=("bf16", "fp16", "fp32"),
            directions=POOLING,
            shapes=lambda p: (p.input_shape,),
            output=lambda p: p.output_shape,
            torch=_pool_torch,
            ours=_pool_ours,
            flops=lambda p: 0.0,
            reductions=lambda p: (1, p.kernel[0] * p.kernel[1]),
            describe=_pool_text,
            extra_bytes=_pool_places,
            linear=False,
            exact=True,
        ),
        _average("avg_pool2d"),
        _average("adaptive_avg_pool2d"),
        _convolution("depthwise_conv2d", _depthwise_ours),
        Family(
            name="depthwise_separable_conv2d",
            types=FLOATS,
            directions={"forward": (), "training": (0, 1, 2)},
            shapes=lambda p: ((p.n, p.c, p.h, p.w), (p.c, 1, p.r, p.s), (p.k, p.c, 1, 1)),
            output=lambda p: p.output_shape,
            torch=_separable_torch,
            ours=_separable_ours,
            flops=_separable_flops,
            reductions=_separable_reductions,
            describe=_separable_text,
            kernel="depthwise_separable_conv_forward",
        ),
        _product("int8_gemm", _gemm_torch, _gemm_ours, exact=True, result=torch.int32),
        _product(
            "int8_linear",
            _linear_torch,
            _linear_ours,
            extra_bytes=lambda p: 4.0 * p.n,
            result=torch.bfloat16,
        ),
        _convolution(
            "int8_conv2d",
            _int8_conv_ours,
            types=("int8",),
            directions={"forward": ()},
            torch=_int8_conv_torch,
            exact=True,
            kernel="int8_conv2d",
            result=torch.int32,
        ),
    )
}
