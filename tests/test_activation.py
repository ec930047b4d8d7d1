"""Every activation and its derivative, in CUDA and in Triton, against PyTorch's: NaN, infinities and corners too."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from cnnkernels.triton_kernels.activation import activate as triton_activate
from cnnkernels.triton_kernels.activation import activate_derivative as triton_derivative
from native_tests import Machine

from cnnkernels.activation import ACTIVATIONS, activate, activation_backward, checked_activation, known_from_output

SLOPE = 51 / 1024  # exact in fp32
CORNERS = [
    math.nan,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    3.0,
    -3.0,
    6.0,
    -6.0,
    2.9999,
    -2.9999,
    6.0001,
    1e-30,
    100.0,
    -100.0,
]
VALUES = CORNERS + torch.linspace(-9, 9, 37, dtype=torch.float64).tolist()


def expected(name: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """PyTorch's values and derivatives in fp64, an element at a time: its vector loops treat NaN otherwise than its
    GPU kernels and its own scalar loops do."""
    values, derivatives = [], []
    for value in VALUES:
        x = torch.tensor([value], dtype=dtype).double().requires_grad_()
        y = activate(x, name, SLOPE)
        values.append(y.item())
        derivatives.append(torch.autograd.grad(y, x)[0].item())
    return torch.tensor(values, dtype=torch.float64), torch.tensor(derivatives, dtype=torch.float64)


def check(name: str, dtype: torch.dtype, value: torch.Tensor, derivative: torch.Tensor) -> None:
    """Equal up to a few roundings of the type they were computed in."""
    epsilon = torch.finfo(dtype).eps
    for found, right, what in zip((value, derivative), expected(name, dtype), ("value", "derivative"), strict=True):
        torch.testing.assert_close(
            found.double(), right, rtol=8 * epsilon, atol=8 * epsilon, equal_nan=True, msg=lambda m, w=what: f"{w}: {m}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_cuda(name: str, dtype: torch.dtype, machine: Machine) -> None:
    x = torch.tensor(VALUES, dtype=dtype).numpy()
    value, derivative = np.zeros_like(x), np.zeros_like(x)
    double = dtype is torch.float64
    machine.run("activation", ACTIVATIONS.index(name), 51, x, value, derivative, len(x), double)
    check(name, dtype, torch.from_numpy(value), torch.from_numpy(derivative))


@triton.jit
def activation_kernel(x, value, derivative, count, slope, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    at = tl.load(x + i, mask=i < count, other=0)
    tl.store(value + i, triton_activate(at, slope, ACTIVATION), mask=i < count)
    tl.store(derivative + i, triton_derivative(at, slope, ACTIVATION), mask=i < count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_triton(name: str, dtype: torch.dtype, device: str) -> None:
    x = torch.tensor(VALUES, dtype=dtype, device=device)
    value, derivative = torch.zeros_like(x), torch.zeros_like(x)
    with np.errstate(over="ignore", invalid="ignore"):
        activation_kernel[(1,)](x, value, derivative, len(x), SLOPE, ACTIVATION=name, BLOCK=64)
    check(name, dtype, value.cpu(), derivative.cpu())


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("slope", [SLOPE, 0.0])
def test_the_derivative_at_the_output_where_it_is_known(name: str, slope: float) -> None:
    """At the output or at the pre-activation: the same, for those that say so, and not for the others."""
    x = torch.linspace(-9, 9, 37, dtype=torch.float64)
    grad = torch.arange(1.0, 38.0, dtype=torch.float64)
    right = activation_backward(grad, x, name, slope)
    from_output = activation_backward(grad, activate(x, name, slope), name, slope)
    assert torch.equal(from_output, right) == known_from_output(name, slope)


def test_a_negative_slope_folds_the_line_so_the_output_does_not_tell() -> None:
    assert not known_from_output("leaky_relu", -0.5)


def test_arguments() -> None:
    assert checked_activation("conv2d", None) == ("none", 0.01)
    assert checked_activation("conv2d", "leaky_relu", 1) == ("leaky_relu", 1.0)
    with pytest.raises(ValueError, match=r"conv2d: activation must be None or one of none, relu, .* but got 'swish'"):
        checked_activation("conv2d", "swish")
    with pytest.raises(TypeError, match=r"conv2d\(\): argument 'activation' must be str or None, not int"):
        checked_activation("conv2d", 3)
    with pytest.raises(TypeError, match=r"conv2d\(\): argument 'negative_slope' must be float, not str"):
        checked_activation("conv2d", "relu", "0.1")
