"""int8_weight_only_linear's kernel over tensors."""

from __future__ import annotations

from torch import Tensor

from ..dtypes import dtype_code
from ..int8.epilogue import Int8Epilogue
from ..int8.reference import widened_linear
from .int8_epilogue import native_epilogue
from .launching import Launching


class Int8WeightOnlyLinearKernels(Launching):
    def int8_weight_only_linear(self, input: Tensor, weight: Tensor, output: Tensor, epilogue: Int8Epilogue) -> None:
        """output [M, N] of input [M, K], float32, float16 or bfloat16 of any strides, and weight [N, K], int8, whose
        rows are consecutive bytes. The kernel takes `int8_weight_only_linear_rows` rows, 16; of more the weight is
        widened and PyTorch multiplies."""
        (m, k), n = input.shape, weight.shape[0]
        if m > self.module.int8_weight_only_linear_rows:
            output.copy_(widened_linear(input, weight, epilogue))
            return
        addresses = input.data_ptr(), weight.data_ptr(), output.data_ptr()
        strides = *input.stride(), weight.stride(0)
        finish = native_epilogue(self.module, epilogue, output.dtype)
        device, stream = self._on(input, weight, output, *epilogue)
        with device:
            self.module.int8_weight_only_linear(*addresses, dtype_code(input.dtype), (m, n, k), strides, finish, stream)
