"""Memory further apart than 32 bits count, on few elements: what lies between costs nothing until it is touched. There
are zeros where a product leads that lost its upper half."""

from __future__ import annotations

import mmap
import random

import pytest
import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels.common import geometry
from torch import Tensor

from cnnkernels import functional as K
from cnnkernels import use_backend
from cnnkernels.geometry import ConvGeometry, Layout
from cnnkernels.ops.checks import conv_geometry
from cnnkernels.testing.numerics import small_integers
from helpers.device import DEVICE

FAR = 2**31 + 16  # elements; a multiple of 16, by which Triton's kernels take it divided
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())


def zeros(elements: int, dtype: torch.dtype, before: int = 2**31) -> Tensor:
    """Zeros, and as many `before` them, that take no memory until they are written."""
    count = before + elements
    if DEVICE == "cpu":
        memory = torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype)
    else:
        memory = torch.zeros(count, dtype=dtype, device=DEVICE)
    return memory[before:]


def positive(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return 1 + small_integers(shape, dtype, seed).abs().to(DEVICE)


def apart(values: Tensor, axis: int) -> Tensor:
    """A matrix whose rows (0) or columns (1) lie FAR apart, and neighbours of the other axis beside each other."""
    count = values.shape[axis]
    memory = zeros((count - 1) * FAR + values.shape[1 - axis], values.dtype)
    place = memory.as_strided(values.shape, (FAR, 1) if axis == 0 else (1, FAR))
    return place.copy_(values)


# By what lies FAR apart: the shapes of self and mat2.
PRODUCTS = {
    "rows of self": ((2, 32), (32, 3)),
    "columns of self": ((3, 2), (2, 16)),
    "rows of mat2": ((3, 2), (2, 16)),
    "columns of mat2": ((3, 32), (32, 2)),
}


@pytest.mark.parametrize("far", PRODUCTS)
def test_int_mm(kernel_backend: str, far: str) -> None:
    a, b = (positive(shape, torch.int8, seed) for seed, shape in enumerate(PRODUCTS[far]))
    expected = (a.double() @ b.double()).int()
    axis = int(far.startswith("columns"))
    given = (a, apart(b, axis)) if far.endswith("mat2") else (apart(a, axis), b)
    with use_backend(kernel_backend):
        assert torch.equal(K.int_mm(*given), expected)


@pytest.mark.parametrize("far", ["rows of input", "columns of input", "rows of weight"])
def test_int8_weight_only_linear(kernel_backend: str, far: str) -> None:
    """Of few rows and, but where the rows lie apart, of more than the kernels for few take."""
    for rows in (2,) if far == "rows of input" else (2, 20):
        columns = 2 if far == "columns of input" else 32
        x, w = positive((rows, columns), torch.float16, 1), positive((2, columns), torch.int8, 2)
        expected = (x.double() @ w.double().t()).half()
        given = (x, apart(w, 0)) if far.endswith("weight") else (apart(x, int(far.startswith("columns"))), w)
        with use_backend(kernel_backend):
            assert torch.equal(K.int8_weight_only_linear(*given), expected)


def convolve(x: Tensor, w: Tensor, backend: str, **how: object) -> Tensor:
    with use_backend(backend):
        if x.dtype is torch.int8:
            return K.int8_conv2d(x, w, out_dtype=torch.int32, **how).long()
        return K.conv2d(x, w, **how).long()


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8], ids=["fp16", "int8"])
def test_rows_of_a_filter_that_lie_far_apart(kernel_backend: str, dtype: torch.dtype) -> None:
    """The third row of a filter lies 2^31 elements below the first."""
    c, width = 64, 2**24
    x = zeros(3 * width * c, dtype).view(1, 3, width, c).permute(0, 3, 1, 2)
    w = small_integers((4, c, 3, 1), dtype, 1).contiguous(memory_format=torch.channels_last).to(DEVICE)
    seen = positive((1, c, 3, 2), dtype, 2)
    x[..., :: width // 2] = seen
    expected = F.conv2d(seen.double(), w.double()).long()
    assert torch.equal(convolve(x, w, kernel_backend, stride=(1, width // 2)), expected)


@layouts
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8], ids=["fp16", "int8"])
def test_padding_that_begins_far_before_the_image(kernel_backend: str, dtype: torch.dtype, layout: Layout) -> None:
    """A window begins just less than 2^31 elements before the image, and its last tap lies more than that behind it."""
    c, width = (64, 2**14) if layout is Layout.NHWC else (1, 2**20)
    image = zeros(c * width, dtype, 2**32)
    x = image.view(1, 1, width, c).permute(0, 3, 1, 2) if layout is Layout.NHWC else image.view(1, c, 1, width)
    w = small_integers((4, c, 2, 2), dtype, 1).to(DEVICE, memory_format=layout.memory_format)
    seen = positive((c,), dtype, 2)
    x[0, :, 0, 0] = seen
    how = {"padding": (2047, width), "stride": (2047, width), "dilation": (2047, width)}
    expected = torch.zeros(1, 4, 2, 2, dtype=torch.float64, device=DEVICE)
    for p in range(2):
        for q in range(2):  # the pixel is tap (1 - p, 1 - q) of this window
            expected[0, :, p, q] = w[:, :, 1 - p, 1 - q].double() @ seen.double()
    assert torch.equal(convolve(x, w, kernel_backend, **how), expected.long())


def spread(dtype: torch.dtype, layout: Layout) -> tuple[Tensor, Tensor, int]:
    """An image of 46401 x 46401 with nine numbers in it, those, and their distance."""
    step, side = 23200, 46401
    column = (side * side, 1, side, 1) if layout is Layout.NHWC else (side * side, side * side, side, 1)
    x = zeros(side * side, dtype).as_strided((1, 1, side, side), column)
    seen = torch.arange(1, 10, device=DEVICE).view(1, 1, 3, 3).to(dtype)
    x[..., ::step, ::step] = seen
    return x, seen, step


@layouts
def test_max_pool2d(kernel_backend: str, layout: Layout) -> None:
    x, seen, step = spread(torch.float16, layout)
    with use_backend(kernel_backend):
        output, indices = K.max_pool2d(x, 2, step, 1, return_indices=True)
    places = torch.arange(3, device=DEVICE) * step
    assert torch.equal(output, seen)
    assert torch.equal(indices[0, 0], places[:, None] * x.shape[-1] + places)


@layouts
def test_avg_pool2d(kernel_backend: str, layout: Layout) -> None:
    """Each window has one of the numbers, and zeros."""
    x, seen, step = spread(torch.float16, layout)
    with use_backend(kernel_backend):
        assert torch.equal(K.avg_pool2d(x, 2, step, 1, divisor_override=1), seen)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8], ids=["int8", "uint8"])
def test_int8_pools(kernel_backend: str, dtype: torch.dtype) -> None:
    x, seen, step = spread(dtype, Layout.NHWC)
    with use_backend(kernel_backend):
        assert torch.equal(K.int8_max_pool2d(x, 2, step, 1), seen)
        assert torch.equal(K.int8_avg_pool2d(x, 1, step), seen)


def reached(g: ConvGeometry) -> list[int]:
    """The offsets that conv2d's kernels add up, at the ends of their ranges: of a window's beginning and of a tap from
    there, in both images, channels_last."""
    found = []
    for p, q in ((0, 0), (g.p - 1, g.q - 1)):
        h, w = p * g.stride_h - g.pad_h, q * g.stride_w - g.pad_w
        found.append((((g.n - 1) * g.h + h) * g.w + w) * g.c)
        found.append((h * g.w + w) * g.c)
    far_h, far_w = (g.r - 1) * g.dilation_h, (g.s - 1) * g.dilation_w
    found.append((far_h * g.w + far_w) * g.c + g.c - 1)
    for h, w in ((0, 0), (g.h - 1, g.w - 1)):  # backward_input: of the last window with the pixel, and of one before
        p, q = (h + g.pad_h) // g.stride_h, (w + g.pad_w) // g.stride_w
        found.append((((g.n - 1) * g.p + p) * g.q + q) * g.k)
    found.append(-(far_h // g.stride_h * g.q + far_w // g.stride_w) * g.k)
    found.append(g.k * (g.c // g.groups) * g.r * g.s - 1)
    return found


def test_32_bits_are_used_only_where_they_hold_every_offset() -> None:
    """Random geometries of extreme extents; a batch in slices as well."""
    chance = random.Random(0)
    narrow = sliced = 0
    for _ in range(4000):

        def size(most: int) -> int:
            return chance.choice((1, 1, 2, 3, 2 ** chance.randint(0, most), chance.randint(1, 2**most)))

        n, c, h, w, k, r, s = size(10), size(10), size(14), size(14), size(10), size(4), size(4)
        steps = [size(14) for _ in range(4)]
        padding = size(14) - 1, size(14) - 1
        try:
            arguments = (n, c, h, w), (k, c, r, s), steps[:2], [x for x in padding for _ in range(2)], steps[2:], 1
            g = conv_geometry(*arguments)
        except RuntimeError:
            continue
        each = geometry.most_images(g)
        part = g._replace(n=min(n, each))
        if geometry.is_wide(part):
            assert each == 1 or g.k * g.c * g.r * g.s > 2**30
            continue
        narrow, sliced = narrow + 1, sliced + (each < n)
        assert all(-(2**31) <= x < 2**31 for x in reached(part)), g
    assert narrow > 1000 and sliced > 50
