"""The INT8 operators and quantize on operands in random orders of memory, beside the reference on contiguous ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional, use_backend
from helpers.memory_orders.trial import FLOATS, Trial, exact, plain, watched

ACTIVATIONS = (None, None, "relu", "relu6", "leaky_relu", "hardswish")
CHANNELS_LAST = torch.empty(1, 2, 2, 2, memory_format=torch.channels_last)
EXTENTS = (1, 1, 2, 3, 4, 5, 8, 16, 17, 33)


def _compare(
    trial: Trial, call: Callable[..., Any], operands: dict[str, Any], lies: Callable[[Tensor], None] | None = None
) -> None:
    """Compares call(**operands) of the kernels and of the reference, which gets contiguous tensors.

    Args:
        lies: checks how the first result lies.
    """

    def called(**tensors: Any) -> tuple[Tensor, ...]:
        results = call(**tensors)
        results = results if isinstance(results, tuple) else (results,)
        return tuple(result for result in results if isinstance(result, Tensor))

    names = [name for name, value in operands.items() if isinstance(value, Tensor)]
    if trial.happens(0.15):
        _compare_batch(trial, called, operands, names)
        return
    with use_backend("reference"):
        expected = called(**{name: _contiguous(value) for name, value in operands.items()})
    with watched(trial.happens(0.3)), use_backend(trial.backend):
        results = called(**operands)
    _same(trial, results, expected)
    if lies is not None:
        lies(results[0])


def _contiguous(value: Any) -> Any:
    return value.cpu().clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value


def _same(trial: Trial, results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for number, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        assert result.dtype == wanted.dtype, f"result {number}: {result.dtype} where it is {wanted.dtype}"
        trial.equal(f"result {number}", result, wanted)


def _compare_batch(trial: Trial, called: Callable[..., Any], operands: dict[str, Any], names: list[str]) -> None:
    """Two samples under vmap, the batch axis anywhere."""
    given, axes = [operands[name] for name in names], [None] * len(names)
    for name in trial.some(names):
        at = names.index(name)
        axis = axes[at] = trial.choose(*range(given[at].dim() + 1))
        first = given[at].cpu()
        # a weight and its sums belong together
        second = first if name in ("weight", "weight_sum") else first.flip(tuple(range(first.dim())))
        given[at] = trial.lay(torch.stack([first, second], axis))

    def of_names(*tensors: Tensor) -> tuple[Tensor, ...]:
        return called(**operands | dict(zip(names, tensors, strict=True)))

    samples = [
        [_contiguous(t if axis is None else t.select(axis, i)) for t, axis in zip(given, axes, strict=True)]
        for i in range(2)
    ]
    with use_backend("reference"):
        expected = [of_names(*sample) for sample in samples]
    with use_backend(trial.backend):
        results = torch.func.vmap(of_names, tuple(axes))(*given)
    _same(trial, results, tuple(torch.stack(parts) for parts in zip(*expected, strict=True)))


def _scales(trial: Trial, *sizes: tuple[int, ...]) -> float | Tensor | None:
    """A number, or one for each row or column."""
    if trial.happens(0.3):
        return trial.choose(None, 0.5, 0.037)
    return trial.integers(trial.choose((), (1,), *sizes), torch.float32, 1, 50, 0.013)


def _zero_points(trial: Trial, low: int, high: int, *sizes: tuple[int, ...]) -> int | Tensor | None:
    if trial.happens(0.5):
        return trial.choose(None, low, high, 3)
    return trial.integers(trial.choose((1,), *sizes), torch.int32, low, high)


def _finish(trial: Trial, size: tuple[int, ...], bias: int, names: tuple[str, str], sizes: Any) -> dict[str, Any]:
    """What follows the sums, in random orders of memory; a third of the time nothing."""
    if trial.happens(0.3):
        return {}
    rows, columns = sizes
    given: dict[str, Any] = {
        names[0]: _scales(trial, *rows),
        names[1]: _scales(trial, *columns),
        "bias": trial.integers((bias,), torch.float32, -50, 50) if trial.happens(0.5) else None,
        "activation": trial.choose(*ACTIVATIONS),
    }
    kind = trial.choose(None, torch.float32, torch.bfloat16, torch.int8, torch.uint8)
    if kind in (torch.int8, torch.uint8):
        given |= {"residual": trial.of_type(size, kind), "residual_scale": 0.3, "residual_zero_point": 5}
    elif kind is not None:
        given["residual"] = trial.integers(size, kind, -100, 100)
    given["out_dtype"] = trial.choose(None, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8)
    if given["out_dtype"] in (torch.int8, torch.uint8):
        given["out_scale"] = trial.integers(trial.choose((), (1,)), torch.float32, 1, 50, 0.7)
        given["out_zero_point"] = trial.choose(0, 7)
    return given


def int8_gemm(trial: Trial) -> None:
    m, k, n = (trial.choose(*EXTENTS, 0) if trial.happens(0.5) else trial.choose(*EXTENTS) for _ in range(3))
    kind = trial.choose(torch.int8, torch.uint8)
    limits = torch.iinfo(kind)
    tensors = {"a": trial.of_type((m, k), kind), "b": trial.of_type((k, n), torch.int8)}
    rows, columns = ((m,), (m, 1)), ((n,), (1, n))
    tensors |= _finish(trial, (m, n), n, ("scale_a", "scale_b"), (rows, columns))
    if trial.happens(0.5):
        tensors["zero_point_a"] = _zero_points(trial, limits.min, limits.max, *rows)
        tensors["zero_point_b"] = _zero_points(trial, -128, 127, *columns)
    _compare(trial, functional.int8_gemm, tensors, lambda output: _lies_contiguous(trial, output))


def int_mm(trial: Trial) -> None:
    m, k, n = (trial.choose(*EXTENTS) for _ in range(3))
    tensors = {"self": trial.of_type((m, k), torch.int8), "mat2": trial.of_type((k, n), torch.int8)}
    if trial.happens(0.3):
        _compare(trial, functional.int_mm, tensors)
        return
    with use_backend("reference"):
        expected = functional.int_mm(*map(plain, tensors.values()))
    out = trial.lay(torch.zeros(m, n, dtype=torch.int32), changes=True)
    with use_backend(trial.backend):
        functional.int_mm(**tensors, out=out)
    trial.equal("out", out, expected)


def int8_linear(trial: Trial) -> None:
    k, n = trial.choose(*EXTENTS), trial.choose(*EXTENTS)
    leading = tuple(trial.choose(1, 1, 2, 5) for _ in range(trial.choose(0, 1, 1, 2, 3)))
    weight = trial.of_type((n, k), torch.int8)
    tensors: dict[str, Any] = {"weight": weight}
    names = ("input_scale", "weight_scale")
    rows, columns = (leading, (*leading, 1)), ((n,), (n, 1))
    finish = _finish(trial, (*leading, n), n, names, (rows, columns))
    if trial.happens(0.3):
        tensors["input"] = trial.integers((*leading, k), trial.choose(*FLOATS), -40, 40, 0.25)
        tensors |= dict.fromkeys(names) | finish
        tensors["input_scale"] = trial.choose(None, 0.1)
    else:
        kind = trial.choose(torch.int8, torch.uint8)
        limits = torch.iinfo(kind)
        tensors["input"] = trial.of_type((*leading, k), kind)
        tensors |= dict.fromkeys(names) | finish
        if trial.happens(0.5):
            tensors["input_zero_point"] = _zero_points(trial, limits.min, limits.max, *rows)
        if trial.happens(0.5):
            tensors["weight_sum"] = trial.lay(weight.cpu().sum(1, dtype=torch.int32))
    _compare(trial, functional.int8_linear, tensors, lambda output: _lies_contiguous(trial, output))


def int8_weight_only_linear(trial: Trial) -> None:
    """Numbers so small that the product of a widened weight, in the input's dtype, is exact too."""
    k, n, dtype = trial.choose(*EXTENTS), trial.choose(*EXTENTS), trial.choose(*FLOATS[1:])
    leading = tuple(trial.choose(1, 1, 2, 5, 17) for _ in range(trial.choose(0, 1, 1, 2)))
    operands: dict[str, Any] = {
        "input": trial.integers((*leading, k), dtype, -1, 1),
        "weight": trial.integers((n, k), torch.int8, -2, 2),
        "weight_scale": trial.choose(None, 0.5, trial.integers((n,), torch.float32, 1, 2)),
        "bias": trial.integers((n,), torch.float32, -2, 2) if trial.happens(0.5) else None,
        "residual": trial.integers((*leading, n), dtype, -2, 2) if trial.happens(0.5) else None,
    }
    activation = trial.choose(None, "relu", "relu6")

    def reference(input: Any, weight: Any, weight_scale: Any, bias: Any, residual: Any) -> Tensor:
        scale = 1 if weight_scale is None else weight_scale
        scale = scale[:, None] if isinstance(scale, Tensor) else scale
        output = F.linear(input, weight.double() * scale, bias)
        output = output if residual is None else output + residual
        return F.relu(output) if activation == "relu" else F.relu6(output) if activation == "relu6" else output

    theirs = {name: plain(tensor) for name, tensor in operands.items()}
    ours = dict(operands)
    chosen = []
    if trial.direction == "backward":
        chosen = trial.some([name for name in ("input", "residual") if operands[name] is not None])
        for name in chosen:
            theirs[name].requires_grad_()
            ours[name] = operands[name].detach().requires_grad_()
    expected = reference(**theirs)
    grad = trial.integers(expected.shape, dtype, -1, 1)
    gradients = torch.autograd.grad(expected, [theirs[name] for name in chosen], plain(grad)) if chosen else ()
    exact(dtype, expected.detach(), *gradients)
    with watched(trial.happens(0.3)), use_backend(trial.backend):
        output = functional.int8_weight_only_linear(**ours, activation=activation)
    trial.equal("output", output.detach(), expected.detach())
    _lies_contiguous(trial, output)
    if chosen:
        results = torch.autograd.grad(output, [ours[name] for name in chosen], grad)
        for name, result, gradient in zip(chosen, results, gradients, strict=True):
            trial.equal(f"gradient of {name}", result, gradient)


def _axis(trial: Trial) -> tuple[int, int, int, int, int]:
    taps = trial.choose(1, 1, 1, 2, 3)
    stride, padding, dilation = trial.choose(1, 1, 2, 3), trial.choose(0, 0, 1, 2), trial.choose(1, 1, 1, 2)
    least = max(1, dilation * (taps - 1) + 1 - 2 * padding)
    return max(least, trial.choose(1, 1, 2, 3, 4, 6)), taps, stride, padding, dilation


def _batch(trial: Trial) -> tuple[int, ...]:
    return () if trial.happens(0.1) else (trial.choose(1, 1, 2, 3),)


def int8_conv2d(trial: Trial) -> None:
    (h, r, stride_h, pad_h, dilation_h), (w, s, stride_w, pad_w, dilation_w) = (_axis(trial) for _ in range(2))
    depthwise = trial.happens(0.3)
    groups = trial.choose(1, 2, 3, 8, 16) if depthwise else trial.choose(1, 1, 1, 2, 4)
    each = 1 if depthwise else trial.choose(1, 1, 2, 3, 4, 8, 16)
    c, k = groups * each, groups * trial.choose(1, 1, 2, 3, 8)
    kind = trial.choose(torch.int8, torch.uint8)
    limits = torch.iinfo(kind)
    weight = trial.of_type((k, each, r, s), torch.int8)
    batch = _batch(trial)
    p, q = (
        (extent + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
        for extent, taps, stride, pad, dilation in (
            (h, r, stride_h, pad_h, dilation_h),
            (w, s, stride_w, pad_w, dilation_w),
        )
    )
    tensors: dict[str, Any] = {"input": trial.of_type((*batch, c, h, w), kind), "weight": weight}
    names = ("input_scale", "weight_scale")
    tensors |= _finish(trial, (*batch, k, p, q), k, names, ((), ((k,), (k, 1, 1, 1))))
    tensors["input_zero_point"] = trial.choose(None, None, limits.min, limits.max, 3)
    if trial.happens(0.5):
        tensors["weight_sum"] = trial.lay(weight.cpu().sum((1, 2, 3), dtype=torch.int32))
    options = {
        "stride": (stride_h, stride_w), "padding": (pad_h, pad_w), "dilation": (dilation_h, dilation_w),
        "groups": groups,
    }  # fmt: skip
    _compare(
        trial,
        lambda **given: functional.int8_conv2d(**given, **options),
        tensors,
        lambda output: trial.lies_dense("output", output, CHANNELS_LAST),
    )


def _pool(trial: Trial, call: Callable[..., Tensor]) -> None:
    (h, r, stride_h, pad_h, dilation_h), (w, s, stride_w, pad_w, dilation_w) = (_axis(trial) for _ in range(2))
    h, w = max(h, dilation_h * (r - 1) + 1), max(w, dilation_w * (s - 1) + 1)
    size = *_batch(trial), trial.choose(1, 1, 2, 3, 8, 16), h, w
    input = trial.of_type(size, trial.choose(torch.int8, torch.uint8))
    padding = min(pad_h, r // 2), min(pad_w, s // 2)
    options: tuple[Any, ...] = (r, s), (stride_h, stride_w), padding, (dilation_h, dilation_w), trial.happens(0.3)
    _compare(
        trial,
        lambda input: call(input, *options),
        {"input": input},
        lambda output: trial.lies_dense("output", output, CHANNELS_LAST),
    )


def int8_max_pool2d(trial: Trial) -> None:
    _pool(trial, functional.int8_max_pool2d)


def int8_avg_pool2d(trial: Trial) -> None:
    zero_point, include, whole = trial.choose(0, 3, 100), trial.happens(0.5), trial.happens(0.2)
    divisor = trial.choose(None, None, 3)

    def call(input: Tensor, window: Any, stride: Any, padding: Any, _: Any, ceil: bool) -> Tensor:
        if whole:
            return functional.int8_adaptive_avg_pool2d(input, 1, zero_point=zero_point)
        return functional.int8_avg_pool2d(
            input, window, stride, padding, ceil, include, divisor, zero_point=zero_point
        )  # fmt: skip

    _pool(trial, call)


def _any_size(trial: Trial) -> tuple[int, ...]:
    if trial.happens(0.5):
        return tuple(trial.choose(1, 1, 2, 3, 5) for _ in range(4))
    return tuple(trial.choose(0 if trial.happens(0.1) else 1, 1, 2, 3, 17) for _ in range(trial.choose(1, 2, 3, 5)))


def _lies_contiguous(trial: Trial, output: Tensor) -> None:
    trial.lies_as("output", output, torch.empty(output.shape).stride())


def _keeps_memory(trial: Trial, output: Tensor, input: Tensor) -> None:
    if input.dim() == 4:
        trial.lies_dense("output", output, input)
    else:
        _lies_contiguous(trial, output)


def quantize(trial: Trial) -> None:
    size = _any_size(trial)
    input = trial.integers(size, trial.choose(*FLOATS), -300, 300, 0.5)
    kind = trial.choose(torch.int8, torch.uint8)
    axis = trial.choose(*range(len(size)))
    granularity = trial.choose("tensor", "channel", "token")
    if granularity == "token":
        _compare(trial, functional.quantize_per_token, {"input": input}, lambda output: _lies_contiguous(trial, output))
        return
    limits = torch.iinfo(kind)
    tensors: dict[str, Any] = {"input": input}
    if trial.happens(0.6):
        of_axis = ((size[axis],),) if granularity == "channel" else ()
        scale = trial.integers(trial.choose((1,), *of_axis), torch.float32, 1, 30, 0.1)
        zero_points = trial.integers(trial.choose((1,), *of_axis), torch.int32, limits.min, limits.max)
        tensors |= {"scale": trial.choose(0.7, scale), "zero_point": trial.choose(0, 3, zero_points), "dtype": kind}
    function = functional.quantize_per_tensor
    if granularity == "channel":
        tensors["axis"] = trial.choose(axis, axis - len(size))
        function = functional.quantize_per_channel
    _compare(trial, function, tensors, lambda output: _keeps_memory(trial, output, input))


def dequantize(trial: Trial) -> None:
    size = _any_size(trial)
    kind = trial.choose(torch.int8, torch.uint8)
    limits = torch.iinfo(kind)
    axis = trial.choose(*range(len(size)))
    granularity = trial.choose("tensor", "channel", "token")
    by = {"tensor": (), "channel": ((size[axis],),), "token": ((*size[:-1], 1),)}[granularity]
    q = trial.of_type(size, kind)
    tensors = {
        "q": q,
        "scale": trial.choose(0.3, trial.integers(trial.choose((1,), *by), torch.float32, 1, 30, 0.1)),
        "zero_point": trial.choose(0, trial.integers(trial.choose((1,), *by), torch.int32, limits.min, limits.max)),
        "axis": axis if granularity == "channel" else None,
        "dtype": trial.choose(*FLOATS),
    }
    of_rows = any(isinstance(t, Tensor) and t.numel() != 1 for t in (tensors["scale"], tensors["zero_point"]))
    lies = _lies_contiguous if granularity == "token" and of_rows else lambda *given: _keeps_memory(*given, q)
    _compare(trial, functional.dequantize, tensors, lambda output: lies(trial, output))


OPERATORS = {
    function.__name__: function
    for function in (
        int8_gemm, int_mm, int8_linear, int8_weight_only_linear, int8_conv2d, int8_max_pool2d, int8_avg_pool2d,
        quantize, dequantize,
    )
}  # fmt: skip
