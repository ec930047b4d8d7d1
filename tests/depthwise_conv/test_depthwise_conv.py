"""depthwise_conv2d as a user meets it: the function, the layer, its errors, and who computes it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from cnnkernels import functional, nn, use_backend
from cnnkernels.testing.numerics import small_integers
from helpers.recorded import Call

formats = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])

# input, weight, further arguments of depthwise_conv2d
CALLS = {
    "3x3": ((2, 8, 6, 7), (8, 1, 3, 3), (1, 1)),
    "multiplier": ((2, 3, 6, 7), (6, 1, 3, 2), (2, (1, 0))),
    "dilated": ((1, 4, 9, 8), (4, 1, 3, 3), ((1, 2), 2, (2, 1))),
    "same": ((1, 4, 5, 6), (4, 1, 4, 3), (1, "same")),
    "unbatched": ((4, 5, 6), (4, 1, 3, 3), (1, "valid")),
    "one channel and one filter": ((1, 1, 5, 6), (1, 1, 3, 3), ()),
    "one channel and more filters": ((1, 1, 5, 6), (4, 1, 3, 3), ()),
    "empty batch": ((0, 4, 5, 6), (4, 1, 3, 3), ()),
}


@pytest.mark.parametrize(("shape", "filters", "rest"), CALLS.values(), ids=CALLS)
@formats
def test_pytorchs_values_and_gradients(backend: str, device: str, memory_format, shape, filters, rest) -> None:
    def leaf(size: tuple[int, ...], seed: int) -> torch.Tensor:
        values = small_integers(size, torch.float32, seed).to(device)
        return (values.to(memory_format=memory_format) if values.dim() == 4 else values).requires_grad_()

    tensors = leaf(shape, 1), leaf(filters, 2), leaf(filters[:1], 3)
    with use_backend(backend):
        y = functional.depthwise_conv2d(*tensors, *rest)
        expected = F.conv2d(*tensors, *rest, *(1, 0, 1)[len(rest) :], shape[-3])
        dy = small_integers(tuple(expected.shape), torch.float32, 4).to(device)
        ours, theirs = torch.autograd.grad(y, tensors, dy), torch.autograd.grad(expected, tensors, dy)
    assert torch.equal(y, expected)
    if y.dim() == 4 and y.numel():
        assert y.is_contiguous(memory_format=memory_format)
    for tensor, gradient, right in zip(tensors, ours, theirs, strict=True):
        assert torch.equal(gradient, right)
        assert backend == "reference" or gradient.stride() == tensor.stride()


def test_conv_of_a_group_for_each_channel_runs_the_depthwise_kernels(kernel_backend: str, recorded: list[Call]) -> None:
    def names(channels: int, filters: int, groups: int) -> list[str]:
        recorded.clear()
        x, w = torch.zeros(1, channels, 5, 5), torch.zeros(filters, channels // groups, 3, 3)
        x.requires_grad_(), w.requires_grad_()
        with use_backend(kernel_backend):
            functional.conv2d(x, w, groups=groups).sum().backward()
        return [call.name for call in recorded]

    directions = ("forward", "backward_input", "backward_weight")
    for channels, filters in ((4, 4), (4, 8), (1, 1)):
        assert names(channels, filters, channels) == [f"depthwise_conv_{direction}" for direction in directions]
    for channels, filters, groups in ((4, 4, 2), (4, 4, 1), (1, 4, 1)):
        assert names(channels, filters, groups) == [f"conv_{direction}" for direction in directions]


ERRORS = {
    "filters not a multiple": ((1, 4, 5, 5), (6, 1, 3, 3), r"size \[4 m, 1, R, S\].*got weight of size \[6, 1, 3, 3\]"),
    "several channels a filter": ((1, 4, 5, 5), (4, 2, 3, 3), r"got weight of size \[4, 2, 3, 3\]"),
    "no filter": ((1, 4, 5, 5), (0, 1, 3, 3), r"got weight of size \[0, 1, 3, 3\]"),
    "input of two dimensions": ((5, 5), (4, 1, 3, 3), r"input to depthwise_conv2d, but got input of size: \[5, 5\]"),
    "weight of three dimensions": ((1, 4, 5, 5), (4, 3, 3), r"weight should have 4 dimensions.*\[4, 3, 3\]"),
    "filter above the input": ((1, 4, 2, 2), (4, 1, 3, 3), "Kernel size can't be greater than actual input size"),
}


@pytest.mark.parametrize(("shape", "filters", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_the_argument_and_its_value(kernel_backend: str, device: str, shape, filters, message) -> None:
    x, w = torch.ones(shape, device=device), torch.ones(filters, device=device)
    with use_backend(kernel_backend), pytest.raises(RuntimeError, match=message):
        functional.depthwise_conv2d(x, w)


def test_errors_of_other_arguments(device: str) -> None:
    x, w = torch.ones(1, 4, 5, 5, device=device), torch.ones(4, 1, 3, 3, device=device)
    with use_backend("cuda"):
        with pytest.raises(TypeError, match=r"depthwise_conv2d.*argument 'stride'.*stride=1.5"):
            functional.depthwise_conv2d(x, w, None, 1.5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"depthwise_conv2d\(\): argument 'weight' must be Tensor, not int"):
            functional.depthwise_conv2d(x, 3)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match=r"non-positive dilation.*dilation=\(0, 0\)"):
            functional.depthwise_conv2d(x, w, dilation=0)
        with pytest.raises(NotImplementedError, match="not int32"):
            functional.depthwise_conv2d(x.int(), w.int())


def test_operators_pass_opcheck(kernel_backend: str, device: str) -> None:
    """Schema, fake kernel, autograd registration and tracing of the operators on a depthwise problem."""
    x = torch.randn(1, 4, 5, 6, device=device).to(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(4, 1, 3, 3, device=device, requires_grad=True)
    parameters = [1, 1], [1, 1, 1, 1], [1, 1], 4, kernel_backend
    ops = torch.ops.cnnkernels
    torch.library.opcheck(ops.conv_forward.default, (x, w, None, *parameters))
    grad = torch.randn_like(x)
    torch.library.opcheck(ops.conv_backward_input.default, (grad, w, x.shape, x.stride(), *parameters))
    torch.library.opcheck(ops.conv_backward_weight.default, (grad, x, w.shape, w.stride(), *parameters))


def test_compiled_whole(device: str) -> None:
    torch.compiler.reset()
    layer = nn.DepthwiseConv2d(4, 3, 2, padding=1, device=device)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 4, 5, 6, device=device)
    with use_backend("cuda"):
        assert torch.equal(compiled(x), layer(x))


def test_autocast_takes_its_type(device: str) -> None:
    x, w = torch.randn(1, 4, 5, 5, device=device), torch.randn(4, 1, 3, 3, device=device)
    with use_backend("cuda"), torch.autocast(device, torch.bfloat16):
        assert functional.depthwise_conv2d(x, w).dtype is torch.bfloat16


def test_vmap_over_filters(device: str) -> None:
    x = small_integers((1, 4, 5, 5), torch.float32, 1).to(device)
    w = small_integers((3, 4, 1, 3, 3), torch.float32, 2).to(device)
    with use_backend("cuda"):
        ours = torch.func.vmap(lambda w: functional.depthwise_conv2d(x, w))(w)
    assert torch.equal(ours, torch.stack([F.conv2d(x, each, groups=4) for each in w]))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_layer_is_conv_with_a_group_for_each_channel(backend: str, device: str, mode: str) -> None:
    torch.manual_seed(0)
    ours = nn.DepthwiseConv2d(4, (3, 2), 2, (1, 2), (1, 1), bias=True, padding_mode=mode, device=device)
    torch.manual_seed(0)
    theirs = torch.nn.Conv2d(4, 8, (3, 2), (1, 2), (1, 1), groups=4, padding_mode=mode, device=device)
    assert ours.weight.shape == (8, 1, 3, 2) and isinstance(ours, torch.nn.Conv2d)
    assert repr(ours).removeprefix("Depthwise") == repr(theirs)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, 6, 5, device=device)
    with use_backend(backend):
        torch.testing.assert_close(ours(x), theirs(x))
        twin = copy.deepcopy(ours)
    assert torch.equal(twin.weight, ours.weight) and twin.channel_multiplier == 2


def test_layer_errors() -> None:
    with pytest.raises(ValueError, match=r"channel_multiplier must be a positive integer.*channel_multiplier=0"):
        nn.DepthwiseConv2d(4, 3, 0)
    with pytest.raises(ValueError, match="in_channels=0"):
        nn.DepthwiseConv2d(0, 3)
