"""int8_conv's kernels over tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..geometry import ConvGeometry
from ..int8.epilogue import Int8Epilogue
from .int8_epilogue import native_epilogue
from .launching import Launching

_VECTOR_BYTES = 16


class Int8ConvKernels(Launching):
    def int8_conv(
        self,
        input: Tensor,
        weight: Tensor,
        output: Tensor,
        geometry: ConvGeometry,
        epilogue: Int8Epilogue,
        plan: Any = None,
    ) -> None:
        """output [N, K, P, Q] of input [N, C, H, W], int8 or uint8, and weight [K, C / groups, R, S], int8, all of them
        channels_last. `plan`: an Int8ConvPlan of the module; None leaves the choice to csrc/int8_conv/select.h."""
        addresses = input.data_ptr(), weight.data_ptr()
        aligned = all(pointer % _VECTOR_BYTES == 0 for pointer in addresses)
        finish = native_epilogue(self.module, epilogue, output.dtype)
        problem = self._geometry(geometry), input.dtype is torch.uint8, finish
        workspace = self._workspace("int8_conv", input, *problem, aligned, plan)
        device, stream = self._on(input, weight, output, workspace, *epilogue)
        with device:
            self.module.int8_conv(*addresses, output.data_ptr(), workspace.data_ptr(), *problem, stream, plan)
