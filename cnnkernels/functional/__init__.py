"""PyTorch's functional signatures over the project's kernels.

Each call asks `cnnkernels.backends` which backend serves it. "reference" is PyTorch's own operator, called as it
stands; what PyTorch does not have (INT8, the fused pair) is made of its operators. Bad input raises PyTorch's type of
error, with a message that names the argument and the value.
"""

import functools

from ..scripting import refuse_scripting
from .avg_pool import adaptive_avg_pool1d, adaptive_avg_pool2d, avg_pool1d, avg_pool2d
from .conv import conv1d, conv2d
from .conv_transpose import conv_transpose1d, conv_transpose2d
from .depthwise_conv import depthwise_conv2d
from .depthwise_separable_conv import depthwise_separable_conv2d
from .int8_conv import int8_conv2d
from .int8_gemm import int8_gemm, int8_linear, int_mm
from .int8_pool import int8_adaptive_avg_pool2d, int8_avg_pool2d, int8_max_pool2d
from .int8_weight_only_linear import int8_weight_only_linear
from .norm import batch_norm
from .pool import max_pool1d, max_pool1d_with_indices, max_pool2d, max_pool2d_with_indices, max_unpool2d
from .quantize import dequantize, quantize_per_channel, quantize_per_tensor, quantize_per_token

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "depthwise_conv2d",
    "depthwise_separable_conv2d",
    "dequantize",
    "int8_adaptive_avg_pool2d",
    "int8_avg_pool2d",
    "int8_conv2d",
    "int8_gemm",
    "int8_linear",
    "int8_max_pool2d",
    "int8_weight_only_linear",
    "int_mm",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_unpool2d",
    "quantize_per_channel",
    "quantize_per_tensor",
    "quantize_per_token",
]

for _name in __all__:  # torch.jit.script asks a function for this before it reads its code
    globals()[_name].__prepare_scriptable__ = functools.partial(refuse_scripting, _name)
