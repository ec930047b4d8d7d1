"""Every operator once on small integers, so that each order of summation gives PyTorch's own bits.

For a process of its own, where CNNKERNELS_BACKEND names a backend; OPERATORS prints the GPU and what was wrong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional, native

pairs = partial(zip, strict=True)
OPERATORS = "from helpers.emulated import operators; operators.main()"


def integers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(-2, 3, shape).to(dtype)


def gradients(of: Callable[..., Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
    leaves = tuple(leaf.clone().requires_grad_() for leaf in leaves)
    out = of(*leaves)
    return out, *torch.autograd.grad(out, leaves, torch.ones_like(out))


class Checks:
    """`wrong`: the names of what was not equal."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def __call__(self, name: str, *pairs: tuple[Tensor, Tensor]) -> None:
        if not all(a.dtype is b.dtype and torch.equal(a, b) for a, b in pairs):
            self.wrong.append(name)


def floating(check: Checks, dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = integers(2, 16, 7, 6, dtype=dtype).to(memory_format=layout)
    w, b = integers(24, 16, 3, 3, dtype=dtype), integers(24, dtype=dtype)
    mine = gradients(lambda x, w, b: functional.conv2d(x, w, b, 1, 1), x, w, b)
    check(f"conv2d {dtype}", *pairs(mine, gradients(lambda x, w, b: F.conv2d(x, w, b, 1, 1), x, w, b)))
    r, c = integers(2, 24, 7, 6, dtype=dtype), integers(24, dtype=dtype)
    mine = functional.conv2d(x, w, b, 1, 1, activation="relu", residual=r, scale=c, shift=b)
    each = (slice(None), None, None)
    check(f"epilogue {dtype}", (mine, F.relu(F.conv2d(x, w, b, 1, 1) * c[each] + b[each] + r)))
    mine = gradients(lambda x, w, b: functional.conv_transpose2d(x, w, b, 2, 1, 1), x, w.mT[:16, :16], b[:16])
    theirs = gradients(lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), x, w.mT[:16, :16], b[:16])
    check(f"conv_transpose2d {dtype}", *pairs(mine, theirs))
    t = w[:16].transpose(0, 1).contiguous().repeat(1, 2, 1, 1)[:, :24]
    r2 = integers(2, 24, 14, 12, dtype=dtype)
    mine = functional.conv_transpose2d(x, t, b, 2, 1, 1, activation="relu", residual=r2, scale=c, shift=b)
    theirs = F.relu(F.conv_transpose2d(x, t, b, 2, 1, 1) * c[each] + b[each] + r2)
    check(f"conv_transpose2d's epilogue {dtype}", (mine, theirs))
    rows, taps = x[:, :, 0].contiguous(), w[:, :, 0]
    mine = gradients(lambda x, w, b: functional.conv1d(x, w, b, 1, 1), rows, taps, b)
    check(f"conv1d {dtype}", *pairs(mine, gradients(lambda x, w, b: F.conv1d(x, w, b, 1, 1), rows, taps, b)))
    v, s = integers(16, 1, 3, 3, dtype=dtype), integers(24, 16, 1, 1, dtype=dtype)
    mine = gradients(lambda x, v: functional.depthwise_conv2d(x, v, padding=1), x, v)
    check(f"depthwise_conv2d {dtype}", *pairs(mine, gradients(lambda x, v: F.conv2d(x, v, padding=1, groups=16), x, v)))
    mine = functional.depthwise_separable_conv2d(x, v, s, padding=1)
    check(f"pair {dtype}", (mine, F.conv2d(F.conv2d(x, v, padding=1, groups=16), s)))
    y, i = functional.max_pool2d(x, 3, 2, 1, return_indices=True)
    check(f"max_pool2d {dtype}", *pairs((y, i), F.max_pool2d(x, 3, 2, 1, return_indices=True)))
    mine = gradients(lambda x: functional.max_pool2d(x, 2), x)
    check(f"max_pool2d's gradient {dtype}", *pairs(mine, gradients(lambda x: F.max_pool2d(x, 2), x)))

    y, i = F.max_pool2d(x, 2, return_indices=True)
    mine = functional.max_unpool2d(y, i, 2, output_size=(7, 6))
    check(f"max_unpool2d {dtype}", (mine, F.max_unpool2d(y, i, 2, output_size=(7, 6))))
    mine = gradients(lambda y: functional.max_unpool2d(y, i, 2, output_size=(7, 6)), y)
    theirs = gradients(lambda y: F.max_unpool2d(y, i, 2, output_size=(7, 6)), y)
    check(f"max_unpool2d's gradient {dtype}", *pairs(mine, theirs))
    mine = gradients(lambda x: functional.avg_pool2d(x, 2), 4 * x)
    check(f"avg_pool2d {dtype}", *pairs(mine, gradients(lambda x: F.avg_pool2d(x, 2), 4 * x)))
    for size in ((2, 3), 1):
        mine = gradients(lambda x, size=size: functional.adaptive_avg_pool2d(x, size), 48 * x[..., :6, :])
        check(f"adaptive_avg_pool2d {dtype}", (mine[0], F.adaptive_avg_pool2d(48 * x[..., :6, :], size)))


def of_bytes(check: Checks) -> None:
    a, b = integers(33, 48, dtype=torch.int8), integers(20, 48, dtype=torch.int8)
    check("int8_gemm", (functional.int8_gemm(a, b.t()), a.int() @ b.int().t()))
    rows, columns, bias = integers(33).exp2(), integers(20).exp2(), integers(20)
    mine = functional.int8_gemm(a, b.t(), scale_a=rows, scale_b=columns, bias=bias, zero_point_a=1)
    check("int8_gemm's scales", (mine, ((a.int() - 1) @ b.int().t()) * rows[:, None] * columns + bias))
    a, b = integers(2, 16, 7, 6, dtype=torch.int8), integers(24, 16, 3, 3, dtype=torch.int8)
    for zero in (0, 3):  # with sums of the filters
        mine = functional.int8_conv2d(a, b, padding=1, input_zero_point=zero)
        check(f"int8_conv2d {zero}", (mine, F.conv2d(a.double() - zero, b.double(), padding=1).int()))
    check("int8_max_pool2d", (functional.int8_max_pool2d(a, 3, 2, 1), F.max_pool2d(a.double(), 3, 2, 1).to(torch.int8)))
    mean = F.avg_pool2d(4 * a.double(), 2).round().to(torch.int8)
    check("int8_avg_pool2d", (functional.int8_avg_pool2d(4 * a, 2), mean))
    x, c = integers(5, 48), integers(20, 48, dtype=torch.int8)
    check("int8_weight_only_linear", (functional.int8_weight_only_linear(x, c), x @ c.float().t()))
    x, zeros = integers(4, 6), integers(6).int()
    mine, _ = functional.quantize_per_channel(x, 1, columns[:6], zeros)
    check("quantize", (mine, (torch.round(x / columns[:6]) + zeros).to(torch.int8)))
    check("dequantize", (functional.dequantize(mine, columns[:6], zeros, axis=1), (mine - zeros) * columns[:6]))


CHANNELS_LAST = [(dtype, torch.channels_last) for dtype in (torch.float16, torch.float32)]


def wrong(kinds: Sequence[tuple[torch.dtype, torch.memory_format]] = CHANNELS_LAST) -> list[str]:
    """The operators that are, of these types in these layouts."""
    torch.manual_seed(0)
    check = Checks()
    for dtype, layout in kinds:
        floating(check, dtype, layout)
    of_bytes(check)
    return check.wrong


def main() -> None:
    found = wrong()
    if os.environ["CNNKERNELS_BACKEND"] == "cuda":
        module = native.load("emulated").module
        assert module.statistics()["warp_instructions"] > 10000
        gpu = module.standing_for()
    else:
        from triton.runtime.driver import driver

        gpu = f"sm_{driver.active.get_current_target().arch}"
    print(gpu, *found or ["right"], sep=", ")
