"""Hand-written CUDA and Triton kernels for convolutional networks, as drop-in PyTorch layers."""

from __future__ import annotations

from . import functional
from .backends import available_backends, choose, use_backend

__all__ = ["available_backends", "choose", "functional", "use_backend"]
__version__ = "0.1.0"
