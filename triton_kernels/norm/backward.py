"""The gradients of a normalization in Triton, and what its derivatives are made of: csrc/norm/backward.cu."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...activation import ACTIVATIONS
from ..common.activation import activate_derivative, divide
from ..common.sums import sum_along
from ..common.target import on
from ..common.types import accumulator, narrow
from .numbers import inverse_deviation, number, scaling
from .tiles import Plan, owned, places, plan_of, steps_of

CHANNELS, SLICES = 16, 64  # of a program that adds parts


@triton.jit
def slope_times(
    grad, x, residual, output, center, scale, shift, at, exists,
    SLOPE: tl.constexpr, ACTIVATION: tl.constexpr, element: tl.constexpr, stored: tl.constexpr,
):  # fmt: skip
    """grad times the activation's derivative, rounded as the tensor between two layers would be."""
    if ACTIVATION == "none":
        return grad
    else:
        if output is not None:
            z = tl.load(output + at, mask=exists, other=0.0).to(element)
        else:
            z = (x - center[:, None]) * scale[:, None] + shift[:, None]
            if residual is not None:
                z += tl.load(residual + at, mask=exists, other=0.0).to(element)
            z = narrow(z, stored).to(element)
        by = activate_derivative(z, SLOPE, ACTIVATION)
        return tl.where(by == 0, 0.0, narrow(grad * by, stored).to(element))


@triton.jit
def sums_kernel(
    grad, input, residual, output, grad_residual, mean, var, weight, bias, results,
    outer, channels, inner, length, parts,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACTIVATION: tl.constexpr,
    ADJACENT: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Of each part and channel the sums of g and of g (x - mean)."""
    stored: tl.constexpr = input.dtype.element_ty
    element: tl.constexpr = accumulator(stored)
    part, channel, channel_exists = owned(channels, parts, A)
    begin, end = steps_of(part, length, outer, inner, B, ADJACENT)
    center, scale, shift = scaling(mean, var, weight, bias, channel, channel_exists, EPS, element)
    one = tl.zeros([A, B], element)
    other = tl.zeros([A, B], element)
    for step in range(begin, end):
        at, exists = places(step, channel, channel_exists, outer, channels, inner, B, ADJACENT)
        x = tl.load(input + at, mask=exists, other=0.0).to(element)
        g = tl.load(grad + at, mask=exists, other=0.0).to(element)
        g = slope_times(g, x, residual, output, center, scale, shift, at, exists, SLOPE, ACTIVATION, element, stored)
        if grad_residual is not None:
            tl.store(grad_residual + at, narrow(g, stored), mask=exists)
        one += tl.where(exists, g, 0.0)
        other += tl.where(exists, g * (x - center[:, None]), 0.0)
    at = part * channels + channel
    tl.store(results + at, sum_along(one, 1), mask=channel_exists)
    tl.store(results + tl.full((), parts, tl.int64) * channels + at, sum_along(other, 1), mask=channel_exists)


@triton.jit
def add_sums_kernel(
    sums, results, coefficients, grad_weight, grad_bias, var, weight, channels, parts, count,
    EPS: tl.constexpr, TRAINING: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Writes what is there of: both sums, the gradients of weight and bias, and combine's alpha, gamma and delta."""
    if results is not None:
        element: tl.constexpr = results.dtype.element_ty
    else:
        element: tl.constexpr = coefficients.dtype.element_ty
    channel = tl.program_id(0).to(tl.int64) * A + tl.arange(0, A)
    exists = channel < channels
    one = tl.zeros([A, B], element)
    other = tl.zeros([A, B], element)
    for first in range(0, parts, B):
        part = first + tl.arange(0, B)
        there = (part < parts)[None, :] & exists[:, None]
        at = part.to(tl.int64)[None, :] * channels + channel[:, None]
        one += tl.load(sums + at, mask=there, other=0.0)
        other += tl.load(sums + tl.full((), parts, tl.int64) * channels + at, mask=there, other=0.0)
    first_sum = sum_along(one, 1)
    second_sum = sum_along(other, 1)
    if results is not None:
        tl.store(results + channel, first_sum, mask=exists)
        tl.store(results + channels + channel, second_sum, mask=exists)
    else:
        inverse = inverse_deviation(var, channel, exists, EPS, element)
        scale = number(weight, channel, exists, 1.0, element) * inverse
        if grad_weight is not None:
            tl.store(grad_weight + channel, narrow(second_sum * inverse, grad_weight.dtype.element_ty), mask=exists)
        if grad_bias is not None:
            tl.store(grad_bias + channel, narrow(first_sum, grad_bias.dtype.element_ty), mask=exists)
        tl.store(coefficients + channel, scale, mask=exists)
        if TRAINING:
            n = tl.zeros([A], element) + count
            gamma = -scale * inverse * divide(inverse * second_sum, n)
            tl.store(coefficients + channels + channel, gamma, mask=exists)
            tl.store(coefficients + 2 * channels + channel, -scale * divide(first_sum, n), mask=exists)


@triton.jit
def combine_kernel(
    x, a, b, result, gamma, center, delta, alpha, beta, residual, output, mean, var, weight, bias,
    outer, channels, inner, length, parts,
    EPS: tl.constexpr, SLOPE: tl.constexpr, ACTIVATION: tl.constexpr,
    ADJACENT: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """gamma (x - center) + delta + alpha a + beta b, with a times an activation's derivative first."""
    stored: tl.constexpr = result.dtype.element_ty
    element: tl.constexpr = accumulator(stored)
    part, channel, channel_exists = owned(channels, parts, A)
    begin, end = steps_of(part, length, outer, inner, B, ADJACENT)
    by_x = number(gamma, channel, channel_exists, 0.0, element)
    about = number(center, channel, channel_exists, 0.0, element)
    constant = number(delta, channel, channel_exists, 0.0, element)
    by_a = number(alpha, channel, channel_exists, 0.0, element)
    by_b = number(beta, channel, channel_exists, 0.0, element)
    of_z = scaling(mean, var, weight, bias, channel, channel_exists, EPS, element)
    for step in range(begin, end):
        at, exists = places(step, channel, channel_exists, outer, channels, inner, B, ADJACENT)
        total = tl.zeros([A, B], element) + constant[:, None]
        pixels = tl.zeros([A, B], element)
        if gamma is not None or ACTIVATION != "none":
            pixels = tl.load(x + at, mask=exists, other=0.0).to(element)
        if gamma is not None:
            total += by_x[:, None] * (pixels - about[:, None])
        if a is not None:
            g = tl.load(a + at, mask=exists, other=0.0).to(element)
            g = slope_times(
                g, pixels, residual, output, of_z[0], of_z[1], of_z[2], at, exists, SLOPE, ACTIVATION, element, stored
            )
            total += by_a[:, None] * g
        if b is not None:
            total += by_b[:, None] * tl.load(b + at, mask=exists, other=0.0).to(element)
        tl.store(result + at, narrow(total, stored), mask=exists)


def _tile(plan: Plan) -> dict[str, int]:
    return {"ADJACENT": plan.inner == 1, "A": plan.A, "B": plan.B, "num_warps": 4}


def batch_norm_backward(
    grad_output: Tensor,
    input: Tensor,
    residual: Tensor | None,
    output: Tensor | None,
    numbers: tuple[Tensor | None, ...],
    eps: float,
    activation: int,
    slope: float,
    training: bool,
    gradients: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    sizes: tuple[int, int, int],
) -> None:
    plan = plan_of(sizes)
    outer, channels, inner, _, parts, _, _ = plan
    mean, var, weight, _ = numbers
    of_input, of_weight, of_bias, of_residual = gradients
    number_type = torch.float64 if input.dtype is torch.float64 else torch.float32
    if not training and of_weight is None and of_bias is None and of_residual is None:
        parts = 0
    sums = torch.empty(2, parts, channels, dtype=number_type, device=input.device)
    alpha, gamma, delta = coefficients = torch.empty(3, channels, dtype=number_type, device=input.device)
    name = ACTIVATIONS[activation]
    with on(input):
        if parts > 0:
            sums_kernel[plan.grid](
                grad_output, input, residual, output, of_residual, *numbers, sums, *plan[:5],
                EPS=eps, SLOPE=slope, ACTIVATION=name, **_tile(plan),
            )  # fmt: skip
        add_sums_kernel[(triton.cdiv(channels, CHANNELS),)](
            sums, None, coefficients, of_weight, of_bias, var, weight, channels, parts, outer * inner,
            EPS=eps, TRAINING=training, A=CHANNELS, B=SLICES, num_warps=4,
        )  # fmt: skip
        if of_input is None:
            return
        factors = (gamma, mean, delta, alpha, None) if training else (None, None, None, alpha, None)
        given = grad_output if of_residual is None else of_residual
        combine_kernel[plan.grid](
            input, given, None, of_input, *factors, residual, output, *numbers, *plan[:5],
            EPS=eps, SLOPE=slope, ACTIVATION=name if of_residual is None else "none", **_tile(plan),
        )  # fmt: skip


def batch_norm_sums(a: Tensor, b: Tensor, center: Tensor | None, sums: Tensor, sizes: tuple[int, int, int]) -> None:
    plan = plan_of(sizes)
    outer, channels, inner, _, parts, _, _ = plan
    room = torch.empty(2, parts, channels, dtype=sums.dtype, device=a.device)
    with on(a):
        sums_kernel[plan.grid](
            a, b, None, None, None, center, None, None, None, room, *plan[:5],
            EPS=0.0, SLOPE=0.0, ACTIVATION="none", **_tile(plan),
        )  # fmt: skip
        add_sums_kernel[(triton.cdiv(channels, CHANNELS),)](
            room, sums, None, None, None, None, None, channels, parts, outer * inner,
            EPS=0.0, TRAINING=False, A=CHANNELS, B=SLICES, num_warps=4,
        )  # fmt: skip


def batch_norm_combine(
    x: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    result: Tensor,
    coefficients: tuple[Tensor | None, ...],
    sizes: tuple[int, int, int],
) -> None:
    plan = plan_of(sizes)
    with on(x):
        combine_kernel[plan.grid](
            x, a, b, result, *coefficients, None, None, None, None, None, None, *plan[:5],
            EPS=0.0, SLOPE=0.0, ACTIVATION="none", **_tile(plan),
        )  # fmt: skip
