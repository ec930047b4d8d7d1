"""From a model of torch.nn to one on these kernels."""

from .replace import Replacement, replace_layers

__all__ = ["Replacement", "replace_layers"]
