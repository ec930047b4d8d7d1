"""Bad input: PyTorch's own operator is called with the same arguments, and ours must raise the same type of error,
in PyTorch's words, and name the argument or its value. No kernel is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from cnnkernels import functional, use_backend
from helpers.conv_errors import CONV1D, CONV_TRANSPOSE2D

X = torch.randn(2, 4, 5, 5)
W = torch.randn(6, 4, 3, 3)


def ones(*shape: int, **options: Any) -> torch.Tensor:
    return torch.ones(shape, **options)


# label: (call of an operator's namespace, words of PyTorch's message that ours shares, what ours names besides)
CONV2D: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "input of 2 axes": (lambda f: f.conv2d(ones(4, 5), W), "Expected 3D (unbatched) or 4D (batched) input", "[4, 5]"),
    "input of 5 axes": (lambda f: f.conv2d(X[None], W), "Expected 3D (unbatched) or 4D (batched) input", "[1, 2, 4"),
    "weight of 2 axes": (lambda f: f.conv2d(X, ones(6, 4)), "weight should have", "[6, 4]"),
    "weight of 3 axes": (lambda f: f.conv2d(X, ones(6, 4, 3)), "", "weight of size [6, 4, 3]"),
    "weight of 5 axes": (lambda f: f.conv2d(X, W[None]), "", "weight of size [1, 6, 4, 3, 3]"),
    "channels": (
        lambda f: f.conv2d(ones(2, 3, 5, 5), W),
        "weight of size [6, 4, 3, 3], expected input[2, 3, 5, 5] to have 4 channels, but got 3 channels",
        "Given groups=1",
    ),
    "channels unbatched": (lambda f: f.conv2d(ones(3, 5, 5), W), "to have 4 channels, but got 3 channels", ""),
    "channels of groups": (lambda f: f.conv2d(X, W, groups=2), "to have 8 channels, but got 4 channels", "groups=2"),
    "filters of groups": (
        lambda f: f.conv2d(ones(2, 8, 5, 5), ones(5, 4, 3, 3), groups=2),
        "Given groups=2, expected weight to be divisible by 2 at dimension 0, but got weight of size",
        "[5, 4, 3, 3]",
    ),
    "no filters": (lambda f: f.conv2d(X, ones(0, 4, 3, 3)), "expected weight to be at least 1 at dimension 0", "[0, 4"),
    "groups of 0": (lambda f: f.conv2d(X, W, groups=0), "non-positive groups is not supported", "groups=0"),
    "groups below 0": (lambda f: f.conv2d(X, W, groups=-1), "non-positive groups is not supported", "groups=-1"),
    "stride 0": (lambda f: f.conv2d(X, W, stride=0), "non-positive stride is not supported", "stride=(0, 0)"),
    "stride below 0": (lambda f: f.conv2d(X, W, stride=(1, -1)), "non-positive stride is not", "stride=(1, -1)"),
    "dilation 0": (lambda f: f.conv2d(X, W, dilation=0), "non-positive dilation is not", "dilation=(0, 0)"),
    "dilation below 0": (lambda f: f.conv2d(X, W, dilation=(1, -1)), "dilation", "dilation=(1, -1)"),
    "padding below 0": (lambda f: f.conv2d(X, W, padding=-1), "negative padding is not supported", "padding=(-1, -1"),
    "three strides": (lambda f: f.conv2d(X, W, stride=(1, 1, 1)), "expected stride to be a single", "[1, 1, 1]"),
    "no stride": (lambda f: f.conv2d(X, W, stride=()), "expected stride to be a single integer", "stride=[]"),
    "three paddings": (lambda f: f.conv2d(X, W, padding=(1, 1, 1)), "expected padding to be a single", "[1, 1, 1]"),
    "three dilations": (lambda f: f.conv2d(X, W, dilation=[1, 1, 1]), "expected dilation to be a", "[1, 1, 1]"),
    "same strided": (
        lambda f: f.conv2d(X, W, padding="same", stride=2),
        "padding='same' is not supported for strided convolutions",
        "stride=(2, 2)",
    ),
    "unknown padding": (lambda f: f.conv2d(X, W, padding="full"), "Invalid padding string: 'full'", ""),
    "input below the filter": (
        lambda f: f.conv2d(ones(2, 4, 2, 2), W),
        "Calculated padded input size per channel: (2 x 2). Kernel size: (3 x 3). "
        "Kernel size can't be greater than actual input size",
        "",
    ),
    "input below the dilated filter": (
        lambda f: f.conv2d(ones(2, 4, 4, 6), W, dilation=2),
        "(4 x 6). Kernel size: (5 x 5). Kernel size can't be greater than actual input size",
        "",
    ),
    "empty batch of too small images": (
        lambda f: f.conv2d(ones(0, 4, 2, 2), W),
        "Kernel size can't be greater than actual input size",
        "",
    ),
    "no rows but padding": (
        lambda f: f.conv2d(ones(2, 4, 0, 5), W, padding=2),
        "Only zero batch or zero channel inputs are supported",
        "[2, 4, 0, 5]",
    ),
    "filter of no rows": (lambda f: f.conv2d(X, ones(6, 4, 0, 3)), "", "weight of size [6, 4, 0, 3]"),
    "weight of another dtype": (lambda f: f.conv2d(X, W.double()), "Input type", "torch.float64"),
    "input of another dtype": (lambda f: f.conv2d(X.double(), W), "", "torch.float64"),
    "half beside float": (lambda f: f.conv2d(X.half(), W), "", "torch.float16"),
    "bias of another dtype": (lambda f: f.conv2d(X, W, ones(6).double()), "bias type", "torch.float64"),
    "bias of another length": (
        lambda f: f.conv2d(X, W, ones(5)),
        "Given weight of size [6, 4, 3, 3], expected bias to be 1-dimensional with 6 elements, "
        "but got bias of size [5] instead",
        "",
    ),
    "bias of two axes": (lambda f: f.conv2d(X, W, ones(6, 1)), "expected bias to be 1-dimensional", "[6, 1]"),
    "bias of no axis": (lambda f: f.conv2d(X, W, torch.tensor(1.0)), "expected bias to be 1-dimensional", "size []"),
    "bool tensors": (lambda f: f.conv2d(X.bool(), W.bool()), "", "bool"),
    "fp8 tensors": (
        lambda f: f.conv2d(X.to(torch.float8_e4m3fn), W.to(torch.float8_e4m3fn)),
        "",
        "float8_e4m3fn",
    ),
    "groups of a float": (lambda f: f.conv2d(X, W, groups=1.0), "conv2d()", "groups=1.0"),
    "stride of a float": (lambda f: f.conv2d(X, W, stride=1.5), "conv2d()", "stride=1.5"),
    "stride of a word": (lambda f: f.conv2d(X, W, stride="same"), "conv2d()", "stride='same'"),
    "stride of None": (lambda f: f.conv2d(X, W, stride=None), "conv2d()", "stride=None"),
    "stride of a bool": (lambda f: f.conv2d(X, W, stride=True), "conv2d()", "stride=True"),
    "padding of a list of words": (lambda f: f.conv2d(X, W, padding=["same"]), "conv2d()", "padding="),
    "input of None": (lambda f: f.conv2d(None, W), "conv2d()", "'input' must be Tensor, not NoneType"),
    "weight of a list": (lambda f: f.conv2d(X, [1.0]), "conv2d()", "'weight' must be Tensor, not list"),
    "bias of an int": (lambda f: f.conv2d(X, W, 3), "conv2d()", "'bias' must be Tensor, not int"),
}

MAX_POOL2D: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "input of 2 axes": (lambda f: f.max_pool2d(ones(5, 5), 2), "non-empty 3D or 4D (batch mode) tensor", "[5, 5]"),
    "input of 5 axes": (lambda f: f.max_pool2d(X[None], 2), "non-empty 3D or 4D (batch mode) tensor", "[1, 2, 4"),
    "zero kernel": (lambda f: f.max_pool2d(X, 0), "", "kernel size should be greater than zero, but got (0, 0)"),
    "kernel below 0": (lambda f: f.max_pool2d(X, -1), "kernel size should be greater than zero", "(-1, -1)"),
    "zero stride": (lambda f: f.max_pool2d(X, 2, stride=0), "stride should", "(0, 0)"),
    "stride below 0": (lambda f: f.max_pool2d(X, 2, stride=(1, -1)), "stride should be greater than zero", "(1, -1)"),
    "zero dilation": (lambda f: f.max_pool2d(X, 2, dilation=0), "dilation should be greater than zero", "(0, 0)"),
    "dilation below 0": (lambda f: f.max_pool2d(X, 2, dilation=-1), "dilation should be greater than zero", "-1"),
    "padding below 0": (lambda f: f.max_pool2d(X, 2, padding=-1), "pad must be non-negative, but got pad: -1", ""),
    "padding above half": (
        lambda f: f.max_pool2d(X, 2, padding=2),
        "pad should be at most half of",
        "padding=(2, 2) and kernel_size=(2, 2)",
    ),
    "padding above half of a dilated window": (
        lambda f: f.max_pool2d(X, 3, padding=2, dilation=2),
        "pad should be",
        "padding=(2, 2)",
    ),
    "three kernels": (lambda f: f.max_pool2d(X, (2, 2, 2)), "kernel_size", "[2, 2, 2]"),
    "three strides": (lambda f: f.max_pool2d(X, 2, stride=(1, 1, 1)), "stride", "[1, 1, 1]"),
    "three paddings": (lambda f: f.max_pool2d(X, 2, padding=(1, 1, 1)), "padding", "[1, 1, 1]"),
    "three dilations": (lambda f: f.max_pool2d(X, 2, dilation=(1, 1, 1)), "dilation", "[1, 1, 1]"),
    "input below the window": (
        lambda f: f.max_pool2d(ones(1, 1, 2, 2), 3),
        "Given input size: (1x2x2). Calculated output size: (1x0x0). Output size is too small",
        "",
    ),
    "dilation beyond the input, ceil_mode": (
        lambda f: f.max_pool2d(ones(1, 1, 4, 4), 2, dilation=5, ceil_mode=True),
        "Given input size: (1x4x4). Calculated output size: (1x0x0). Output size is too small",
        "",
    ),
    "dilation of INT32_MAX": (lambda f: f.max_pool2d(X, 2, dilation=2**31 - 1), "Output size is too small", "4x5x5"),
    "dilation beyond int32": (
        lambda f: f.max_pool2d(X, 2, dilation=2**31),
        "cannot be converted to type int without overflow",
        "dilation=2147483648",
    ),
    "kernel beyond int32": (
        lambda f: f.max_pool2d(X, 2**31),
        "cannot be converted to type int without overflow",
        "kernel_size=2147483648",
    ),
    "no channels": (lambda f: f.max_pool2d(ones(2, 0, 5, 5), 2), "with optional 0 dim batch size", "[2, 0, 5, 5]"),
    "no rows": (lambda f: f.max_pool2d(ones(2, 4, 0, 5), 2), "with optional 0 dim batch size", "[2, 4, 0, 5]"),
    "unbatched without channels": (lambda f: f.max_pool2d(ones(0, 5, 5), 2), "with optional 0 dim batch", "[0, 5, 5]"),
    "bool tensors": (lambda f: f.max_pool2d(X.bool(), 2), "", "bool"),
    "complex tensors": (lambda f: f.max_pool2d(X.cfloat(), 2), "", "complex64"),
    "kernel of a float": (lambda f: f.max_pool2d(X, 1.5), "max_pool2d()", "kernel_size=1.5"),
    "kernel of None": (lambda f: f.max_pool2d(X, None), "max_pool2d()", "kernel_size=None"),
    "ceil_mode of an int": (lambda f: f.max_pool2d(X, 2, ceil_mode=1), "argument 'ceil_mode'", "ceil_mode=1"),
    "input of None": (lambda f: f.max_pool2d(None, 2), "must be Tensor, not NoneType", "'input'"),
}

AVG_POOL2D: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "input of 5 axes": (lambda f: f.avg_pool2d(X[None], 2), "Expected 3D or 4D (batch mode) tensor", "[1, 2, 4"),
    "zero kernel": (lambda f: f.avg_pool2d(X, 0, 1), "kernel size should be greater than zero, but got", "(0, 0)"),
    "stride below 0": (lambda f: f.avg_pool2d(X, 2, (1, -1)), "stride should be greater than zero", "(1, -1)"),
    "padding below 0": (lambda f: f.avg_pool2d(X, 2, 50, -1), "pad must be non-negative", "pad: -1"),
    "padding below 0 of a pair": (lambda f: f.avg_pool2d(X, (3, 2), 50, -1), "pad must be non-negative", "pad: -1"),
    "padding above half": (lambda f: f.avg_pool2d(X, 2, 50, 4), "pad should be at most half of", "padding=(4, 4)"),
    "padding above half of a pair": (
        lambda f: f.avg_pool2d(X, (3, 2), 50, 4),
        "pad should be at most half of",
        "padding=(4, 4) and kernel_size=(3, 2)",
    ),
    "divisor of 0": (lambda f: f.avg_pool2d(X, 2, divisor_override=0), "divisor must be", "divisor_override=0"),
    "divisor of a float": (lambda f: f.avg_pool2d(X, 2, divisor_override=1.5), "must be int", "divisor_override=1.5"),
    "three kernels": (lambda f: f.avg_pool2d(X, (2, 2, 2)), "kernel_size", "[2, 2, 2]"),
    "three strides": (lambda f: f.avg_pool2d(X, 2, (1, 1, 1)), "stride", "[1, 1, 1]"),
    "three paddings": (lambda f: f.avg_pool2d(X, 2, 1, (1, 1, 1)), "padding", "[1, 1, 1]"),
    "input below the window": (
        lambda f: f.avg_pool2d(ones(1, 1, 2, 2), 3),
        "Given input size: (1x2x2). Calculated output size: (1x0x0). Output size is too small",
        "",
    ),
    "kernel beyond int32": (
        lambda f: f.avg_pool2d(X, 2**31),
        "cannot be converted to type int",
        "kernel_size=2147483648",
    ),
    "no rows": (lambda f: f.avg_pool2d(ones(2, 4, 0, 5), 2), "with optional 0 dim batch size", "[2, 4, 0, 5]"),
    "bool tensors": (lambda f: f.avg_pool2d(X.bool(), 2), "", "bool"),
    "kernel of a float": (lambda f: f.avg_pool2d(X, 1.5), "avg_pool2d()", "kernel_size=1.5"),
    "ceil_mode of an int": (lambda f: f.avg_pool2d(X, 2, ceil_mode=1), "argument 'ceil_mode'", "ceil_mode=1"),
    "count_include_pad of an int": (
        lambda f: f.avg_pool2d(X, 2, count_include_pad=1),
        "argument 'count_include_pad'",
        "count_include_pad=1",
    ),
    "input of None": (lambda f: f.avg_pool2d(None, 2), "must be Tensor, not NoneType", "'input'"),
}

ADAPTIVE_AVG_POOL2D: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "input of 2 axes": (lambda f: f.adaptive_avg_pool2d(ones(5, 5), 2), "Expected 3D or 4D tensor", "[5, 5]"),
    "input of 2 axes, a pair": (
        lambda f: f.adaptive_avg_pool2d(ones(5, 5), (2, 2)),
        "Input dimension should be at least 3",
        "[5, 5]",
    ),
    "input of 5 axes": (lambda f: f.adaptive_avg_pool2d(X[None], 2), "Expected 3D or 4D tensor", "[1, 2, 4"),
    "size below 0": (
        lambda f: f.adaptive_avg_pool2d(X, (-1, 0)),
        "elements of output_size must be greater than or equal to 0",
        "(-1, 0)",
    ),
    "no sizes": (lambda f: f.adaptive_avg_pool2d(X, ()), "output_size must be 2", "()"),
    "three sizes": (lambda f: f.adaptive_avg_pool2d(X, (2, 2, 2)), "output_size must be 2", "(2, 2, 2)"),
    "size of None": (lambda f: f.adaptive_avg_pool2d(X, None), "", "output_size=None"),
    "size of a float": (lambda f: f.adaptive_avg_pool2d(X, 2.5), "", "output_size=2.5"),
    "no rows": (lambda f: f.adaptive_avg_pool2d(ones(2, 4, 0, 5), 2), "to have non-zero size", "[2, 4, 0, 5]"),
    "int tensors": (lambda f: f.adaptive_avg_pool2d(X.int(), 2), "", "int32"),
}

Y, PLACES = F.max_pool2d(X, 2, return_indices=True)

MAX_UNPOOL2D: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "input of 2 axes": (
        lambda f: f.max_unpool2d(Y[0, 0], PLACES[0, 0], 2),
        "Input to max_unpooling2d should be a 3d or 4d Tensor, but got a tensor with 2 dimensions",
        "",
    ),
    "indices of another shape": (
        lambda f: f.max_unpool2d(Y, PLACES[:1], 2),
        "Expected shape of indices to be same as that of the input tensor ([2, 4, 2, 2]) but got indices tensor with "
        "shape: [1, 4, 2, 2]",
        "",
    ),
    "indices of int32": (lambda f: f.max_unpool2d(Y, PLACES.int(), 2), "should be type int64 but got", "int32"),
    "index beyond the output": (
        lambda f: f.max_unpool2d(Y, PLACES.clamp(max=0) + 100, 2),
        "Found an invalid max index: 100 (output volumes are of size 4x4)",
        "",
    ),
    "index below 0": (
        lambda f: f.max_unpool2d(Y, PLACES.clamp(max=0) - 1, 2),
        "Found an invalid max index: -1 (output volumes are of size 4x4)",
        "",
    ),
    "output_size a stride away": (
        lambda f: f.max_unpool2d(Y, PLACES, 2, output_size=(4, 6)),
        'invalid output_size "(4, 6)" (dim 1 must be between 2 and 6)',
        "",
    ),
    "output_size of 3": (
        lambda f: f.max_unpool2d(Y, PLACES, 2, output_size=(4, 5, 5)),
        "output_size should be a sequence containing 2 or 4 elements, but it has a length of '3'",
        "",
    ),
    "no channels": (
        lambda f: f.max_unpool2d(Y[:, :0], PLACES[:, :0], 2),
        "Expected input to have non-zero size for non-batch dimensions",
        "[2, 0, 2, 2]",
    ),
    "int tensors": (lambda f: f.max_unpool2d(Y.int(), PLACES, 2), "", "int32"),
    "kernel of a float": (lambda f: f.max_unpool2d(Y, PLACES, 2.0), "max_unpool2d()", "kernel_size=2.0"),
    "output of less than nothing": (
        lambda f: f.max_unpool2d(Y, PLACES, 2, padding=5),
        "output_size must contain non-negative spatial dimensions, but got output_size[0]=-6",
        "",
    ),
}

ALL = [
    (op, label, *rest)
    for op, table in (
        *(("conv2d", CONV2D), ("conv1d", CONV1D), ("conv_transpose", CONV_TRANSPOSE2D)),
        *(("max_pool2d", MAX_POOL2D), ("max_unpool2d", MAX_UNPOOL2D)),
        *(("avg_pool2d", AVG_POOL2D), ("adaptive_avg_pool2d", ADAPTIVE_AVG_POOL2D)),
    )
    for label, rest in table.items()
]


@pytest.mark.parametrize("name", ["cuda", "triton"])
@pytest.mark.parametrize(
    ("call", "words", "named"),
    [case[2:] for case in ALL],
    ids=[f"{case[0]}-{case[1]}".replace(" ", "_") for case in ALL],
)
def test_error_is_pytorchs(recorded, name: str, call: Callable[[Any], Any], words: str, named: str) -> None:
    with pytest.raises(Exception) as theirs:
        call(F)
    assert words in str(theirs.value)
    with use_backend(name), pytest.raises(type(theirs.value)) as ours:
        call(functional)
    assert words in str(ours.value)
    assert named in str(ours.value)
    assert not recorded


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64], ids=str)
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_dtype_that_only_pytorch_takes(recorded, name: str, dtype: torch.dtype) -> None:
    """PyTorch's CPU operator takes integers and complex numbers: auto leaves them to it, a kernel refuses."""
    x, w = X.to(dtype), W.to(dtype)
    with use_backend("auto"):
        assert torch.equal(functional.conv2d(x, w), F.conv2d(x, w))
    with use_backend(name), pytest.raises(NotImplementedError, match=str(dtype).removeprefix("torch.")):
        functional.conv2d(x, w)


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_tensors_on_two_devices(recorded, name: str, device: str) -> None:
    x, w = X.to(device), W.to(device)
    message = "Expected all tensors to be on the same device, but got input on .* and {} on meta"
    with use_backend(name):
        with pytest.raises(RuntimeError, match=message.format("weight")):
            functional.conv2d(x, W.to("meta"))
        with pytest.raises(RuntimeError, match=message.format("bias")):
            functional.conv2d(x, w, ones(6, device="meta"))
        with pytest.raises(RuntimeError, match=message.format("indices")):
            functional.max_unpool2d(Y.to(device), PLACES.to("meta"), 2)
    assert not recorded


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_sparse_tensors(recorded, name: str) -> None:
    with pytest.raises(RuntimeError):
        F.conv2d(X.to_sparse(), W)
    with use_backend(name), pytest.raises(RuntimeError):
        functional.conv2d(X.to_sparse(), W)
    assert not recorded


def test_a_failed_call_changes_nothing(recorded) -> None:
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    with use_backend("cuda"), pytest.raises(RuntimeError):
        functional.conv2d(x, w, stride=0)
    assert torch.equal(x, X) and torch.equal(w, W) and x.grad is None and w.grad is None


def test_backward_twice(recorded) -> None:
    w = W.clone().requires_grad_()
    with use_backend("cuda"):
        output = functional.conv2d(X, w).sum()
    output.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        output.backward()


def test_a_saved_tensor_changed_in_place(recorded) -> None:
    x, w = X.clone(), W.clone().requires_grad_()
    with use_backend("cuda"):
        output = functional.conv2d(x, w).sum()
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()
