"""`cnnkernels check`: every kernel of every backend at hand against PyTorch in fp64, on random numbers.

The allowed error is the project's rule (`cnnkernels.testing.numerics`): twice the error of PyTorch's own operator in
the same type, plus a floor from the length of the reduction. What only moves values must be equal.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import backends
from ..dtypes import FLOATING, PRODUCTS
from ..epilogue import Epilogue
from ..geometry import Layout, argmax_dtype
from ..proof.check_int8 import int8_checks
from ..testing.cases import (
    AVG_POOL2D,
    CONV2D,
    DEPTHWISE_SEPARABLE_CONV2D,
    MAX_POOL2D,
    ConvCase,
    DepthwiseSeparableCase,
    PoolCase,
)
from ..testing.depthwise_cases import DEPTHWISE_CONV2D
from .check_norm import SIZES as NORM_SIZES
from .check_norm import norm_measurements
from .check_results import Expected, Measurement, Target, measure, random_numbers


@dataclass
class Row:
    """One line of the table: the worst of a kernel's results in one type."""

    backend: str
    worst: Measurement
    results: int = 1

    @property
    def right(self) -> bool:
        return self.worst.ratio <= 1

    def __str__(self) -> str:
        kernel, kind, error, allowed = self.worst
        verdict = "ok" if self.right else "WRONG"
        return f"{self.backend:<8}{kernel:<42}{kind:<6}{self.results:>7}{error:>12.2e}{allowed:>12.2e}  {verdict}"


HEADER = f"{'backend':<8}{'kernel':<42}{'type':<6}{'results':>7}{'max error':>12}{'allowed':>12}"


def _convolve(case: ConvCase, x: Tensor, w: Tensor, b: Tensor, dy: Tensor) -> dict[str, Tensor]:
    """PyTorch's forward and gradients; every one linear in each operand."""
    x, w, b = (t.detach().requires_grad_() for t in (x, w, b))
    top, bottom, left, right = case.padding
    padded = F.pad(x, (left, right, top, bottom))
    y = F.conv2d(padded, w, b, stride=case.stride, dilation=case.dilation, groups=case.groups)
    dx, dw, db = torch.autograd.grad(y, (x, w, b), dy)
    return {
        "forward": y.detach(),
        "backward_input": dx,
        "backward_weight": dw,
        "backward_bias": db,
    }


def conv_measurements(
    targets: dict[str, Target], case: ConvCase, kind: str, dtype: torch.dtype, tf32: bool, op: str = "conv"
) -> Iterator[tuple[str, Measurement]]:
    """Every kernel of conv2d, or of depthwise_conv2d, of every target on one case in one type, in both layouts."""
    g = case.geometry
    rounding = (tf32,) if op == "conv" else ()
    shapes = (case.input_shape, case.weight_shape, (case.k,), case.output_shape)
    operands = [random_numbers(shape, seed, dtype) for seed, shape in enumerate(shapes)]
    truth = _convolve(case, *(t.double() for t in operands))
    theirs = _convolve(case, *operands)
    magnitude = _convolve(case, *(t.double().abs() for t in operands))
    taps = g.r * g.s
    reduction = {
        "forward": g.c // g.groups * taps + 1,
        "backward_input": g.k // g.groups * taps,
        "backward_weight": g.n * g.p * g.q,
        "backward_bias": g.n * g.p * g.q,
    }
    expected = {name: Expected(truth[name], theirs[name], magnitude[name], reduction[name]) for name in truth}
    for backend, target in targets.items():
        kernels = target.kernels
        for layout in Layout:
            x, w, b, dy = (target.place(t, layout) if t.dim() == 4 else t.to(target.device) for t in operands)
            y, dx, dw = (target.empty(t.shape, dtype, layout) for t in (dy, x, w))
            db = torch.full_like(b, math.nan)
            getattr(kernels, f"{op}_forward")(x, w, b, y, g, layout, *rounding)
            getattr(kernels, f"{op}_backward_input")(dy, w, dx, g, layout, *rounding)
            getattr(kernels, f"{op}_backward_weight")(dy, x, dw, g, layout, *rounding)
            results = {"forward": y, "backward_input": dx, "backward_weight": dw}
            if op == "conv" and not tf32:  # a depthwise convolution's bias has the same kernel
                kernels.conv_backward_bias(dy, db, g, layout)
                results["backward_bias"] = db
            for name, result in results.items():
                bound = expected[name].bound(dtype, tf32)
                yield backend, measure(f"{op}_{name}", kind, result, expected[name].truth, bound)
            if op == "conv":
                right = expected["backward_input"]
                yield backend, _transposed(target, case, (dy, w), right, kind, dtype, tf32, layout)


def _transposed(
    target: Target,
    case: ConvCase,
    operands: tuple[Tensor, Tensor],
    sums: Expected,
    kind: str,
    dtype: torch.dtype,
    tf32: bool,
    layout: Layout,
) -> Measurement:
    """backward_input as conv_transpose2d has it, with all that follows a sum: sums, bias, scale, shift, residual."""
    bias, scale, shift = (random_numbers((case.c,), seed, dtype) for seed in (11, 12, 13))
    residual = random_numbers(case.input_shape, 14, dtype)
    result = target.empty(case.input_shape, dtype, layout)
    epilogue = Epilogue(scale.to(target.device), shift.to(target.device), target.place(residual, layout), "relu")
    target.kernels.conv_backward_input(
        *operands, result, case.geometry, layout, tf32, bias=bias.to(target.device), epilogue=epilogue
    )

    def followed(sums: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        b, s, t = (of(each)[:, None, None] for each in (bias, scale, shift))
        return (sums + b) * s + t + of(residual)

    truth = followed(sums.truth, Tensor.double).relu()
    theirs = followed(sums.theirs, lambda tensor: tensor).relu()
    magnitude = followed(sums.magnitude, lambda tensor: tensor.double().abs())
    whole = Expected(truth, theirs, magnitude, sums.reduction + 3)
    return measure("conv_transpose_forward", kind, result, truth, whole.bound(dtype, tf32))


def _pair(case: DepthwiseSeparableCase, *tensors: Tensor) -> dict[str, Tensor]:
    """PyTorch's two layers, the first followed by a relu."""
    x, first, second, first_bias, second_bias = tensors
    c = case.depthwise
    top, bottom, left, right = c.padding
    z = F.conv2d(F.pad(x, (left, right, top, bottom)), first, first_bias, c.stride, 0, c.dilation, c.groups)
    y = F.conv2d(z.relu(), second, second_bias)
    return {"depthwise_separable_conv_forward": y, "depthwise_separable_conv_intermediate": z}


def depthwise_separable_measurements(
    targets: dict[str, Target], case: DepthwiseSeparableCase, kind: str, dtype: torch.dtype, tf32: bool
) -> Iterator[tuple[str, Measurement]]:
    """The fused pair and its intermediate alone, in both layouts."""
    g = case.geometry
    shapes = (case.input_shape, case.depthwise_shape, case.pointwise_shape, (g.k,), (case.filters,))
    operands = [random_numbers(shape, seed, dtype) for seed, shape in enumerate(shapes)]
    truth = _pair(case, *(t.double() for t in operands))
    theirs = _pair(case, *operands)
    magnitude = _pair(case, *(t.double().abs() for t in operands))
    taps = g.r * g.s + 1
    expected = [
        Expected(truth[name], theirs[name], magnitude[name], reduction)
        for name, reduction in zip(truth, (taps + g.k + 1, taps), strict=True)
    ]
    for backend, target in targets.items():
        for layout in Layout:
            placed = [target.place(t, layout) if t.dim() == 4 else t.to(target.device) for t in operands]
            y = target.empty(case.output_shape, dtype, layout)
            z = target.empty(case.intermediate_shape, dtype, layout)
            target.kernels.depthwise_separable_conv_forward(*placed, y, None, g, layout, tf32, "relu", "none", 0.0)
            target.kernels.depthwise_separable_conv_intermediate(*placed[:2], placed[3], z, g, layout)
            for name, result, right in zip(truth, (y, z), expected, strict=True):
                exact = "intermediate" in name  # its products are never rounded to TF32
                yield backend, measure(name, kind, result, right.truth, right.bound(dtype, tf32 and not exact))


def _pool(case: PoolCase, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's maxima, their places and the gradient they route."""
    x = x.detach().requires_grad_()
    y, indices = F.max_pool2d(
        x, case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode, return_indices=True
    )
    return y.detach(), indices, torch.autograd.grad(y, x, dy)[0]


def max_pool_measurements(
    targets: dict[str, Target], case: PoolCase, kind: str, dtype: torch.dtype
) -> Iterator[tuple[str, Measurement]]:
    """Every max_pool2d and max_unpool2d kernel of every target on one case in one type, in both layouts."""
    g = case.geometry
    x, dy, probe = (
        random_numbers(shape, seed, dtype)
        for seed, shape in enumerate((case.input_shape, case.output_shape, case.input_shape))
    )
    y, indices, dx = _pool(case, x.double(), dy.double())
    magnitude = _pool(case, x.double(), dy.double().abs())[2]
    bound = Expected(dx, _pool(case, x, dy)[2], magnitude, g.r * g.s).bound(dtype, tf32=False)
    gathered = probe.flatten(2).gather(2, indices.flatten(2)).view(case.output_shape)
    # Windows that overlap name a place several times, always with the same value.
    unpooled = torch.zeros_like(x).flatten(2).scatter(2, indices.flatten(2), y.to(dtype).flatten(2)).view_as(x)
    for backend, target in targets.items():
        kernels = target.kernels
        for layout in Layout:
            ours = {
                "max_pool_forward": target.empty(y.shape, dtype, layout),
                "max_pool_indices": target.empty(y.shape, torch.int64, layout),
                "max_pool_backward": target.empty(x.shape, dtype, layout),
                "max_pool_gather": target.empty(y.shape, dtype, layout),
                "max_unpool_forward": target.empty(x.shape, dtype, layout),
                "max_unpool_backward": target.empty(y.shape, dtype, layout),
            }
            out, places, grad, picked, spread, back = ours.values()
            argmax = target.empty(y.shape, argmax_dtype(g.r, g.s), layout)
            values, looked_up = target.place(y.to(dtype), layout), target.place(indices, layout)
            probed = target.place(probe, layout)
            winner = target.place(torch.zeros(case.input_shape, dtype=torch.int32), layout)
            kernels.max_pool_forward(target.place(x, layout), out, argmax, g, layout)
            kernels.max_pool_indices(argmax, places, g, layout)
            kernels.max_pool_backward(target.place(dy, layout), argmax, grad, g, layout)
            kernels.max_pool_gather(probed, argmax, picked, g, layout)
            kernels.max_unpool_forward(values, looked_up, winner, spread, layout)
            kernels.max_unpool_backward(probed, looked_up, back, layout)
            truth = (y, indices, dx, gathered, unpooled, gathered)
            for (name, result), right in zip(ours.items(), truth, strict=True):
                yield backend, measure(name, kind, result, right, bound if name == "max_pool_backward" else None)


def _average(case: PoolCase, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """PyTorch's means and the gradient that they pass on; padding is not counted, so that divisors differ."""
    x = x.detach().requires_grad_()
    if case.bins is not None:
        y = F.adaptive_avg_pool2d(x, case.bins)
    else:
        y = F.avg_pool2d(x, case.kernel, case.stride, case.padding, case.ceil_mode, count_include_pad=False)
    return y.detach(), torch.autograd.grad(y, x, dy)[0]


def average_measurements(
    targets: dict[str, Target], case: PoolCase, kind: str, dtype: torch.dtype
) -> Iterator[tuple[str, Measurement]]:
    """avg_pool2d's or adaptive_avg_pool2d's kernels of every target on one case in one type, in both layouts."""
    g = case.geometry
    operands = [random_numbers(shape, seed, dtype) for seed, shape in enumerate((case.input_shape, case.output_shape))]
    truth, theirs = _average(case, *(t.double() for t in operands)), _average(case, *operands)
    magnitude = _average(case, *(t.double().abs() for t in operands))
    most = g.h * g.w, g.p * g.q  # that a sum can have
    name, rest = ("avg_pool", (False, None)) if case.bins is None else ("adaptive_avg_pool", ())
    for backend, target in targets.items():
        for layout in Layout:
            for i, direction in enumerate(("forward", "backward")):
                result = target.empty(truth[i].shape, dtype, layout)
                kernel = getattr(target.kernels, f"{name}_{direction}")
                kernel(target.place(operands[i], layout), result, g, layout, *rest)
                bound = Expected(truth[i], theirs[i], magnitude[i], most[i]).bound(dtype, tf32=False)
                yield backend, measure(f"{name}_{direction}", kind, result, truth[i], bound)


def int8_measurements(targets: dict[str, Target]) -> Iterator[tuple[str, Measurement]]:
    """Every INT8 kernel of every target: integers and bits, which must be equal."""
    for each in int8_checks():
        truth = each.run(each.reference, "cpu")
        for backend, target in targets.items():
            yield backend, measure(each.kernel, each.type, each.run(target.kernels, target.device), truth)


def measurements(targets: dict[str, Target]) -> Iterator[tuple[str, Measurement]]:
    """Everything there is to check, each with the name of its backend."""
    for conv_case in CONV2D:
        for kind, (dtype, tf32) in PRODUCTS.items():
            yield from conv_measurements(targets, conv_case, kind, dtype, tf32)
    for depthwise_case in DEPTHWISE_CONV2D[1::3]:  # a sample: the tests take them all
        for kind, dtype in FLOATING.items():
            yield from conv_measurements(targets, depthwise_case, kind, dtype, False, "depthwise_conv")
    for pair_case in DEPTHWISE_SEPARABLE_CONV2D:
        for kind, (dtype, tf32) in PRODUCTS.items():
            yield from depthwise_separable_measurements(targets, pair_case, kind, dtype, tf32)
    for pool_case in MAX_POOL2D:
        for kind, dtype in FLOATING.items():
            yield from max_pool_measurements(targets, pool_case, kind, dtype)
    for average_case in AVG_POOL2D:
        for kind, dtype in FLOATING.items():
            yield from average_measurements(targets, average_case, kind, dtype)
    for sizes in NORM_SIZES:
        for kind, dtype in FLOATING.items():
            yield from norm_measurements(targets, sizes, kind, dtype)
    yield from int8_measurements(targets)


def table(results: Iterator[tuple[str, Measurement]], progress: Callable[[int], None]) -> list[Row]:
    """One row a backend, kernel and type, in that order of grouping."""
    rows: dict[tuple[str, str, str], Row] = {}
    for count, (backend, result) in enumerate(results):
        row = rows.setdefault((backend, result.kernel, result.type), Row(backend, result, 0))
        row.results += 1
        if result.ratio > row.worst.ratio:
            row.worst = result
        progress(count)
    return sorted(rows.values(), key=lambda row: list(backends.BACKENDS).index(row.backend))  # type: ignore[arg-type]


def run(names: Sequence[str] | None, device: str) -> int:
    """Checks the named backends (None: all that serve the device) and prints the table.

    Returns:
        0 where every result is within its allowance, 1 where one is not, 2 where there is nothing to check.
    """
    started = time.perf_counter()
    available = [name for name in backends.available_backends(device) if name != "reference"]
    chosen = available if names is None else list(names)
    for name in chosen:
        if name not in available:
            decision = backends.choose(backends.Problem("conv2d", device, torch.float32), name)
            print(f"cnnkernels check: the {name} backend cannot run here: {decision.reason}", file=sys.stderr)
            return 2
    if not chosen:
        print("cnnkernels check: no backend has kernels here; `cnnkernels info` says why", file=sys.stderr)
        return 2
    where = "on the GPU" if device == "cuda" else "in the interpreters"
    print(f"every kernel of {' and '.join(chosen)}, {where}, against PyTorch in fp64")

    def progress(count: int) -> None:
        if sys.stderr.isatty() and count % 16 == 0:
            print(f"\r{count} results", end="\r", file=sys.stderr, flush=True)

    targets = {name: Target(backends.kernels(name, device), device) for name in chosen}
    rows = table(measurements(targets), progress)
    print(HEADER, *rows, sep="\n")
    wrong = [row for row in rows if not row.right]
    count = sum(row.results for row in rows)
    print(f"{len(rows) - len(wrong)} of {len(rows)} right, {count} results, {time.perf_counter() - started:.0f} s")
    return 1 if wrong else 0
