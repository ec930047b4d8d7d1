"""Hand-written CUDA and Triton kernels for convolutional networks, as drop-in PyTorch layers."""

from __future__ import annotations

from . import functional, nn
from .backends import available_backends, choose, use_backend
from .convert import Replacement, replace_layers

__all__ = ["Replacement", "available_backends", "choose", "functional", "nn", "replace_layers", "use_backend"]
__version__ = "0.1.0"
