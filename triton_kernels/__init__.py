"""The Triton kernels as a backend: the functions of cnnkernels.native.NativeKernels over tensors."""

from .max_pool2d import (
    max_pool2d_backward,
    max_pool2d_forward,
    max_pool2d_gather,
    max_pool2d_indices,
)
from .max_unpool2d import max_unpool2d_backward, max_unpool2d_forward

__all__ = [
    "max_pool2d_backward",
    "max_pool2d_forward",
    "max_pool2d_gather",
    "max_pool2d_indices",
    "max_unpool2d_backward",
    "max_unpool2d_forward",
]
