"""Hand-written CUDA and Triton kernels for convolutional networks, as drop-in PyTorch layers."""

from __future__ import annotations

from . import functional, nn
from .backends import available_backends, choose, use_backend
from .convert.functional_calls import patch_functional
from .convert.replace import Replacement, replace_layers
from .convert.tune import tune
from .ops.flops import register_when_imported as _register_flops
from .proof.run import prove
from .quantization import Quantization, convert_qat, load_quantized, prepare_qat, quantize, save_quantized

__all__ = [
    "Quantization",
    "Replacement",
    "available_backends",
    "choose",
    "convert_qat",
    "functional",
    "load_quantized",
    "nn",
    "patch_functional",
    "prepare_qat",
    "prove",
    "quantize",
    "replace_layers",
    "save_quantized",
    "tune",
    "use_backend",
]
__version__ = "0.1.0"

_register_flops()
