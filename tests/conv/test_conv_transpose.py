"""conv_transpose2d and conv_transpose1d beside loops by the definition, and beside PyTorch, on small integers."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cnnkernels
from cnnkernels import functional, nn, use_backend
from cnnkernels.dtypes import FLOATING_DTYPES
from cnnkernels.testing.numerics import small_integers
from oracles.convolution import transpose

# reason: (channels, filters, extents, taps, options)
CASES: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "dcgan": (8, 16, (4, 5), (4, 4), {"stride": 2, "padding": 1}),
    "u-net": (16, 8, (3, 4), (2, 2), {"stride": 2}),
    "stride above the taps leaves phases bias alone": (8, 8, (3, 2), (2, 1), {"stride": 3, "output_padding": (2, 1)}),
    "output padding beyond the stride": (8, 8, (4, 3), (3, 2), {"output_padding": (2, 1), "dilation": (3, 2)}),
    "output padding beyond the stride of 2": (
        16, 8, (3, 4), (2, 3), {"stride": 2, "padding": (1, 0), "output_padding": (3, 2), "dilation": (4, 3)},
    ),
    "a result of less than the input": (8, 16, (6, 5), (3, 3), {"padding": 3, "output_padding": 0}),
    "groups": (16, 32, (3, 4), (3, 3), {"stride": 2, "groups": 2}),
    "narrow groups": (16, 16, (4, 4), (3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 4}),
    "depthwise": (8, 8, (4, 3), (4, 4), {"stride": 2, "padding": 1, "groups": 8}),
    "depthwise, output padding of a stride": (
        8, 8, (4, 3), (2, 2), {"output_padding": 1, "dilation": 2, "groups": 8},
    ),
    "depthwise with a multiplier": (4, 8, (3, 3), (3, 2), {"groups": 4}),
    "two channels into one": (6, 3, (3, 3), (3, 2), {"groups": 3}),
    "odd channels": (5, 7, (4, 3), (3, 3), {"stride": 2, "padding": 1}),
    "hifi-gan": (16, 8, (5,), (8,), {"stride": 4, "padding": 2}),
    "a row beyond the stride": (8, 8, (4,), (2,), {"stride": (2,), "output_padding": 3, "dilation": 4}),
    "rows of narrow groups": (8, 8, (6,), (3,), {"stride": 3, "groups": 2}),
    "depthwise rows": (8, 8, (6,), (4,), {"stride": 2, "padding": 1, "groups": 8}),
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def of_axes(value: Any, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) * rank


def problem(case: Any) -> tuple[int, dict[str, Any], dict[str, Tensor]]:
    """Its rank, options and operands in fp64; sums stay exact in 8 bits of mantissa."""
    channels, filters, extents, taps, options = case
    shapes = {
        "input": (2, channels, *extents), "weight": (channels, filters // options.get("groups", 1), *taps),
        "bias": (filters,), "scale": (filters,), "shift": (filters,),
    }  # fmt: skip
    made = {name: small_integers(shape, torch.float64, seed, 1) for seed, (name, shape) in enumerate(shapes.items())}
    return len(extents), options, made


def sums(rank: int, options: dict[str, Any], operands: dict[str, Tensor]) -> Tensor:
    given = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1} | options
    groups = given.pop("groups")
    x, w = (operands[name].numpy() for name in ("input", "weight"))
    return torch.from_numpy(transpose(x, w, **{name: of_axes(v, rank) for name, v in given.items()}, groups=groups))


def placed(tensor: Tensor, dtype: torch.dtype, channels_last: bool, device: str) -> Tensor:
    tensor = tensor.to(device, dtype)
    return tensor.to(memory_format=torch.channels_last) if channels_last and tensor.dim() == 4 else tensor


@pytest.fixture(params=["a100", "hopper"])
def gpu(request: pytest.FixtureRequest) -> str:
    """The interpreter stands for either."""
    if request.param == "hopper":
        request.getfixturevalue("on_a_hopper")
    return request.param


@cases
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_every_epilogue_beside_loops(
    kernel_backend: str, gpu: str, device: str, case: Any, channels_last: bool
) -> None:
    """What no filter reaches is bias and what follows it."""
    if kernel_backend == "triton" and gpu == "hopper":
        return  # its interpreter stands for no GPU
    rank, options, made = problem(case)
    plain = sums(rank, options, made)
    residual = small_integers(tuple(plain.shape), torch.float64, 9, 2)
    each = (-1, *[1] * rank)
    b, scale, shift = (made[name].view(each) for name in ("bias", "scale", "shift"))
    expected = {
        (): plain,
        ("bias",): plain + b,
        ("bias", "residual"): plain + b + residual,
        ("scale", "shift"): plain * scale + shift,
        ("bias", "scale", "shift", "residual", "activation"): F.relu((plain + b) * scale + shift + residual),
    }
    made["residual"] = residual
    function = getattr(functional, f"conv_transpose{rank}d")
    for dtype in FLOATING_DTYPES:
        given = {name: placed(tensor, dtype, channels_last, device) for name, tensor in made.items()}
        for names, wanted in expected.items():
            more = {name: "relu" if name == "activation" else given[name] for name in names}
            with use_backend(kernel_backend):
                y = function(given["input"], given["weight"], **options, **more)
            assert torch.equal(y.cpu().double(), wanted), (dtype, names)
            like = torch.channels_last if channels_last and rank == 2 else torch.contiguous_format
            assert y.is_contiguous(memory_format=like)


@cases
def test_gradients_beside_pytorchs(kernel_backend: str, device: str, case: Any) -> None:
    rank, options, made = problem(case)
    for dtype, channels_last in ((torch.float32, False), (torch.bfloat16, True)):
        names = ("input", "weight", "bias")
        ours = [placed(made[name], dtype, channels_last, device).requires_grad_() for name in names]
        theirs = [made[name].clone().requires_grad_() for name in names]
        expected = getattr(F, f"conv_transpose{rank}d")(*theirs, **options)
        grad = small_integers(tuple(expected.shape), torch.float64, 7, 1)
        with use_backend(kernel_backend):
            y = getattr(functional, f"conv_transpose{rank}d")(*ours, **options)
        results = torch.autograd.grad(y, ours, placed(grad, dtype, channels_last, device))
        for result, wanted in zip(results, torch.autograd.grad(expected, theirs, grad), strict=True):
            assert torch.equal(result.cpu().double(), wanted.to(dtype).double())


def test_packed_operands_with_an_epilogue(on_a_hopper, device: str) -> None:
    """In 16 bits and NCHW tensors are copied first, and so are a residual and the numbers of each channel. Of a deep
    sum the result is copied back, of a shallow one it is stored in place."""
    for channels, filters, taps in ((72, 9, 3), (20, 12, 2)):
        x, w = (
            small_integers((2, channels, 5, 4), torch.float16, 1, 1),
            small_integers((channels, filters, taps, taps), torch.float16, 2, 1),
        )
        b, s = small_integers((filters,), torch.float16, 3, 2), small_integers((filters,), torch.float16, 4, 1)
        plain = F.conv_transpose2d(x.double(), w.double(), b.double(), 2)
        r = small_integers(tuple(plain.shape), torch.float16, 5, 2)
        expected = F.relu(plain * s.double().view(-1, 1, 1) + b.double().view(-1, 1, 1) + r.double())
        with use_backend("cuda"):
            x, w, b, s, r = (t.to(device) for t in (x, w, b, s, r))
            y = functional.conv_transpose2d(x, w, b, 2, activation="relu", residual=r, scale=s, shift=b)
        assert torch.equal(y.cpu().double(), expected)


@pytest.mark.parametrize("layout", ["input", "weight", "neither"])
def test_layouts_are_pytorchs(kernel_backend: str, device: str, layout: str) -> None:
    x, w = torch.ones(2, 4, 3, 3, device=device), torch.ones(4, 6, 2, 2, device=device)
    x = x.to(memory_format=torch.channels_last) if layout == "input" else x
    w = w.to(memory_format=torch.channels_last) if layout == "weight" else w
    x, w = x.requires_grad_(), w.requires_grad_()
    with use_backend(kernel_backend):
        ours = functional.conv_transpose2d(x, w)
    theirs = F.conv_transpose2d(x, w)
    assert ours.stride() == theirs.stride()
    of_input, of_weight = torch.autograd.grad(ours, (x, w), torch.ones_like(ours))
    assert of_input.stride() == torch.autograd.grad(theirs, x, torch.ones_like(theirs))[0].stride()
    assert of_weight.stride() == w.stride()


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("channels", [1, 4])
def test_rows_are_contiguous_in_any_order(kernel_backend: str, device: str, order: tuple, channels: int) -> None:
    """A batch of rows that lies with its channels side by side is no image of channels_last."""
    for op, filters in (("conv_transpose1d", (channels, 3, 2)), ("conv1d", (3, channels, 2))):
        x = small_integers((2, channels, 5), torch.float32, 1, 2).permute(order).contiguous()
        x = x.permute([order.index(axis) for axis in range(3)]).to(device)
        w = small_integers(filters, torch.float32, 2, 2).mT.contiguous().mT.to(device)
        with use_backend(kernel_backend):
            y = getattr(functional, op)(x, w)
        assert torch.equal(y, getattr(F, op)(x, w)) and y.is_contiguous()


def test_a_sample_does_not_depend_on_its_batch(kernel_backend: str, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(5, 16, 6, 5, generator=generator), torch.randn(16, 8, 3, 3, generator=generator)
    b = torch.randn(8, generator=generator)
    if kernel_backend == "triton":  # whose interpreter multiplies by numpy
        x, w, b = x.round(), w.round(), b.round()
    for dtype in (torch.float32, torch.bfloat16):
        given = [t.to(device, dtype) for t in (w, b)]
        with use_backend(kernel_backend):
            whole = functional.conv_transpose2d(x.to(device, dtype), *given, 2, 1, 1, activation="silu")
            alone = functional.conv_transpose2d(x[3:4].to(device, dtype), *given, 2, 1, 1, activation="silu")
        assert torch.equal(whole[3:4], alone)


def test_the_output_size_of_a_layer(device: str) -> None:
    for rank, sizes in ((1, [(10,), (9,)]), (2, [(10, 9), (2, 6, 9, 10)])):
        name, x = f"ConvTranspose{rank}d", torch.ones(2, 4, *[5] * rank, device=device)
        torch.manual_seed(0)
        ours = getattr(nn, name)(4, 6, 3, 2, 1, device=device)
        theirs = getattr(torch.nn, name)(4, 6, 3, 2, 1, device=device)
        theirs.load_state_dict(ours.state_dict())
        with use_backend("cuda"), torch.backends.cudnn.flags(allow_tf32=False):
            for size in sizes:
                assert ours(x, size).shape == theirs(x, size).shape
                torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))
        for wrong in ((11,) * rank, (3,) * (rank + 1), 9):
            with pytest.raises((ValueError, TypeError)) as expected:
                theirs(x, wrong)
            with pytest.raises(expected.type, match=re.escape(str(expected.value))):
                ours(x, wrong)


def test_replace_layers_swaps_them(device: str) -> None:
    model = torch.nn.Sequential(
        torch.nn.LazyConvTranspose2d(8, 3), torch.nn.ConvTranspose2d(8, 4, 2, 2), torch.nn.Flatten(2),
        torch.nn.LazyConv1d(4, 3), torch.nn.Conv1d(4, 4, 3, padding="same", padding_mode="circular"),
        torch.nn.LazyConvTranspose1d(2, 3), torch.nn.ConvTranspose1d(2, 2, 3, output_padding=0),
    ).to(device)  # fmt: skip
    replaced = cnnkernels.replace_layers(model)
    assert len(replaced.swapped) == 6 and not replaced.kept
    x = torch.ones(2, 3, 4, 4, device=device)
    with use_backend("cuda"), torch.backends.cudnn.flags(allow_tf32=False):
        torch.testing.assert_close(replaced.model(x), model(x))
    kinds = [type(layer) for layer in replaced.model]
    assert kinds[:2] == [nn.ConvTranspose2d] * 2 and kinds[3:] == [nn.Conv1d] * 2 + [nn.ConvTranspose1d] * 2
