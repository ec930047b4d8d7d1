"""quantize's and dequantize's kernels: every backend against the formula in numpy, equal to the bit."""

from __future__ import annotations

import functools
import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnkernels import backends, native
from cnnkernels.dtypes import FLOATING
from cnnkernels.native import NativeKernels
from cnnkernels.ops.quantize import Reference
from cnnkernels.testing.guarded import guarded
from helpers.device import MODULE

dtypes = pytest.mark.parametrize("dtype", FLOATING.values(), ids=FLOATING.keys())

# [outer, groups, inner], each with its reason
SHAPES = {
    "one element": (1, 1, 1),
    "tensor shorter than a chunk": (1, 1, 13),
    "tensor of whole chunks": (1, 1, 1024),
    "tensor cut into pieces": (1, 1, 33331),
    "rows that begin anywhere": (1, 7, 37),
    "rows in one chunk more than their length has": (1, 5, 31),
    "rows beyond a warp": (1, 3, 2083),
    "rows beyond a block of the usual size": (1, 2, 9001),
    "rows longer than registers": (1, 2, 33007),
    "runs of planes": (2, 3, 1099),
    "planes of 7x7": (3, 20, 49),
    "channels that fill vectors": (37, 32, 1),
    "channels that do not fill vectors": (101, 19, 1),
    "more channels than shared memory's table": (3, 4099, 1),
    "filters of 3x3": (1, 19, 9),
}
# Types differ in how a chunk is read and written, shapes in where chunks begin and which kernel takes them.
EVERY_TYPE = (
    "tensor of whole chunks",
    "rows that begin anywhere",
    "planes of 7x7",
    "channels that do not fill vectors",
)
FORMULA = [
    pytest.param(shape, dtype, id=f"{name}-{kind}".replace(" ", "-"))
    for name, shape in SHAPES.items()
    for kind, dtype in FLOATING.items()
    if kind == "bf16" or name in EVERY_TYPE
]


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 1) -> Tensor:
    """Magnitudes from group to group apart, ties at .5 under a scale of 0.25, and what is no number."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3.0 ** (torch.arange(shape[1]) % 8)[:, None]
    x = torch.where(torch.rand(shape, generator=generator) < 0.3, (x * 8).round() / 8, x).to(dtype)
    flat = x.view(-1)
    for place, value in ((5, math.nan), (6, -0.0), (7, 0.0)):
        if flat.numel() > 8:
            flat[place] = value
    return x


def scales_of(x: Tensor) -> Tensor:
    magnitude = np.abs(x.float().numpy())
    largest = np.where(np.isnan(magnitude), np.float32(0), magnitude).max(axis=(0, 2))
    bounds = np.float32(2.0**-126), np.float32(2.0**126)
    return torch.from_numpy(np.where(largest == 0, np.float32(1), np.clip(largest / np.float32(127), *bounds)))


def formula(x: Tensor, dtype: torch.dtype, scale: Tensor, zero_point: Tensor) -> Tensor:
    limits, z = torch.iinfo(dtype), zero_point.numpy()[:, None]
    with np.errstate(all="ignore"):
        steps = np.rint(x.float().numpy() * (np.float32(1) / scale.numpy()[:, None]))
    steps = np.where(np.isnan(steps), np.float32(0), steps)
    return torch.from_numpy(np.clip(steps, limits.min - z, limits.max - z).astype(np.int64) + z).to(dtype)


def back(q: Tensor, dtype: torch.dtype, scale: Tensor, zero_point: Tensor) -> Tensor:
    shifted = q.numpy().astype(np.int32) - zero_point.numpy()[:, None]
    return torch.from_numpy(shifted.astype(np.float32) * scale.numpy()[:, None]).to(dtype)


def unwritten(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    return torch.full(shape, math.nan if dtype.is_floating_point else 113, dtype=dtype, device=device)


def dynamic(kernels, x: Tensor) -> tuple[Tensor, Tensor]:
    q, scale = unwritten(x.shape, torch.int8, x.device.type), unwritten(x.shape[1:2], torch.float32, x.device.type)
    kernels.quantize(x, q, scale, 0, True)
    return q, scale


@pytest.fixture(params=["cuda", "triton", "reference"])
def functions(request: pytest.FixtureRequest, device: str):
    """A backend's functions over raw tensors."""
    return Reference if request.param == "reference" else backends.kernels(request.param, device)


@pytest.mark.parametrize("shape, dtype", FORMULA)
def test_formula(functions, device, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x = values(shape, dtype)
    scale = scales_of(x)
    q, found = dynamic(functions, x.to(device))
    assert torch.equal(found.cpu(), scale)
    assert torch.equal(q.cpu(), formula(x, torch.int8, scale, torch.zeros(shape[1], dtype=torch.int32)))

    # half of the range: some saturate
    zero_point = (torch.arange(shape[1]) * 7 % 256).to(torch.int32)
    unsigned = unwritten(shape, torch.uint8, device)
    functions.quantize(x.to(device), unsigned, (scale / 2).to(device), zero_point.to(device))
    assert torch.equal(unsigned.cpu(), formula(x, torch.uint8, scale / 2, zero_point))

    for integers, z in ((unsigned, zero_point), (q, zero_point - 128)):
        y = unwritten(shape, dtype, device)
        functions.dequantize(integers, y, found, z.to(device))
        assert torch.equal(y.cpu(), back(integers.cpu(), dtype, scale, z))


@dtypes
@pytest.mark.parametrize("integer", [torch.int8, torch.uint8], ids=["int8", "uint8"])
def test_numbers_for_all(functions, device, dtype: torch.dtype, integer: torch.dtype) -> None:
    """A scale and a zero point that are no tensors, 1 among them."""
    x = values((1, 1, 100), dtype)
    for scale, zero_point in ((0.25, 0), (0.1, 1), (1.0, 77)):
        numbers = torch.tensor([scale]), torch.tensor([zero_point], dtype=torch.int32)
        q, y = unwritten(x.shape, integer, device), unwritten(x.shape, dtype, device)
        functions.quantize(x.to(device), q, scale, zero_point)
        assert torch.equal(q.cpu(), formula(x, integer, *numbers))
        functions.dequantize(q, y, scale, zero_point)
        assert torch.equal(y.cpu(), back(q.cpu(), dtype, *numbers))


INF, NAN = math.inf, math.nan
# x and the integer that it rounds to
TABLE = [
    (0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (-2.5, -2), (0.49999997, 0), (126.5, 126), (127.5, 128),
    (-127.5, -128), (-128.5, -128), (-129.5, -130), (1e30, INF), (-1e30, -INF), (INF, INF), (-INF, -INF), (NAN, 0),
    (-0.0, 0), (1e-40, 0),
]  # fmt: skip


def test_rounding_by_hand(functions, device) -> None:
    """Ties to even, saturation, infinities, NaN, subnormals, for several zero points."""
    x = torch.tensor([row[0] for row in TABLE]).view(1, 1, -1).to(device)
    for zero_point in (0, 3, -5, 127, -128):
        q = unwritten(x.shape, torch.int8, device)
        functions.quantize(x, q, 1.0, zero_point)
        assert q.flatten().tolist() == [max(-128, min(127, row[1] + zero_point)) for row in TABLE]


@pytest.mark.filterwarnings("ignore:.* encountered in")  # Triton's interpreter computes in numpy
def test_largest_magnitudes(functions, device) -> None:
    """NaN does not count, zeros have the scale 1; subnormals and infinities one that can be inverted."""
    rows = [
        [NAN, 2.0, -254.0, 1.0],
        [0.0, -0.0, 0.0, 0.0],
        [NAN, NAN, NAN, NAN],
        [INF, 1.0, -INF, 0.0],
        [1e-45, 0.0, -3e-45, NAN],
        [1e-37, -5e-38, 2e-38, 0.0],
        [INF, 3e38, -9e37, 4e37],
    ]
    x = torch.tensor(rows).view(1, 7, 4)
    scale = scales_of(x)
    assert scale.tolist() == [2.0, 1.0, 1.0, 2.0**126, 2.0**-126, 2.0**-126, 2.0**126]
    for shaped in (x, x.permute(0, 2, 1).reshape(4, 7, 1)):  # rows, and columns
        q, found = dynamic(functions, shaped.contiguous().to(device))
        assert torch.equal(found.cpu(), scale)
        assert torch.equal(q.cpu(), formula(shaped, torch.int8, scale, torch.zeros(7, dtype=torch.int32)))
        values = back(q.cpu(), torch.float32, scale, torch.zeros(7, dtype=torch.int32))
        assert torch.equal(values.isinf(), shaped.abs() > 2.9e38)


@pytest.mark.filterwarnings("ignore:.* encountered in")
def test_scales_that_nobody_looked_at(functions, device) -> None:
    """A scale on a device may be 0, infinite or subnormal: 0 inf is NaN and gives the zero point."""
    x = torch.tensor([0.0, 1.0, -1.0, INF, -INF, NAN], device=device).repeat(4).view(1, 4, 6)
    scale = torch.tensor([0.0, INF, 1e-45, -INF], device=device)
    zero_point = torch.tensor([5, -128, 127, 0], dtype=torch.int32, device=device)
    q = unwritten(x.shape, torch.int8, x.device.type)
    functions.quantize(x, q, scale, zero_point)
    assert q.tolist() == [
        [[5, 127, -128, 127, -128, 5], [-128] * 6, [127, 127, -128, 127, -128, 127], [0] * 6],
    ]


@dtypes
@pytest.mark.parametrize("shape", [(1, 1, 100), (1, 5, 67), (9, 21, 1), (25, 3, 1), (2, 2, 1030)], ids=str)
def test_any_alignment(device, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Views that begin anywhere, in CUDA: vectors are shifted into place."""
    kernels = native.load(MODULE)
    count = math.prod(shape)
    data = values((1, 1, count + 16), dtype).view(-1).to(device)
    for offset, written in ((1, 0), (2, 0), (3, 5), (5, 16), (8, 1), (0, 3)):
        x = data[offset : offset + count].view(shape)
        memory = unwritten((count + 17,), torch.int8, device)
        q, scale = memory[written : written + count].view(shape), torch.empty(shape[1], device=device)
        kernels.quantize(x, q, scale, 0, True)
        expected = scales_of(x.cpu())
        zero = torch.zeros(shape[1], dtype=torch.int32)
        assert torch.equal(scale.cpu(), expected)
        assert torch.equal(q.cpu(), formula(x.cpu(), torch.int8, expected, zero))
        assert (memory[:written] == 113).all() and (memory[written + count :] == 113).all()

        numbers = unwritten((count + 17,), dtype, device)
        y = numbers[written : written + count].view(shape)
        integers = torch.randint(-128, 128, (count + offset,), dtype=torch.int8, device=device)[offset:].view(shape)
        kernels.dequantize(integers, y, scale, zero.to(device))
        assert torch.equal(y.cpu(), back(integers.cpu(), dtype, expected, zero))
        assert numbers[:written].isnan().all() and numbers[written + count :].isnan().all()


@pytest.mark.parametrize("shape", [(1, 1, 35), (1, 3, 67), (9, 21, 1), (2, 2, 1030), (1, 1, 32800)], ids=str)
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@dtypes
def test_no_access_out_of_bounds(dtype: torch.dtype, after: bool, shape: tuple[int, int, int]) -> None:
    """Every tensor ends, or begins, at an inaccessible page; an access beyond would be a KernelFault."""
    kernels = native.load("interpreter")
    x, groups = values(shape, dtype), shape[1]
    q, y = (guarded(unwritten(shape, kind, "cpu"), after) for kind in (torch.int8, dtype))
    scale = guarded(torch.zeros(groups), after)
    zero = guarded(torch.zeros(groups, dtype=torch.int32), after)
    kernels.quantize(guarded(x, after), q, scale, zero, True)
    assert torch.equal(scale, scales_of(x))
    kernels.quantize(guarded(x, after), q, scale, zero)
    assert torch.equal(q, formula(x, torch.int8, scales_of(x), zero))
    kernels.dequantize(q, y, scale, zero)
    assert torch.equal(y, back(q, dtype, scale, zero))


@pytest.mark.parametrize("order", ["ordered", "reversed", "random"])
@pytest.mark.parametrize("shape", [(1, 2, 2083), (2, 3, 2083), (300, 21, 1)], ids=str)
def test_every_schedule_gives_the_same(shape: tuple[int, int, int], order: str) -> None:
    kernels = native.load("interpreter")
    x = values(shape, torch.float32)
    before = kernels.module.schedule()
    try:
        kernels.module.set_schedule(order=order, seed=3)
        q, scale = dynamic(kernels, x)
    finally:
        kernels.module.set_schedule(order=before["order"], seed=before["seed"])
    assert torch.equal(scale, scales_of(x))
    assert torch.equal(q, formula(x, torch.int8, scale, torch.zeros(shape[1], dtype=torch.int32)))


def limited(kernels, monkeypatch: pytest.MonkeyPatch):
    """The same kernels, decoding elements with 64-bit arithmetic."""
    if isinstance(kernels, NativeKernels):
        names = ("quantize", "dequantize", "quantize_dynamic")
        module = {name: functools.partial(getattr(kernels.module, name), largest_index=0) for name in names}
        module["quantize_dynamic_workspace"] = kernels.module.quantize_dynamic_workspace
        return NativeKernels(SimpleNamespace(**module), kernels.device_type)
    source = importlib.import_module("cnnkernels.triton_kernels.quantize.quantize")  # beside the function of that name
    monkeypatch.setattr(source, "LARGEST_INDEX", 0)
    return kernels


@pytest.mark.parametrize("shape", [(1, 1, 100), (1, 7, 37), (3, 20, 49), (2, 3, 1099)], ids=str)
def test_64_bit_arithmetic_agrees(
    kernels, device, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]
) -> None:
    x = values(shape, torch.float32)
    wide = limited(kernels, monkeypatch)
    q, scale = dynamic(wide, x.to(device))
    zero = torch.zeros(shape[1], dtype=torch.int32)
    assert torch.equal(scale.cpu(), scales_of(x))
    assert torch.equal(q.cpu(), formula(x, torch.int8, scale.cpu(), zero))
    again, y = torch.empty_like(q), torch.empty(shape, device=device)
    wide.quantize(x.to(device), again, scale, zero.to(device))
    assert torch.equal(again, q)
    wide.dequantize(q, y, scale, zero.to(device))
    assert torch.equal(y.cpu(), back(q.cpu(), torch.float32, scale.cpu(), zero))
