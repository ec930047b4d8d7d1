"""batch_norm's part of `cnnkernels check`: statistics, what is made of them, and every gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .check_results import Expected, Measurement, Target, measure, random_numbers

EPS = 1e-5
# outer, channels, inner: planes and pixels, by vectors and by elements, and more than a block has.
SIZES = ((4, 6, 8), (3, 5, 35), (2, 3, 4000), (64, 16, 1), (1000, 40, 1))


class _Results(NamedTuple):
    mean: Tensor
    var: Tensor
    y: Tensor
    dx: Tensor
    dw: Tensor
    db: Tensor


def _normalize(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> _Results:
    """By PyTorch."""
    x, weight, bias = (each.detach().requires_grad_() for each in (x, weight, bias))
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS)
    wide = x.detach().to(weight.dtype)
    var, mean = torch.var_mean(wide, (0, 2), correction=0)
    return _Results(mean, var, y.detach(), *torch.autograd.grad(y, (x, weight, bias), dy))


def _magnitudes(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor, truth: _Results) -> _Results:
    """What each result is a sum of, all in absolute values."""
    across = (0, 2)
    inverse = (truth.var + EPS).rsqrt()[:, None]
    size = x.abs()
    distance = (size + size.mean(across)[:, None]) * inverse
    scaled = weight.abs()[:, None]
    dw, db = (dy.abs() * distance).sum(across), dy.abs().sum(across)
    count = x.shape[0] * x.shape[2]
    dx = scaled * inverse * (dy.abs() + db[:, None] / count + distance * dw[:, None] / count)
    square = ((size + size.mean(across)[:, None]) ** 2).mean(across)
    return _Results(size.mean(across), square, scaled * distance + bias.abs()[:, None], dx, dw, db)


def norm_measurements(
    targets: dict[str, Target], sizes: tuple[int, int, int], kind: str, dtype: torch.dtype
) -> Iterator[tuple[str, Measurement]]:
    """Every kernel of batch_norm of every target in one type, on [outer, channels, inner]."""
    outer, channels, inner = sizes
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    x, dy = (random_numbers(sizes, seed, dtype) for seed in (1, 2))
    weight, bias = (random_numbers((channels,), seed, wide) for seed in (3, 4))
    doubles = x.double(), weight.double(), bias.double(), dy.double()
    truth, theirs = _normalize(*doubles), _normalize(x, weight, bias, dy)
    magnitude = _magnitudes(*doubles, truth)
    for backend, target in targets.items():
        kernels = target.kernels

        def empty(size: tuple[int, ...], of: torch.dtype, device: str = target.device) -> Tensor:
            return torch.full(size, torch.nan, dtype=of, device=device)

        given, error, w, b = (each.to(target.device) for each in (x, dy, weight, bias))
        mean, var, dw, db = (empty((channels,), wide) for _ in range(4))
        y, dx = empty(sizes, dtype), empty(sizes, dtype)
        kernels.batch_norm_statistics(given, mean, var, None, None, 0.0, sizes)
        numbers = mean, var, w, b
        kernels.batch_norm_normalize(given, None, y, numbers, EPS, 0, 0.0, sizes)
        gradients = dx, dw, db, None
        kernels.batch_norm_backward(error, given, None, None, numbers, EPS, 0, 0.0, True, gradients, sizes)
        named = {"statistics": ("mean", "var"), "normalize": ("y",), "backward": ("dx", "dw", "db")}
        ours = _Results(mean, var, y, dx, dw, db)
        for kernel, results in named.items():
            for name in results:
                made, right = getattr(ours, name), getattr(truth, name)
                expected = Expected(right, getattr(theirs, name), getattr(magnitude, name), outer * inner)
                bound = expected.bound(made.dtype, tf32=False)
                yield backend, measure(f"batch_norm_{kernel}", kind, made, right, bound)
