"""Sizes, steps and windows beyond what kernels count: every backend serves them alike, or none is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import functional as K
from cnnkernels import use_backend
from helpers.device import DEVICE

INT8 = torch.int8


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Of one number, whatever its size."""
    return torch.ones(1, dtype=dtype, device=DEVICE).expand(shape)


def conv(dtype: torch.dtype = torch.float32, groups: int = 1, taps: int = 2, **how: Any) -> Tensor:
    x, w = image(1, 2, 9, 9, dtype=dtype), image(2, 2 // groups, taps, taps, dtype=dtype)
    call = K.int8_conv2d if dtype is INT8 else K.conv2d
    return call(x, w, groups=groups, **how, **({"out_dtype": torch.int32} if dtype is INT8 else {}))


WINDOW, POOLED = r"a window of more than 2\^31 - 1 places is not supported", r"within 2\^31 rows and columns"
WINDOWS, SIZES = r"within 2\^30 rows and columns", r"sizes must be below 2\^30"
FAR = 2**31 + 5
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "window": (
        lambda: K.max_pool2d(image(1, 1, 9, 9), 65536, 1, 32768),
        rf"{WINDOW}, but got kernel_size=\(65536, 65536\)",
    ),
    "window of a mean": (lambda: K.avg_pool2d(image(1, 1, 9, 9), 65536, 1, 32768), WINDOW),
    "rows of a mean": (lambda: K.avg_pool2d(image(1, 1, 9, 9), (2**31 - 1, 1), 1, (2**30 - 1, 0)), POOLED),
    "window of int8's maximum": (lambda: K.int8_max_pool2d(image(1, 1, 9, 9, dtype=INT8), 65536, 1, 32768), WINDOW),
    "window of int8's mean": (lambda: K.int8_avg_pool2d(image(1, 1, 9, 9, dtype=INT8), 65536, 1, 32768), WINDOW),
    "rows of a window": (lambda: K.max_pool2d(image(1, 1, 9, 9), (2**31 - 1, 1), 1, (2**30 - 1, 0)), POOLED),
    "rows of int8's window": (
        lambda: K.int8_max_pool2d(image(1, 1, 9, 9, dtype=INT8), (2**31 - 1, 1), 1, (2**30 - 1, 0)),
        POOLED,
    ),
    "padding": (lambda: conv(padding=FAR, stride=2**40), rf"{WINDOWS}.* padding=\({FAR}, {FAR}, {FAR}, {FAR}\)"),
    "padding of depthwise": (lambda: conv(groups=2, padding=FAR, stride=2**40), WINDOWS),
    "padding of int8": (lambda: conv(INT8, padding=FAR, stride=2**40), WINDOWS),
    "dilation": (lambda: conv(padding=2**29, dilation=2**30, stride=2**40), WINDOWS),
    "columns": (lambda: K.conv2d(image(1, 1, 1, 2**30), image(1, 1, 1, 1), stride=2**29), SIZES),
    "filters": (lambda: K.conv2d(image(1, 1, 1, 1), image(2**30, 1, 1, 1)), SIZES),
    "filters of int8": (lambda: K.int8_conv2d(image(1, 1, 2, 1, dtype=INT8), image(2**31, 1, 1, 1, dtype=INT8)), SIZES),
    "taps": (lambda: K.conv2d(image(1, 1, 2**16, 2**15), image(1, 1, 2**16, 2**15)), r"elements below 2\^31"),
    "plane to unpool": (
        lambda: K.max_unpool2d(image(1, 1, 2**16, 2**15), image(1, 1, 2**16, 2**15, dtype=torch.int64), 1),
        r"planes of up to 2\^31 - 2 elements .* planes of 65536 x 32768 to",
    ),
    "groups": (
        lambda: K.quantize_per_token(image(2**31, 1)),
        r"more than 2\^31 - 1 groups, 2147483648",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_backend_is_reached(kernel_backend: str, recorded: list[Any], name: str) -> None:
    call, words = REFUSED[name]
    with use_backend(kernel_backend), pytest.raises(ValueError, match=words):
        call()
    assert not recorded


STEPS = {
    "strides of one window": {"stride": (2**40, 2**31 - 1)},
    "strides of two windows": {"stride": (2**29 + 9, 2**29), "padding": (2**28 + 4, 2**28)},
    "dilations of one tap": {"dilation": (2**40, 2**31 - 1), "taps": 1},
    "dilations into the padding": {"stride": 2**26, "padding": 2**26, "dilation": 2**26 + 1},
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("kind", ["dense", "depthwise", "int8"])
def test_steps_beyond_the_image(kernel_backend: str, kind: str, name: str) -> None:
    """Against the convolution written out: nine pixels by nine, all of them and all taps 1."""
    how = STEPS[name]
    taps = how.get("taps", 2)
    pairs = {k: v if isinstance(v, tuple) else (v, v) for k, v in how.items() if k != "taps"}
    steps = [pairs.get(k, (1, 1)) for k in ("stride", "dilation")] + [pairs.get("padding", (0, 0))]
    inside = []
    for stride, dilation, pad in zip(*steps, strict=True):
        places = (9 + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
        inside.append([sum(0 <= p * stride - pad + t * dilation < 9 for t in range(taps)) for p in range(places)])
    channels = 1 if kind == "depthwise" else 2
    expected = channels * torch.tensor(inside[0])[:, None] * torch.tensor(inside[1])
    dtype, groups = INT8 if kind == "int8" else torch.float32, 2 if kind == "depthwise" else 1
    with use_backend(kernel_backend):
        y = conv(dtype, groups, **how)
    assert torch.equal(y.cpu().long(), expected.expand(1, 2, *expected.shape))


def test_channels_that_int8_pools_do_not_count() -> None:
    x = torch.empty(1, FAR + 11, 1, 1, dtype=INT8, device=DEVICE)  # a multiple of 16, as its widest loads take
    with use_backend("cuda"), pytest.raises(ValueError, match=r"more than 2\^31 - 1 channels"):
        K.int8_max_pool2d(x, 1)
