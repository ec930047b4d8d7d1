"""max_unpool2d's kernels in their corners. Every backend runs the same bodies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cnnkernels.dtypes import FLOATING
from cnnkernels.geometry import Layout
from helpers.pool import dense, limited, unwritten

layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
dtypes = pytest.mark.parametrize("dtype", FLOATING.values(), ids=FLOATING.keys())
channels = pytest.mark.parametrize("channels", [1, 3, 16])


def run_forward(kernels, x: Tensor, indices: Tensor, size: tuple[int, int], layout: Layout) -> Tensor:
    shape = (*x.shape[:2], *size)
    output = unwritten(shape, x.dtype, layout, x.device)
    winner = dense(torch.zeros(shape, dtype=torch.int32), layout, x.device)
    kernels.max_unpool_forward(x, indices, winner, output, layout)
    return output


def run_backward(kernels, dy: Tensor, indices: Tensor, layout: Layout) -> Tensor:
    dx = unwritten(tuple(indices.shape), dy.dtype, layout, dy.device)
    kernels.max_unpool_backward(dy, indices, dx, layout)
    return dx


def scattered(x: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """By definition: one after another, so that the last stays; an index outside is passed over."""
    out = torch.zeros(*x.shape[:2], size[0] * size[1], dtype=x.dtype)
    for plane, values, places in zip(
        out.flatten(0, 1), x.flatten(2).flatten(0, 1), indices.flatten(2).flatten(0, 1), strict=True
    ):
        for value, place in zip(values, places.tolist(), strict=True):
            if 0 <= place < plane.numel():
                plane[place] = value
    return out.view(*x.shape[:2], *size)


def gathered(dy: Tensor, indices: Tensor) -> Tensor:
    planes = torch.cat([dy.flatten(2), dy.new_zeros(*dy.shape[:2], 1)], dim=2)
    outside = (indices < 0) | (indices >= dy.shape[2] * dy.shape[3])
    places = indices.masked_fill(outside, dy.shape[2] * dy.shape[3])
    return planes.gather(2, places.flatten(2)).view(indices.shape)


@layouts
@dtypes
@channels
def test_duplicates_and_indices_outside(kernels, device, channels: int, dtype: torch.dtype, layout: Layout) -> None:
    """Five rows of windows over a small output: most indices repeat, some lie outside on either side."""
    generator = torch.Generator().manual_seed(channels)
    shape, size = (3, channels, 5, 4), (3, 5)
    x = torch.randn(shape, generator=generator).to(dtype)
    indices = torch.randint(-3, 18, shape, generator=generator)
    indices[0, 0, 0, 0], indices[0, 0, 0, 1] = -(2**62), 2**62
    indices[0, 0, 1, 0], indices[0, 0, 1, 1] = 2**32, 2**32 + 3  # 0 and 3 in 32 bits
    i = dense(indices, layout, device)
    assert torch.equal(
        run_forward(kernels, dense(x, layout, device), i, size, layout).cpu(), scattered(x, indices, size)
    )
    dy = torch.randn(3, channels, *size, generator=generator).to(dtype)
    assert torch.equal(run_backward(kernels, dense(dy, layout, device), i, layout).cpu(), gathered(dy, indices))


def test_the_last_of_several_wins(kernels, device) -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], device=device)
    indices = torch.tensor([[[[5, 0], [5, 5]]]], device=device)
    assert run_forward(kernels, x, indices, (2, 3), Layout.NCHW).tolist() == [[[[2, 0, 0], [0, 0, 4]]]]


def test_special_values_are_copied(kernels, device) -> None:
    x = torch.tensor([[[[float("nan"), -0.0, float("-inf"), float("inf")]]]], device=device)
    indices = torch.tensor([[[[4, 1, 2, 0]]]], device=device)
    out = run_forward(kernels, x, indices, (1, 5), Layout.NCHW).cpu().flatten()
    assert out[4].isnan()
    assert out[1:2].signbit().all()
    assert out[:4].tolist() == [float("inf"), 0, float("-inf"), 0]


@layouts
@channels
@pytest.mark.parametrize("wide", [False, True], ids=["slices", "64-bit"])
def test_slices_and_64_bit_arithmetic_agree(
    kernels, device, monkeypatch, wide: bool, channels: int, layout: Layout
) -> None:
    generator = torch.Generator().manual_seed(1)
    shape, size = (5, channels, 3, 4), (4, 6)
    x = torch.randn(shape, generator=generator)
    indices = torch.randint(-1, 25, shape, generator=generator)
    dy = torch.randn(5, channels, *size, generator=generator)
    row = size[1] * (channels if layout is Layout.NHWC else 1)
    with monkeypatch.context() as patch:
        others = limited(kernels, 2 * row if wide else 2 * row * size[0], patch)
        i = dense(indices, layout, device)
        out = run_forward(others, dense(x, layout, device), i, size, layout)
        assert torch.equal(out.cpu(), scattered(x, indices, size))
        assert torch.equal(run_backward(others, dense(dy, layout, device), i, layout).cpu(), gathered(dy, indices))
