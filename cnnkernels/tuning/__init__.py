"""From a model to a table of who serves its calls the fastest, on the GPU at hand."""

from .tuning import Line, Tuning, tune_layers

__all__ = ["Line", "Tuning", "tune_layers"]
