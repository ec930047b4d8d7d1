"""The Triton kernels as a backend: the functions of cnnkernels.native.NativeKernels over tensors."""

try:
    import triton  # noqa: F401
except ImportError as error:
    raise ImportError("the Triton kernels need triton: `pip install triton`") from error

from .conv.launch import (
    conv_backward_bias,
    conv_backward_input,
    conv_backward_weight,
    conv_forward,
    conv_why_copy_border,
)
from .depthwise_conv.launch import (
    depthwise_conv_backward_input,
    depthwise_conv_backward_weight,
    depthwise_conv_forward,
)
from .depthwise_separable_conv.backward import (
    depthwise_separable_conv_backward,
    depthwise_separable_conv_fuses_backward,
)
from .depthwise_separable_conv.launch import (
    depthwise_separable_conv_forward,
    depthwise_separable_conv_intermediate,
)
from .int8_conv.launch import int8_conv
from .int8_gemm.launch import int8_gemm
from .int8_pool.int8_pool import int8_avg_pool, int8_max_pool
from .int8_weight_only_linear.int8_weight_only_linear import int8_weight_only_linear
from .norm.backward import batch_norm_backward, batch_norm_combine, batch_norm_sums
from .norm.normalize import batch_norm_normalize
from .norm.statistics import batch_norm_statistics
from .pool.avg_pool import (
    adaptive_avg_pool_backward,
    adaptive_avg_pool_forward,
    avg_pool_backward,
    avg_pool_forward,
)
from .pool.max_pool import max_pool_backward, max_pool_forward, max_pool_gather, max_pool_indices
from .pool.max_unpool import max_unpool_backward, max_unpool_forward
from .quantize.quantize import dequantize, quantize

__all__ = [
    "adaptive_avg_pool_backward",
    "adaptive_avg_pool_forward",
    "avg_pool_backward",
    "avg_pool_forward",
    "batch_norm_backward",
    "batch_norm_combine",
    "batch_norm_normalize",
    "batch_norm_statistics",
    "batch_norm_sums",
    "conv_backward_bias",
    "conv_backward_input",
    "conv_backward_weight",
    "conv_forward",
    "conv_why_copy_border",
    "depthwise_conv_backward_input",
    "depthwise_conv_backward_weight",
    "depthwise_conv_forward",
    "depthwise_separable_conv_backward",
    "depthwise_separable_conv_forward",
    "depthwise_separable_conv_fuses_backward",
    "depthwise_separable_conv_intermediate",
    "dequantize",
    "int8_avg_pool",
    "int8_conv",
    "int8_gemm",
    "int8_max_pool",
    "int8_weight_only_linear",
    "max_pool_backward",
    "max_pool_forward",
    "max_pool_gather",
    "max_pool_indices",
    "max_unpool_backward",
    "max_unpool_forward",
    "quantize",
]
