"""int8_gemm's operator: integers multiplied, summed exactly, and finished by an epilogue (`Int8Epilogue`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..int8 import reference as int8_reference
from .int8_epilogue import EPILOGUE, epilogue_of, kernels_of, one_by_one
from .operator import Operator


def _fake(a: Tensor, b: Tensor, *rest: Any) -> Tensor:
    return torch.empty((a.shape[0], b.shape[1]), dtype=rest[-2], device=a.device)


def _run(a: Tensor, b: Tensor, *rest: Any) -> Tensor:
    output = _fake(a, b, *rest)
    if output.numel() == 0:
        return output
    epilogue = epilogue_of(rest, torch.contiguous_format)
    if a.shape[1] == 0:
        int8_reference.finish(torch.zeros_like(output), output, epilogue)
    else:
        kernels_of(rest[-1], a.device).int8_gemm(a, b, output, epilogue)
    return output


int8_gemm: Operator = Operator(
    f"int8_gemm(Tensor a, Tensor b, {EPILOGUE}) -> Tensor",
    _run,
    _fake,
    one_by_one(lambda *args: int8_gemm(*args)),
)
