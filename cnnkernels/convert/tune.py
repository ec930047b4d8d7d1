"""Has `auto` take, for each call of a model, whoever is the fastest at it on the GPU at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..tuning import Tuning, tune_layers
from .replace import replace_layers


def tune(
    model: torch.nn.Module,
    example_input: Any,
    *,
    training: bool | None = None,
    path: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    timer: Any = None,
) -> Tuning:
    """Times the calls of a model's layers and keeps who is the fastest at each, PyTorch's own operators included.

    The model is run once, forward and where it trains backward, on PyTorch's operators, to find the shapes, types,
    layouts and gradients of its calls: of its layers of `cnnkernels.nn`, and of those of `torch.nn` that have a
    counterpart there. Each call's forward and gradients are timed on CUDA's kernels (of conv2d on the best of all plans
    that can serve), on Triton's and on PyTorch's own, which has cuDNN try its algorithms, in turns, with cold caches;
    as the model lays its images out, contiguous and channels_last. PyTorch's own wins unless a backend is more than 3 %
    faster. `auto` follows from then on, in this process and, by the table, in later ones with the same GPU and
    versions; a call of another shape, batch included, is served as without a table. `use_backend`, a layer's `backend`
    and CNNKERNELS_BACKEND go before it; code under torch.compile does not look at it.

    Args:
        model: any module, on a GPU. It stays as it is.
        example_input: a batch of its input: a tensor, a tuple or list of arguments, or a dict of named ones.
        training: whether gradients are wanted; None is `model.training`.
        path: the table to add to; None is the GPU's in the cache directory (CNNKERNELS_CACHE).
        say: takes a line for each call and each convolution's plans.
        timer: takes the time instead of a GPU, as `cnnkernels.tuning.candidates.Timer` does.

    Returns:
        What was measured, printable: each call's layers, times and winner, and what a step is expected to gain.

    Raises:
        TypeError: `model` is not a torch.nn.Module.
        ValueError: no layer makes a call that "auto" would serve, or the model is not on a GPU.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> if torch.cuda.is_available():
        ...     print(cnnkernels.tune(model.cuda(), torch.ones(1, 3, 8, 8, device="cuda")))
    """
    replaced = replace_layers(model).model
    return tune_layers(replaced, example_input, training, None if path is None else Path(path), timer, say=say)
