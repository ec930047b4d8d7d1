"""The CUDA kernels as a backend: tensors in, pointers, geometry and a stream down to a native module.

`load("cuda")` serves CUDA tensors with the kernels nvcc compiled, `load("interpreter")` serves CPU tensors with the
very same sources run by the interpreter, `load("emulated")` serves them with what nvcc compiled, host code and PTX, run
by the emulator.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Literal

from .. import package
from .conv import ConvKernels
from .depthwise_conv import DepthwiseConvKernels
from .depthwise_separable_conv import DepthwiseSeparableConvKernels
from .int8_conv import Int8ConvKernels
from .int8_gemm import Int8GemmKernels
from .int8_pool import Int8PoolKernels
from .int8_weight_only_linear import Int8WeightOnlyLinearKernels
from .norm import NormKernels
from .pool import AvgPoolKernels, MaxPoolKernels, MaxUnpoolKernels
from .quantize import QuantizeKernels

__all__ = ["BUILD_HINT", "NativeKernels", "load"]

BUILD_HINT = "build the extensions with `make build` in a checkout or `pip install .`"


class NativeKernels(
    AvgPoolKernels,
    ConvKernels,
    DepthwiseConvKernels,
    DepthwiseSeparableConvKernels,
    Int8ConvKernels,
    Int8GemmKernels,
    Int8PoolKernels,
    Int8WeightOnlyLinearKernels,
    MaxPoolKernels,
    MaxUnpoolKernels,
    NormKernels,
    QuantizeKernels,
):
    """One native module's launchers over tensors. Inputs are validated and dense, outputs allocated by the caller."""


@functools.cache
def load(name: Literal["cuda", "emulated", "interpreter"]) -> NativeKernels:
    """The kernels of a native module; ImportError names the build command where it was not built.

    CNNKERNELS_NATIVE_DIR names a folder to look in first: that of a build under a sanitizer, say.
    """
    if folder := os.environ.get("CNNKERNELS_NATIVE_DIR"):
        if not os.path.isdir(folder):
            raise ImportError(f"CNNKERNELS_NATIVE_DIR must be a folder, but got {folder!r}")
        places = sys.modules[package.NAME].__path__
        if folder not in places:
            places.insert(0, folder)
    try:
        module = package.load(f"_{name}")
    except ImportError as error:
        raise ImportError(f"cnnkernels._{name} is not built ({error}): {BUILD_HINT}") from error
    return NativeKernels(module, "cuda" if name == "cuda" else "cpu")
