"""int8_gemm's kernels over tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..int8.epilogue import Int8Epilogue
from .int8_epilogue import native_epilogue
from .launching import Launching


class Int8GemmKernels(Launching):
    def int8_gemm(self, a: Tensor, b: Tensor, output: Tensor, epilogue: Int8Epilogue, plan: Any = None) -> None:
        """output [M, N] of a [M, K], int8 or uint8, and b [K, N], int8, of any strides. `plan`: an Int8GemmPlan of the
        module; None leaves the choice to csrc/int8_gemm/select.h."""
        places = [(t.data_ptr(), *t.stride()) for t in (a, b)]
        sizes = (*a.shape, b.shape[1])
        problem = (sizes[0], sizes[2], sizes[1]), *places, a.dtype is torch.uint8
        finish = native_epilogue(self.module, epilogue, output.dtype)
        workspace = self._workspace("int8_gemm", a, *problem, finish, plan)
        device, stream = self._on(a, b, output, workspace, *epilogue)
        with device:
            self.module.int8_gemm(*problem, finish, output.data_ptr(), workspace.data_ptr(), stream, plan)
