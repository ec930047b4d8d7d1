"""int8_conv's operator: a convolution of integers, summed exactly, and finished by an epilogue (`Int8Epilogue`).

    sum[n,k,p,q] = sum over c,r,s of (x[n, c, p stride - pad + r dilation, q stride - pad + s dilation] - z) w[k,c,r,s]

What lies in the padding is worth z, the input's zero point, and so adds nothing. Output and operands are channels_last:
a pixel's channels then are a row of the product that this is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..geometry import Layout
from ..int8 import reference as int8_reference
from .checks import conv_geometry, of_planes
from .conv import ConvParameters, geometry_of
from .int8_epilogue import EPILOGUE, LENGTH, epilogue_of, kernels_of, one_by_one
from .memory import dense
from .operator import Operator

PARAMETERS = "int[] stride, int[] padding, int[] dilation, int groups"


def _fake(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    g = conv_geometry(of_planes(input.shape), weight.shape, *rest[:-LENGTH])
    size = g.n, g.k, g.p, g.q
    return torch.empty(size, dtype=rest[-2], device=input.device, memory_format=torch.channels_last)


def _run(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    geometry = geometry_of(input.shape, weight.shape, ConvParameters(*rest[:-LENGTH], rest[-1]))
    size = geometry.n, geometry.k, geometry.p, geometry.q
    output = torch.empty(size, dtype=rest[-2], device=input.device, memory_format=torch.channels_last)
    if output.numel() == 0:
        return output
    epilogue = epilogue_of(rest[-LENGTH:], torch.channels_last)
    if input.numel() == 0:
        sums = torch.zeros_like(output)
        int8_reference.finish(sums.movedim(1, -1), output.movedim(1, -1), epilogue)
        return output
    operands = dense(input, Layout.NHWC), dense(weight, Layout.NHWC), output
    kernels_of(rest[-1], input.device).int8_conv(*operands, geometry, epilogue)
    return output


int8_conv: Operator = Operator(
    f"int8_conv(Tensor input, Tensor weight, {PARAMETERS}, {EPILOGUE}) -> Tensor",
    _run,
    _fake,
    one_by_one(lambda *args: int8_conv(*args)),
)
