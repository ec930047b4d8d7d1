"""Bad input of conv1d and of transposed convolutions, as test_errors.py has it of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

X = torch.randn(2, 4, 5, 5)
W = torch.randn(6, 4, 3, 3)


def ones(*shape: int, **options: Any) -> torch.Tensor:
    return torch.ones(shape, **options)


ROW, TAPS = torch.randn(2, 4, 10), torch.randn(6, 4, 3)

CONV1D: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "input of 1 axis": (lambda f: f.conv1d(ones(10), TAPS), "Expected 2D (unbatched) or 3D (batched) input", "[10]"),
    "weight of 4 axes": (lambda f: f.conv1d(ROW, W), "", "weight of size [6, 4, 3, 3]"),
    "channels": (
        lambda f: f.conv1d(ones(2, 5, 10), TAPS),
        "Given groups=1, weight of size [6, 4, 3], expected input[2, 5, 10] to have 4 channels, but got 5 channels",
        "",
    ),
    "a row below the filter": (
        lambda f: f.conv1d(ones(2, 4, 2), TAPS),
        "Calculated padded input size per channel: (2). Kernel size: (3). "
        "Kernel size can't be greater than actual input size",
        "",
    ),
    "stride 0": (lambda f: f.conv1d(ROW, TAPS, stride=0), "non-positive stride is not supported", "stride=(0,)"),
    "padding below 0": (lambda f: f.conv1d(ROW, TAPS, padding=-1), "negative padding is not supported", "padding=(-1,"),
    "two strides": (
        lambda f: f.conv1d(ROW, TAPS, stride=[1, 2]),
        "expected stride to be a single integer value or a list of 1 values",
        "stride=[1, 2]",
    ),
    "same strided": (lambda f: f.conv1d(ROW, TAPS, padding="same", stride=2), "is not supported for strided", "(2,)"),
    "unknown padding": (lambda f: f.conv1d(ROW, TAPS, padding="full"), "Invalid padding string: 'full'", ""),
    "no places but padding": (
        lambda f: f.conv1d(ones(2, 4, 0), TAPS, padding=2),
        "Only zero batch or zero channel",
        "",
    ),
    "bias of another length": (lambda f: f.conv1d(ROW, TAPS, ones(5)), "1-dimensional with 6 elements", "[5]"),
    "filters of groups": (
        lambda f: f.conv1d(ROW, ones(5, 2, 3), groups=2),
        "divisible by 2 at dimension 0",
        "[5, 2, 3]",
    ),
    "stride of a float": (lambda f: f.conv1d(ROW, TAPS, stride=1.5), "conv1d()", "stride=1.5"),
    "weight of another dtype": (lambda f: f.conv1d(ROW, TAPS.double()), "Input type", "torch.float64"),
    "input of None": (lambda f: f.conv1d(None, TAPS), "conv1d()", "'input' must be Tensor, not NoneType"),
}

TURNED = torch.randn(4, 6, 3, 3)

CONV_TRANSPOSE2D: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "input of 2 axes": (lambda f: f.conv_transpose2d(ones(4, 5), TURNED), "Expected 3D (unbatched) or 4D", "[4, 5]"),
    "weight of 3 axes": (lambda f: f.conv_transpose2d(X, TURNED[0]), "", "weight of size [6, 3, 3]"),
    "channels": (
        lambda f: f.conv_transpose2d(ones(2, 5, 5, 5), TURNED),
        "Given transposed=1, weight of size [4, 6, 3, 3], expected input[2, 5, 5, 5] to have 4 channels, but got 5",
        "",
    ),
    "bias of another length": (
        lambda f: f.conv_transpose2d(X, TURNED, ones(4)),
        "Given transposed=1, weight of size [4, 6, 3, 3], expected bias to be 1-dimensional with 6 elements",
        "[4]",
    ),
    "bias of groups": (lambda f: f.conv_transpose2d(X, TURNED, ones(6), groups=2), "with 12 elements", "[6]"),
    "channels of groups": (lambda f: f.conv_transpose2d(X, TURNED, groups=3), "divisible by 3 at dimension 0", "[4, 6"),
    "groups of 0": (lambda f: f.conv_transpose2d(X, TURNED, groups=0), "non-positive groups is not", "groups=0"),
    "stride 0": (lambda f: f.conv_transpose2d(X, TURNED, stride=0), "non-positive stride is not", "stride=(0, 0)"),
    "padding below 0": (lambda f: f.conv_transpose2d(X, TURNED, padding=-1), "negative padding is not", "(-1, -1)"),
    "output padding below 0": (
        lambda f: f.conv_transpose2d(X, TURNED, output_padding=(0, -1)),
        "negative output_padding is not supported",
        "output_padding=(0, -1)",
    ),
    "output padding of a stride and a dilation": (
        lambda f: f.conv_transpose2d(X, TURNED, output_padding=(0, 2), dilation=2),
        "output padding must be smaller than either stride or dilation, but got",
        "output_padding=(0, 2)",
    ),
    "nothing is left": (
        lambda f: f.conv_transpose2d(ones(2, 4, 1, 2).double(), TURNED.double(), padding=(1, 2)),
        "Given input size per channel: (1 x 2). Calculated output size per channel: (1 x 0). Output size is too small",
        "",
    ),
    "a word for padding": (
        lambda f: f.conv_transpose2d(X, TURNED, padding="same"),
        "argument 'padding' must be",
        "same",
    ),
    "three strides": (
        lambda f: f.conv_transpose2d(X, TURNED, stride=(1, 1, 1)),
        "expected stride to be a",
        "[1, 1, 1]",
    ),
    "two output paddings of one": (
        lambda f: f.conv_transpose1d(ROW, TURNED[..., 0], output_padding=[0, 0]),
        "expected output_padding to be a single integer value or a list of 1 values",
        "[0, 0]",
    ),
    "a row's output padding": (
        lambda f: f.conv_transpose1d(ROW, TURNED[..., 0], stride=2, output_padding=2),
        "output padding must be smaller than either stride or dilation, but got",
        "output_padding=(2,)",
    ),
    "no rows": (lambda f: f.conv_transpose2d(ones(2, 4, 0, 5), TURNED), "Only zero batch or zero channel inputs", ""),
    "weight of another dtype": (lambda f: f.conv_transpose2d(X, TURNED.double()), "Input type", "torch.float64"),
    "input of None": (lambda f: f.conv_transpose2d(None, TURNED), "conv_transpose2d()", "must be Tensor, not NoneType"),
}
