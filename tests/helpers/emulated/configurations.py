"""Every configuration of Triton's convolutions on a small problem of integers, as compiled; for a process of its own.

Prints what was wrong, a line each, and how many ran.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import backends
from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.triton_aot import CONV2D_PRODUCTS, WHOLE, conv_candidates

# Partial tiles in every direction, several steps of every reduction.
SMALL = ConvCase("small", 2, 72, 9, 7, 40, 3, 3, (2, 1), (1, 1, 1, 1))


def integers(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> Tensor:
    return torch.randint(-2, 3, shape).to(dtype).to(memory_format=layout.memory_format)


def run(dtype_name: str, layout: Layout, op: str, configuration: object) -> bool:
    """Whether a direction has PyTorch's bits in a configuration."""
    kernels = backends.kernels("triton", "cpu")
    dtype, tf32 = PRODUCTS[dtype_name]
    x, w = integers(SMALL.input_shape, dtype, layout), integers(SMALL.weight_shape, dtype, layout)
    y = integers(SMALL.output_shape, dtype, layout)
    g = SMALL.geometry
    wide_x, wide_w = x.double().requires_grad_(), w.double().requires_grad_()
    result = F.conv2d(wide_x, wide_w, stride=(2, 1), padding=1)
    if op == "forward":
        made, expected = torch.empty_like(y), result
        kernels.conv_forward(x, w, None, made, g, layout, tf32, configuration)
    elif op == "backward_input":
        made, (expected,) = torch.empty_like(x), torch.autograd.grad(result, wide_x, y.double())
        kernels.conv_backward_input(y, w, made, g, layout, tf32, configuration)
    else:
        made, (expected,) = torch.empty_like(w), torch.autograd.grad(result, wide_w, y.double())
        kernels.conv_backward_weight(y, x, made, g, layout, tf32, configuration)
    return torch.equal(made, expected.detach().to(dtype))


def main() -> None:
    torch.manual_seed(0)
    backends.kernels("triton", "cpu")
    from triton.runtime.driver import driver

    arch, count = driver.active.get_current_target().arch, 0
    for dtype in PRODUCTS:
        for layout in Layout:
            for op in CONV2D_PRODUCTS:
                for call in conv_candidates(op, WHOLE, dtype, layout, arch):  # a small problem has fewer
                    count += 1
                    flat = call.configuration.flat and SMALL.c  # the channels beside a tap
                    if not run(dtype, layout, op, call.configuration._replace(flat=flat)):
                        print(f"{op} {call.specialization}")
    print(count)


if __name__ == "__main__":
    main()
