"""functional.conv2d against torch.nn.functional.conv2d: every way to call it, every way a tensor can lie in memory.

Small integers make every sum exact, so the values are compared for equality.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional, use_backend
from cnnkernels.geometry import Layout
from cnnkernels.testing.numerics import small_integers
from helpers.memory_orders.views import SHAPES, views

CHANNELS_LAST = torch.channels_last
CALLS = {
    "defaults": ((2, 4, 5, 6), (6, 4, 3, 3), {}),
    "stride of one int": ((2, 4, 5, 6), (6, 4, 3, 3), {"stride": 2}),
    "stride of a pair": ((2, 4, 5, 6), (6, 4, 3, 3), {"stride": (2, 1)}),
    "stride of a list": ((2, 4, 5, 6), (6, 4, 3, 3), {"stride": [1, 2]}),
    "stride of one in a tuple": ((2, 4, 5, 6), (6, 4, 3, 3), {"stride": (2,)}),
    "stride of numpy": ((2, 4, 5, 6), (6, 4, 3, 3), {"stride": np.int64(2)}),
    "stride of a tensor": ((2, 4, 5, 6), (6, 4, 3, 3), {"stride": torch.tensor(2)}),
    "padding of a torch.Size": ((2, 4, 5, 6), (6, 4, 3, 3), {"padding": torch.Size((2, 0))}),
    "padding above the kernel": ((1, 2, 3, 3), (2, 2, 2, 2), {"padding": (4, 3)}),
    "valid": ((2, 4, 5, 6), (6, 4, 3, 3), {"padding": "valid", "stride": 2}),
    "same": ((2, 4, 5, 6), (6, 4, 3, 3), {"padding": "same", "dilation": (2, 1)}),
    "same of an even kernel": ((2, 4, 5, 6), (6, 4, 2, 4), {"padding": "same", "dilation": (1, 3)}),
    "dilation": ((2, 4, 7, 9), (6, 4, 3, 3), {"dilation": (2, 3)}),
    "groups": ((2, 4, 5, 6), (6, 2, 3, 3), {"groups": 2}),
    "depthwise": ((2, 4, 5, 6), (8, 1, 3, 3), {"groups": 4}),
    "unbatched": ((4, 5, 6), (6, 4, 3, 3), {"padding": 1}),
    "one of everything": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
}
calls = pytest.mark.parametrize(("shape", "filters", "options"), CALLS.values(), ids=CALLS)


def integers(shape: tuple[int, ...], device: str, seed: int) -> Tensor:
    return small_integers(shape, torch.float32, seed).to(device)


@calls
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, CHANNELS_LAST], ids=["nchw", "nhwc"])
def test_value_and_gradients(kernel_backend, device, shape, filters, options, memory_format) -> None:
    x, w, b = integers(shape, device, 1), integers(filters, device, 2), integers(filters[:1], device, 3)
    if x.dim() == 4:
        x, w = x.to(memory_format=memory_format), w.to(memory_format=memory_format)
    results = []
    for conv2d, backend in ((F.conv2d, "reference"), (functional.conv2d, kernel_backend)):
        leaves = [t.detach().clone().requires_grad_() for t in (x, w, b)]
        with use_backend(backend):
            y = conv2d(*leaves, **options)
        probe = integers(tuple(y.shape), device, 4)
        results.append((y, *torch.autograd.grad(y, leaves, probe)))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
    assert results[0][0].stride() == results[1][0].stride()


def test_positional_arguments_are_pytorchs(kernel_backend, device) -> None:
    x, w, b = integers((1, 4, 6, 6), device, 1), integers((4, 2, 3, 3), device, 2), integers((4,), device, 3)
    with use_backend(kernel_backend):
        assert torch.equal(functional.conv2d(x, w, b, 2, 1, 1, 2), F.conv2d(x, w, b, 2, 1, 1, 2))
        assert torch.equal(functional.conv2d(x, w, None, (1, 2), "valid", 1, 2), F.conv2d(x, w, None, (1, 2), 0, 1, 2))


FILTERS = [(6, 3, 3), (6, 1, 1), (1, 1, 1), (1, 3, 3), (6, 1, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_output_lies_in_memory_as_pytorchs(recorded, shape: tuple[int, ...], filters: tuple[int, ...]) -> None:
    k, r, s = filters
    inputs, weights = torch.zeros(shape), torch.zeros(k, shape[1], r, s)
    for (x_name, x), (w_name, w) in itertools.product(views(inputs), views(weights)):
        with use_backend("cuda"):
            ours = functional.conv2d(x, w, padding=1)
        theirs = F.conv2d(x, w, padding=1)
        assert ours.stride() == theirs.stride(), f"{x_name} {x.stride()}, {w_name} {w.stride()}"
        assert ours.shape == theirs.shape


@pytest.mark.parametrize("kind", [name for name, _ in views(torch.zeros(2, 2, 2, 2))])
def test_values_of_any_view(kernel_backend, device, kind: str) -> None:
    plain_x, plain_w = integers((2, 3, 4, 5), device, 1), integers((4, 3, 2, 3), device, 2)
    x, w = dict(views(plain_x))[kind], dict(views(plain_w))[kind]
    with use_backend(kernel_backend):
        assert torch.equal(functional.conv2d(x, plain_w), F.conv2d(x, plain_w))
        assert torch.equal(functional.conv2d(plain_x, w), F.conv2d(plain_x, w))


GRADIENTS = {
    "3x3": ((2, 4, 5, 6), (6, 4, 3, 3), 1),
    "1x1": ((2, 4, 5, 6), (6, 4, 1, 1), 1),
    "1x1 of one channel": ((2, 1, 5, 6), (6, 1, 1, 1), 1),
    "depthwise": ((2, 4, 5, 6), (4, 1, 3, 3), 4),
}


@pytest.mark.parametrize(("shape", "filters", "groups"), GRADIENTS.values(), ids=GRADIENTS)
def test_gradients_have_their_tensors_strides(recorded, shape, filters, groups) -> None:
    """Where they differ DistributedDataParallel copies; 1x1 and depthwise filters in channels_last are known for it."""
    for (x_name, x), (w_name, w) in itertools.product(views(torch.zeros(shape)), views(torch.zeros(filters))):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        with use_backend("cuda"):
            y = functional.conv2d(x, w, padding=1, groups=groups)
        for name, tensor, grad in zip(
            (x_name, w_name), (x, w), torch.autograd.grad(y, (x, w), y.detach()), strict=True
        ):
            dense = not any(word in name for word in ("wider", "more", "expanded"))
            if dense:
                assert grad.stride() == tensor.stride(), name
            else:
                assert grad.is_contiguous() or grad.is_contiguous(memory_format=CHANNELS_LAST), name


def test_ambiguous_strides_are_kept(recorded) -> None:
    """Two names for one memory: torch.nn builds a 1x1 filter with the first, Module.to(channels_last) the second."""
    for stride in ((4, 1, 1, 1), (4, 1, 4, 4), (4, 1, 9, 7)):
        w = torch.zeros(6, 4, 1, 1).as_strided((6, 4, 1, 1), stride).requires_grad_()
        with use_backend("cuda"):
            (grad,) = torch.autograd.grad(functional.conv2d(torch.zeros(1, 4, 2, 2), w).sum(), w)
        assert grad.stride() == stride


@pytest.mark.parametrize(
    ("x_format", "w_format", "layout"),
    [
        (torch.contiguous_format, torch.contiguous_format, Layout.NCHW),
        (CHANNELS_LAST, torch.contiguous_format, Layout.NHWC),
        (torch.contiguous_format, CHANNELS_LAST, Layout.NHWC),
        (CHANNELS_LAST, CHANNELS_LAST, Layout.NHWC),
    ],
    ids=["neither", "input", "weight", "both"],
)
def test_one_layout_for_a_call_and_its_gradients(recorded, x_format, w_format, layout) -> None:
    """Whatever grad_output's strides, so that its layout does not change the gradients' bits."""
    x = torch.zeros(2, 4, 5, 6).to(memory_format=x_format).requires_grad_()
    w = torch.zeros(6, 4, 3, 3).to(memory_format=w_format).requires_grad_()
    with use_backend("cuda"):
        functional.conv2d(x, w).sum().backward()
    used = [argument for call in recorded for argument in call.arguments if isinstance(argument, Layout)]
    assert used == [layout] * 3
    for call in recorded:
        activations = [t for t in call.arguments if isinstance(t, Tensor)]
        assert all(t.is_contiguous(memory_format=layout.memory_format) for t in activations)


def test_empty_batch(kernel_backend, device) -> None:
    x = torch.zeros(0, 4, 5, 6, device=device, requires_grad=True)
    w, b = torch.ones(6, 4, 3, 3, device=device, requires_grad=True), torch.ones(6, device=device, requires_grad=True)
    with use_backend(kernel_backend):
        y = functional.conv2d(x, w, b)
    assert y.shape == (0, 6, 3, 4)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert torch.equal(w.grad, torch.zeros_like(w)) and torch.equal(b.grad, torch.zeros_like(b))


def test_no_channels_as_pytorch(kernel_backend, device) -> None:
    x, w = torch.zeros(2, 0, 5, 6, device=device), torch.zeros(6, 0, 3, 3, device=device)
    with use_backend(kernel_backend):
        assert functional.conv2d(x, w).shape == F.conv2d(x, w).shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(kernel_backend, device, dtype: torch.dtype) -> None:
    x, w = small_integers((1, 3, 4, 4), dtype, 1).to(device), small_integers((2, 3, 3, 3), dtype, 2).to(device)
    b = small_integers((2,), dtype, 3).to(device)
    with use_backend(kernel_backend):
        y = functional.conv2d(x, w, b)
    assert y.dtype is dtype
    assert torch.equal(y.double(), F.conv2d(x.double(), w.double(), b.double()))


def test_bias_may_be_a_view(kernel_backend, device) -> None:
    x, w, b = integers((1, 3, 4, 4), device, 1), integers((2, 3, 3, 3), device, 2), integers((4,), device, 3)[::2]
    with use_backend(kernel_backend):
        assert torch.equal(functional.conv2d(x, w, b), F.conv2d(x, w, b))


def test_tensor_subclasses_see_the_public_function() -> None:
    class Noted(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            return func

    x, w = torch.zeros(1, 1, 3, 3).as_subclass(Noted), torch.zeros(1, 1, 2, 2)
    assert functional.conv2d(x, w) is functional.conv2d
    assert functional.max_pool2d(x, 2) is functional.max_pool2d
    assert functional.max_unpool2d(x, x, 2) is functional.max_unpool2d


TF32 = """
import json, torch
from cnnkernels.ops.conv_kernel import tf32_allowed
from torch import backends
seen = {}
def note(name):
    seen[name] = tf32_allowed(torch.float32)
note("default")
backends.cudnn.conv.fp32_precision = "ieee"; note("new off")
backends.cudnn.conv.fp32_precision = "tf32"; note("new on")
backends.cudnn.allow_tf32 = False; note("old off")
backends.cudnn.allow_tf32 = True; note("old on")
backends.cudnn.allow_tf32 = False; backends.cudnn.conv.fp32_precision = "tf32"; note("old off, new on")
backends.cudnn.conv.fp32_precision = "none"; backends.fp32_precision = "ieee"; note("global off")
backends.fp32_precision = "tf32"; note("global on")
seen["fp64"] = tf32_allowed(torch.float64)
seen["bf16"] = tf32_allowed(torch.bfloat16)
print(json.dumps(seen))
"""


def test_tf32_where_pytorchs_own_convolution_may() -> None:
    """By the old setting and the new ones, and where mixing them makes the old one raise. In a process of its own."""
    output = subprocess.run([sys.executable, "-c", TF32], capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == {
        "default": True,
        "new off": False,
        "new on": True,
        "old off": False,
        "old on": True,
        "old off, new on": True,
        "global off": False,
        "global on": True,
        "fp64": False,
        "bf16": False,
    }


def test_tf32_reaches_every_kernel(recorded) -> None:
    allowed = torch.backends.cudnn.conv.fp32_precision == "tf32"
    x, w = torch.zeros(1, 1, 3, 3, requires_grad=True), torch.zeros(2, 1, 2, 2, requires_grad=True)
    with use_backend("cuda"):
        functional.conv2d(x, w).sum().backward()
        functional.conv2d(x.double(), w.double())
    assert [call.arguments[-1] for call in recorded] == [allowed, allowed, allowed, False]
