"""Every activation and its derivative, in CUDA and in Triton, against PyTorch's: NaN, infinities and corners too."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from cnnkernels.triton_kernels.common.activation import activate as triton_activate
from cnnkernels.triton_kernels.common.activation import activate_derivative as triton_derivative
from cnnkernels.triton_kernels.common.activation import exp as triton_exp

from cnnkernels.activation import ACTIVATIONS, activate, activation_backward, known_from_output
from cnnkernels.functional.arguments import checked_activation
from cnnkernels.testing.numerics import UNIT_ROUNDOFF
from helpers.native import PrimitiveRunner

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
def test_cuda(name: str, dtype: torch.dtype, runner: PrimitiveRunner) -> None:
    x = torch.tensor(VALUES, dtype=dtype).numpy()
    value, derivative = np.zeros_like(x), np.zeros_like(x)
    double = dtype is torch.float64
    runner.run("activation", ACTIVATIONS.index(name), 51, x, value, derivative, len(x), double)
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


# All of fp32 whose exponential is a normal number, and the activations that take one.
RANGE = torch.cat([torch.linspace(-87.3, 88.7, 1 << 15), -torch.linspace(0, 87.3, 999)])


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_silu_is_as_exact_far_from_zero(backend: str, runner: PrimitiveRunner, device: str) -> None:
    """Relatively: an exponential whose argument is rounded errs by its size. 16 roundoffs: 12 of the exponential, and
    one or two of each operation."""
    for x in RANGE[::16].contiguous().split(64):
        value, derivative = torch.zeros_like(x), torch.zeros_like(x)
        if backend == "cuda":
            arrays = x.numpy(), value.numpy(), derivative.numpy()
            runner.run("activation", ACTIVATIONS.index("silu"), 51, *arrays, len(x), False)
        else:
            value = value.to(device)
            activation_kernel[(1,)](
                x.to(device), value, derivative.to(device), len(x), SLOPE, ACTIVATION="silu", BLOCK=64
            )
        right = activate(x.double(), "silu")
        torch.testing.assert_close(value.cpu().double(), right, rtol=16 * UNIT_ROUNDOFF[torch.float32], atol=0)


@triton.jit
def exp_kernel(x, y, count, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(y + i, triton_exp(tl.load(x + i, mask=i < count, other=0)), mask=i < count)


def on_a_gpu(ulps: int) -> dict[str, Any]:
    """The exponentials of the interpreter as a GPU makes them: 2^x off by `ulps` of the 2 that PTX allows ex2.approx,
    without subnormal numbers, and e^x as Triton compiles it, 2 to the rounded product."""
    exp2, log2e, least = np.exp2, np.float32(math.log2(math.e)), np.float32(2.0**-126)

    def rounded(x: Any) -> Any:
        y = exp2(np.asarray(x).astype(np.float64)).astype(np.float32)
        for _ in range(abs(ulps)):
            y = np.nextafter(y, np.float32(math.copysign(math.inf, ulps)))
        return y

    def flushed(x: Any) -> Any:
        y = rounded(x)
        return np.where(y < least, np.float32(0), y)

    return {"exp2": flushed, "exp": lambda x: rounded(x * log2e)}


@pytest.mark.parametrize("ulps", [0, 2, -2])
def test_tritons_exponential_on_a_gpu(monkeypatch: pytest.MonkeyPatch, device: str, ulps: int) -> None:
    for name, function in on_a_gpu(ulps).items():
        monkeypatch.setattr(np, name, function)

    def run(x: torch.Tensor) -> torch.Tensor:
        x, y = x.to(device), torch.zeros_like(x, device=device)
        with np.errstate(over="ignore", invalid="ignore"):
            exp_kernel[(1,)](x, y, len(x), BLOCK=1 << 16)
        return y.cpu()

    right = RANGE.double().exp()
    torch.testing.assert_close(run(RANGE).double(), right, rtol=12 * UNIT_ROUNDOFF[torch.float32], atol=0)
    subnormal = torch.linspace(-104, -87.3, 999)
    found, right = run(subnormal).double(), subnormal.double().exp()
    torch.testing.assert_close(found, right, rtol=12 * UNIT_ROUNDOFF[torch.float32], atol=2.0**-149)
    special = run(torch.tensor([math.inf, -math.inf, math.nan, 88.73, 1e30, -1e30, 0.0, -0.0]))
    right = torch.tensor([math.inf, 0, math.nan, math.inf, math.inf, 0, 1, 1])
    within = (2 * UNIT_ROUNDOFF[torch.float32]) * 4
    torch.testing.assert_close(special, right, rtol=within, atol=0, equal_nan=True)


COMPILED = """
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from cnnkernels.triton_kernels.common.activation import activate, activate_derivative

@triton.jit
def kernel(x, y, NAME: tl.constexpr):
    i = tl.arange(0, 32)
    tl.store(y + i, activate(tl.load(x + i), 0.0, NAME))
    tl.store(y + 32 + i, activate_derivative(tl.load(x + i), 0.0, NAME))

for name in ("silu", "gelu"):
    source = ASTSource(kernel, {"x": "*fp32", "y": "*fp32"}, constexprs={"NAME": name})
    print(compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}).asm["ptx"])
"""


def test_triton_compiles_no_exponential_of_a_rounded_product(tmp_path: Path) -> None:
    """tl.exp is ex2.approx.f32; tl.exp2, whose argument is ours, ex2.approx.ftz.f32."""
    path = tmp_path / "compiled.py"
    path.write_text(COMPILED)
    environment = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "CNNKERNELS_INTERPRET")}
    run = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=environment, check=True)
    powers = re.findall(r"ex2\.\S+", run.stdout)
    assert len(powers) >= 4 and set(powers) == {"ex2.approx.ftz.f32"}, powers


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
