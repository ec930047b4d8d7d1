"""int8_weight_only_linear's operator: floating rows by an int8 weight, and an epilogue (`Int8Epilogue`).

    sum[m, n] = sum over k of input[m, k] weight[n, k]      in fp32;      x = sum scale_b[n], and so on

The weight's rows have to be consecutive bytes, as a layer's are; any other is copied so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..int8 import reference as int8_reference
from .int8_epilogue import EPILOGUE, epilogue_of, kernels_of, one_by_one
from .operator import Operator


def _fake(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return torch.empty((input.shape[0], weight.shape[0]), dtype=rest[-2], device=input.device)


def _run(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    output = _fake(input, weight, *rest)
    if output.numel() == 0:
        return output
    epilogue = epilogue_of(rest, torch.contiguous_format)
    if input.shape[1] == 0:
        int8_reference.finish(torch.zeros_like(output, dtype=torch.float32), output, epilogue)
    else:
        rows = weight if weight.stride(1) == 1 else weight.contiguous()
        kernels_of(rest[-1], input.device).int8_weight_only_linear(input, rows, output, epilogue)
    return output


int8_weight_only_linear: Operator = Operator(
    f"int8_weight_only_linear(Tensor input, Tensor weight, {EPILOGUE}) -> Tensor",
    _run,
    _fake,
    one_by_one(lambda *args: int8_weight_only_linear(*args)),
)
