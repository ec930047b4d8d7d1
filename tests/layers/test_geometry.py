"""Geometries of one to three spatial axes: their sizes are PyTorch's, and kernels of planes refuse depth."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from cnnkernels import native
from cnnkernels.geometry import Axis, ConvGeometry, PoolGeometry
from cnnkernels.ops.checks import conv_geometry, conv_kernel_geometry, pool_geometry, pool_kernel_geometry

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def empty(*size: int) -> torch.Tensor:
    return torch.empty(size, device="meta")


def places(geometry: ConvGeometry | PoolGeometry, rank: int) -> list[int]:
    return [axis.places for axis in geometry.axes[-rank:]]


def for_kernels(rank: int, made: Callable[..., Any], call: tuple[Any, ...], geometry: Any) -> None:
    """Kernels are of planes: what they take is the same of two spatial axes, and nothing of others."""
    if rank == 2:
        assert made(*call) == geometry
    else:
        with pytest.raises(RuntimeError, match=r"expected an input \[N, C, H, W\], but got input of size"):
            made(*call)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_convolution_is_pytorchs(rank: int) -> None:
    """Sizes, or that there are none, of random problems."""
    draw = random.Random(rank)
    refused = 0
    for _ in range(150):
        groups = draw.randint(1, 3)
        input_size = [draw.randint(1, 3), groups * draw.randint(1, 2), *(draw.randint(1, 9) for _ in range(rank))]
        weight_size = [groups * draw.randint(1, 2), input_size[1] // groups, *(draw.randint(1, 4) for _ in range(rank))]
        stride, padding, dilation = ([draw.randint(low, 3) for _ in range(rank)] for low in (1, 0, 1))
        sides = [side for pad in padding for side in (pad, pad)]
        call = input_size, weight_size, stride, sides, dilation, groups
        try:
            size = CONVOLUTIONS[rank](empty(*input_size), empty(*weight_size), None, stride, padding, dilation, groups)
        except RuntimeError as error:
            refused += 1
            with pytest.raises(RuntimeError) as ours:
                conv_geometry(*call)
            assert str(ours.value) in str(error)
            continue
        g = conv_geometry(*call)
        assert [g.n, g.k, *places(g, rank)] == list(size.shape)
        assert g == ConvGeometry.of_axes(g.n, g.c, g.k, g.groups, g.axes[-rank:])
        for_kernels(rank, conv_kernel_geometry, call, g)
        assert g.axes[:-rank] == (Axis(1, 1, 1),) * (3 - rank)
        assert [g.axes[-rank:][i].taps for i in range(rank)] == weight_size[2:]
    assert 10 < refused < 140


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_pool_is_pytorchs(rank: int) -> None:
    draw = random.Random(rank)
    refused = 0
    for _ in range(150):
        input_size = [draw.randint(1, 3), draw.randint(1, 3), *(draw.randint(1, 9) for _ in range(rank))]
        kernel, stride, dilation = ([draw.randint(1, 4) for _ in range(rank)] for _ in range(3))
        padding = [draw.randint(0, size // 2) for size in kernel]
        call = input_size, kernel, stride, padding, dilation, draw.random() < 0.5
        try:
            size = POOLS[rank](empty(*input_size), *call[1:]).shape
        except RuntimeError:
            refused += 1
            with pytest.raises(RuntimeError, match="Output size is too small"):
                pool_geometry(*call)
            continue
        g = pool_geometry(*call)
        assert [g.n, g.c, *places(g, rank)] == list(size)
        assert g == PoolGeometry.of_axes(g.n, g.c, g.axes[-rank:])
        for_kernels(rank, pool_kernel_geometry, call, g)
    assert 10 < refused < 140


def test_names_of_axes() -> None:
    """d, h, w of the image, t, r, s of the filter, z, p, q of the output."""
    axes = [Axis(*range(10 * i, 10 * i + 6)) for i in (1, 2, 3)]
    conv, pool = ConvGeometry.of_axes(5, 6, 7, 8, axes), PoolGeometry.of_axes(5, 6, axes)
    for g in (conv, pool):
        assert (g.n, g.c, g.d, g.h, g.w) == (5, 6, 10, 20, 30) and (g.t, g.r, g.s) == (11, 21, 31)
        assert (g.z, g.p, g.q) == (12, 22, 32) and (g.stride_d, g.stride_h, g.stride_w) == (13, 23, 33)
        assert (g.pad_d, g.pad_h, g.pad_w) == (14, 24, 34) and (g.dilation_d, g.dilation_w) == (15, 35)
        assert list(g.axes) == axes and g.steps == (23, 33, 24, 34, 25, 35)
    assert (conv.k, conv.groups) == (7, 8)
    padded = conv.on_padded_image(40, 50)
    assert padded.axes[0] == Axis(1, 1, 1) or padded.axes[0] == axes[0]
    assert (padded.h, padded.w, padded.pad_h, padded.pad_w) == (40, 50, 0, 0)


DEEP = ConvGeometry.of_axes(1, 16, 16, 1, (Axis(3, 3, 1), Axis(4, 3, 2), Axis(4, 3, 2)))
DEEP_POOL = PoolGeometry.of_axes(1, 16, (Axis(2, 2, 1), Axis(4, 2, 2, 2), Axis(4, 2, 2, 2)))


def calls(m: Any) -> dict[str, Callable[[], Any]]:
    g, pool = m.ConvGeometry(*DEEP), m.PoolGeometry(*DEEP_POOL)
    h200 = m.gpu_named("h200")
    return {
        "conv": lambda: m.conv_forward(0, 0, 0, 0, 3, 1, False, g, 0),
        "conv, planned": lambda: m.conv_explain(m.ConvDirection.forward, 3, 1, False, g, h200),
        "depthwise_conv": lambda: m.depthwise_conv_forward(0, 0, 0, 0, 3, 1, g, 0),
        "depthwise_separable_conv": lambda: m.depthwise_separable_conv_plan(3, 1, False, g, 16, h200),
        "int8_conv": lambda: m.int8_conv_plan(g, False, True, h200),
        "max_pool": lambda: m.max_pool_forward(0, 0, 0, 1, 5, 1, pool, 0),
        "avg_pool": lambda: m.avg_pool_forward(0, 0, 1, 1, pool, True, 0, 0),
        "adaptive_avg_pool": lambda: m.adaptive_avg_pool_forward(0, 0, 0, 1, 1, pool, 0),
        "int8_max_pool": lambda: m.int8_max_pool(0, 0, 4, pool, 0),
    }


@pytest.mark.parametrize("name", calls(native.load("interpreter").module))
def test_kernels_of_planes_refuse_depth(name: str) -> None:
    with pytest.raises(ValueError, match="expected a geometry of two spatial axes"):
        calls(native.load("interpreter").module)[name]()


@pytest.mark.parametrize("rank", [1, 3])
def test_operators_refuse_what_is_not_planes(rank: int) -> None:
    """Also while being traced, where nothing runs."""
    x, w = torch.zeros(1, 4, *[4] * rank), torch.zeros(4, 4, *[3] * rank)
    ones, none = [1] * rank, [0] * rank
    for device in ("meta", "cpu"):
        with pytest.raises(RuntimeError, match=r"expected an input \[N, C, H, W\], but got input of size"):
            torch.ops.cnnkernels.conv_forward(x.to(device), w.to(device), None, ones, none * 2, ones, 1, "cuda")
        with pytest.raises(RuntimeError, match=r"expected an input \[N, C, H, W\], but got input of size"):
            torch.ops.cnnkernels.max_pool_forward(x.to(device), ones, ones, none, ones, False, "cuda")
