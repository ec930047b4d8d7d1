"""Layers: torch.nn's, computed by the project's kernels.

Each class inherits from the layer of the same name in torch.nn and changes its arithmetic alone, so constructors,
attributes, initialisation, `repr`, `state_dict`, pickling, deepcopy and isinstance checks are PyTorch's own, and
a checkpoint goes either way. The INT8 layers and those that torch.nn has not are made of its layers by `from_float`
or by `fold`.

A layer runs on the backend in force (see `cnnkernels.use_backend`) unless its attribute `backend` pins one:

    layer = cnnkernels.nn.Conv2d(3, 64, 7, stride=2, padding=3)
    layer.backend = "triton"
"""

from .conv import Conv1d, Conv2d, Conv2dAct, LazyConv1d, LazyConv2d
from .conv_transpose import ConvTranspose1d, ConvTranspose2d, LazyConvTranspose1d, LazyConvTranspose2d
from .depthwise_conv import DepthwiseConv2d
from .depthwise_separable_conv import DepthwiseSeparableConv2d
from .int8 import Int8Conv2d, Int8Linear
from .int8_pool import Int8AdaptiveAvgPool2d, Int8AvgPool2d, Int8MaxPool2d
from .norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm2dAct,
    BatchNorm3d,
    LazyBatchNorm1d,
    LazyBatchNorm2d,
    LazyBatchNorm3d,
)
from .pool import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    MaxPool1d,
    MaxPool2d,
    MaxUnpool2d,
)
from .quantize import Dequantize, Quantize
from .sync_norm import SyncBatchNorm

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm2dAct",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv2dAct",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "DepthwiseConv2d",
    "DepthwiseSeparableConv2d",
    "Dequantize",
    "Int8AdaptiveAvgPool2d",
    "Int8AvgPool2d",
    "Int8Conv2d",
    "Int8Linear",
    "Int8MaxPool2d",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxUnpool2d",
    "Quantize",
    "SyncBatchNorm",
]
