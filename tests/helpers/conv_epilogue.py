"""conv2d with a fused epilogue on small integers: every argument, the reference, a launch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnnkernels.activation import activate
from cnnkernels.epilogue import Epilogue
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.numerics import small_integers
from helpers.conv import integers

SLOPE = 0.25


def numbers(case: ConvCase, dtype: torch.dtype, device: str, layout: Layout, seed: int = 0) -> dict[str, Tensor]:
    """Small integers for every argument."""
    data, memory = integers(case), layout.memory_format
    vectors = {
        name: small_integers((case.k,), torch.float64, 20 + i + seed) for i, name in enumerate(("scale", "shift"))
    }
    tensors = {"input": data.x, "weight": data.w, "bias": data.b, **vectors}
    tensors["residual"] = small_integers(case.output_shape, torch.float64, 30 + seed)
    return {
        name: (t.contiguous(memory_format=memory) if t.dim() == 4 else t).to(device, dtype)
        for name, t in tensors.items()
    }


def reference(case: ConvCase, given: dict[str, Tensor], activation: str) -> Tensor:
    x, w, b, scale, shift, residual = (given[name].double().cpu() for name in given)
    top, bottom, left, right = case.padding
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, w, b, case.stride, 0, case.dilation, case.groups)
    return activate(y * scale[:, None, None] + shift[:, None, None] + residual, activation, SLOPE)


def run(
    kernels: Any, case: ConvCase, given: dict[str, Tensor], layout: Layout, activation: str, **kwargs: Any
) -> Tensor:
    x, w, b, scale, shift, residual = given.values()
    unwritten = torch.full(case.output_shape, float("nan"), dtype=x.dtype, device=x.device)
    output = unwritten.contiguous(memory_format=layout.memory_format)
    epilogue = Epilogue(scale, shift, residual, activation, SLOPE)
    kernels.conv_forward(x, w, b, output, case.geometry, layout, False, epilogue=epilogue, **kwargs)
    return output.cpu().double()
