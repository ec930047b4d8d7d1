"""The one list of operators: what they are called, what they serve and which tensors their kernels take."""

from __future__ import annotations

from typing import NamedTuple

import torch

from .dtypes import FLOATING_DTYPES, INT8_DTYPES, ROUNDED_DTYPES


class Operator(NamedTuple):
    """One operator, by the name under which `cnnkernels.backends` chooses for it.

    word: the folder or file that is its own in csrc, triton_kernels, ops, native, functional, nn and tests.
    functions: those of `cnnkernels.functional` that it serves.
    dtypes: of its first operand, that the kernels take.
    ranks: how many spatial axes it knows; none for one that has no images, or any number of axes.
    backends: that have kernels of it.
    int8: for inference alone, and in no export to ONNX.
    measured: the functions that `cnnkernels bench` knows.
    """

    name: str
    word: str
    functions: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...] = FLOATING_DTYPES
    ranks: tuple[int, ...] = (2,)
    backends: tuple[str, ...] = ("cuda", "triton")
    int8: bool = False
    measured: tuple[str, ...] = ()


OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("conv2d", "conv", ("conv2d",), measured=("conv2d",)),
        Operator("conv1d", "conv", ("conv1d",), ranks=(1,)),
        Operator("depthwise_conv2d", "depthwise_conv", ("depthwise_conv2d",), measured=("depthwise_conv2d",)),
        Operator(
            "depthwise_separable_conv2d",
            "depthwise_separable_conv",
            ("depthwise_separable_conv2d",),
            measured=("depthwise_separable_conv2d",),
        ),
        Operator("conv_transpose2d", "conv", ("conv_transpose2d",), measured=("conv_transpose2d",)),
        Operator("conv_transpose1d", "conv", ("conv_transpose1d",), ranks=(1,)),
        Operator("max_pool2d", "pool", ("max_pool2d", "max_pool2d_with_indices"), measured=("max_pool2d",)),
        Operator("max_pool1d", "pool", ("max_pool1d", "max_pool1d_with_indices"), ranks=(1,)),
        Operator("max_unpool2d", "pool", ("max_unpool2d",)),
        Operator("avg_pool1d", "pool", ("avg_pool1d",), ranks=(1,)),
        Operator("adaptive_avg_pool1d", "pool", ("adaptive_avg_pool1d",), ranks=(1,)),
        Operator("avg_pool2d", "pool", ("avg_pool2d",), measured=("avg_pool2d",)),
        Operator("adaptive_avg_pool2d", "pool", ("adaptive_avg_pool2d",), measured=("adaptive_avg_pool2d",)),
        Operator("batch_norm", "norm", ("batch_norm",), ranks=()),
        Operator(
            "int8_gemm",
            "int8_gemm",
            ("int8_gemm", "int8_linear", "int_mm"),
            INT8_DTYPES,
            ranks=(),
            int8=True,
            measured=("int8_gemm", "int8_linear"),
        ),
        Operator("int8_conv2d", "int8_conv", ("int8_conv2d",), INT8_DTYPES, int8=True, measured=("int8_conv2d",)),
        Operator(
            "int8_weight_only_linear",
            "int8_weight_only_linear",
            ("int8_weight_only_linear",),
            ROUNDED_DTYPES,
            ranks=(),
            int8=True,
        ),
        Operator("int8_max_pool2d", "int8_pool", ("int8_max_pool2d",), INT8_DTYPES, int8=True),
        Operator(
            "int8_avg_pool2d", "int8_pool", ("int8_avg_pool2d", "int8_adaptive_avg_pool2d"), INT8_DTYPES, int8=True
        ),
        Operator(
            "quantize",
            "quantize",
            ("quantize_per_tensor", "quantize_per_channel", "quantize_per_token"),
            ranks=(),
            int8=True,
        ),
        Operator("dequantize", "quantize", ("dequantize",), ranks=(), int8=True),
    )
}
# By its own name, and by each function that it serves.
OPERATOR_OF = {name: operator for operator in OPERATORS.values() for name in (*operator.functions, operator.name)}
MEASURED = tuple(name for operator in OPERATORS.values() for name in operator.measured)
