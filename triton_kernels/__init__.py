"""The Triton kernels as a backend: the functions of cnnkernels.native.NativeKernels over tensors."""

try:
    import triton  # noqa: F401
except ImportError as error:
    raise ImportError("the Triton kernels need triton: `pip install triton`") from error

from .conv.launch import (
    conv2d_backward_bias,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
    conv2d_why_copy_border,
)
from .depthwise_conv.launch import (
    depthwise_conv2d_backward_input,
    depthwise_conv2d_backward_weight,
    depthwise_conv2d_forward,
)
from .depthwise_separable_conv.backward import (
    depthwise_separable_conv2d_backward,
    depthwise_separable_conv2d_fuses_backward,
)
from .depthwise_separable_conv.launch import (
    depthwise_separable_conv2d_forward,
    depthwise_separable_conv2d_intermediate,
)
from .int8_conv.launch import int8_conv2d
from .int8_gemm.launch import int8_gemm
from .int8_pool.int8_pool import int8_avg_pool2d, int8_max_pool2d
from .int8_weight_only_linear.int8_weight_only_linear import int8_weight_only_linear
from .pool.max_pool import max_pool2d_backward, max_pool2d_forward, max_pool2d_gather, max_pool2d_indices
from .pool.max_unpool import max_unpool2d_backward, max_unpool2d_forward
from .quantize.quantize import dequantize, quantize

__all__ = [
    "conv2d_backward_bias",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_forward",
    "conv2d_why_copy_border",
    "depthwise_conv2d_backward_input",
    "depthwise_conv2d_backward_weight",
    "depthwise_conv2d_forward",
    "depthwise_separable_conv2d_backward",
    "depthwise_separable_conv2d_forward",
    "depthwise_separable_conv2d_fuses_backward",
    "depthwise_separable_conv2d_intermediate",
    "dequantize",
    "int8_avg_pool2d",
    "int8_conv2d",
    "int8_gemm",
    "int8_max_pool2d",
    "int8_weight_only_linear",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_indices",
    "max_unpool2d_backward",
    "max_unpool2d_forward",
    "quantize",
]
