"""int8_max_pool2d and int8_avg_pool2d: every backend against PyTorch's pooling in fp64 and the formula, to the bit."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as theirs
from torch import Tensor

from cnnkernels import functional as F
from cnnkernels import native, use_backend
from cnnkernels.geometry import Layout
from cnnkernels.native import NativeKernels
from cnnkernels.testing.cases import PoolCase
from cnnkernels.testing.guarded import guarded
from helpers.pool import dense

# Channels: by sixteens, by fours, one by one.
CASES = (
    PoolCase("one element", 1, 1, 1, 1, (1, 1), (1, 1)),
    PoolCase("2x2 stride 2", 2, 16, 6, 8, (2, 2), (2, 2)),
    PoolCase("resnet stem 3x3 stride 2", 2, 32, 9, 11, (3, 3), (2, 2), (1, 1)),
    PoolCase("overlapping 5x5 of seven channels", 1, 7, 9, 7, (5, 5), (1, 1), (2, 2)),
    PoolCase("ceil mode with padding", 1, 12, 5, 6, (2, 3), (3, 2), (1, 1), ceil_mode=True),
    PoolCase("dilated", 2, 8, 10, 11, (3, 2), (2, 1), (1, 0), (2, 3)),
    PoolCase("no place inside", 1, 5, 3, 3, (2, 2), (1, 1), (1, 1), (4, 1)),
    PoolCase("stride above kernel", 1, 20, 11, 10, (2, 2), (4, 3)),
    PoolCase("global of small maps", 2, 16, 7, 7, (7, 7), (7, 7)),
    PoolCase("wide windows", 1, 16, 3, 30, (3, 11), (1, 7), (1, 5)),
)
cases = pytest.mark.parametrize("case", CASES, ids=str)
integers = pytest.mark.parametrize("dtype", [torch.int8, torch.uint8], ids=["int8", "uint8"])


def images(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 1) -> Tensor:
    """The whole range, its ends often."""
    limits = torch.iinfo(dtype)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(limits.min, limits.max + 1, shape, generator=generator)
    ends = torch.randint(0, 8, shape, generator=generator)
    return torch.where(ends == 0, limits.min, torch.where(ends == 1, limits.max, x)).to(dtype)


def largest(x: Tensor, case: PoolCase) -> Tensor:
    y = theirs.max_pool2d(x.double(), case.kernel, case.stride, case.padding, case.dilation, case.ceil_mode)
    return y.clamp(min=torch.iinfo(x.dtype).min).to(x.dtype)


def divisors(case: PoolCase, include_pad: bool, override: int | None) -> Tensor:
    """PyTorch's, window by window."""
    g = case.geometry
    divisor = torch.empty(g.p, g.q)
    for p in range(g.p):
        for q in range(g.q):
            top, left = p * g.stride_h - g.pad_h, q * g.stride_w - g.pad_w
            bottom, right = min(top + g.r, g.h + g.pad_h), min(left + g.s, g.w + g.pad_w)
            if not include_pad:
                top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, g.h), min(right, g.w)
            divisor[p, q] = override or (bottom - top) * (right - left)
    return divisor


def mean(x: Tensor, case: PoolCase, zero_point: int, include_pad: bool, override: int | None) -> Tensor:
    arguments = case.kernel, case.stride, case.padding, case.ceil_mode, include_pad
    sums = theirs.avg_pool2d(x.double() - zero_point, *arguments, divisor_override=1)
    steps = torch.round(sums.float() / divisors(case, include_pad, override)) + zero_point
    limits = torch.iinfo(x.dtype)
    result = steps.clamp(limits.min, limits.max).to(x.dtype)
    about = theirs.avg_pool2d(x.double() - zero_point, *arguments, divisor_override=override) + zero_point
    assert ((about.clamp(limits.min, limits.max) - result).abs() < 0.5001).all()
    return result


def unwritten(case: PoolCase, dtype: torch.dtype, device: str) -> Tensor:
    return dense(torch.full(case.output_shape, 113, dtype=dtype), Layout.NHWC, device)


AVERAGES = [(0, True, None), (5, False, None), (-3, True, 7)]  # zero point (of int8), count_include_pad, divisor


def both(kernels, x: Tensor, case: PoolCase, wrap=lambda t: t) -> list[Tensor]:
    """The maxima, and the means for each of AVERAGES."""
    shift = 0 if x.dtype is torch.int8 else 128
    x = wrap(x)
    results = [wrap(unwritten(case, x.dtype, x.device.type))]
    kernels.int8_max_pool(x, results[0], case.geometry)
    for zero_point, *rest in AVERAGES if case.dilation == (1, 1) else []:
        results.append(wrap(unwritten(case, x.dtype, x.device.type)))
        kernels.int8_avg_pool(x, results[-1], case.geometry, zero_point + shift, *rest)
    return results


def expected(x: Tensor, case: PoolCase) -> list[Tensor]:
    shift = 0 if x.dtype is torch.int8 else 128
    averages = AVERAGES if case.dilation == (1, 1) else []
    return [largest(x, case), *(mean(x, case, zero_point + shift, *rest) for zero_point, *rest in averages)]


def agree(results: list[Tensor], truths: list[Tensor]) -> bool:
    return all(torch.equal(ours.cpu(), truth) for ours, truth in zip(results, truths, strict=True))


@cases
@integers
def test_kernels(kernels, device, case: PoolCase, dtype: torch.dtype) -> None:
    x = images(case.input_shape, dtype)
    assert agree(both(kernels, dense(x, Layout.NHWC, device), case), expected(x, case))


@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@pytest.mark.parametrize("channels", [5, 12, 16])
def test_no_access_out_of_bounds(channels: int, after: bool) -> None:
    """Every tensor ends, or begins, at an inaccessible page; an access beyond would be a KernelFault."""
    case = PoolCase("", 3, channels, 9, 7, (3, 4), (2, 3), (1, 2), ceil_mode=True)
    x = images(case.input_shape, torch.int8)
    kernels = native.load("interpreter")
    assert agree(both(kernels, dense(x, Layout.NHWC, "cpu"), case, lambda t: guarded(t, after)), expected(x, case))


@pytest.mark.parametrize("order", ["reversed", "random"])
def test_every_schedule_gives_the_same(order: str) -> None:
    """Threads that share a window's rows."""
    case = PoolCase("", 2, 16, 13, 5, (13, 5), (1, 1))
    x = images(case.input_shape, torch.uint8)
    kernels = native.load("interpreter")
    before = kernels.module.schedule()
    try:
        kernels.module.set_schedule(order=order, seed=3)
        results = both(kernels, dense(x, Layout.NHWC, "cpu"), case)
    finally:
        kernels.module.set_schedule(order=before["order"], seed=before["seed"])
    assert agree(results, expected(x, case))


def limited(kernels, most: int, monkeypatch: pytest.MonkeyPatch):
    """The same kernels, but with less that 32-bit arithmetic may meet: slices."""
    if isinstance(kernels, NativeKernels):
        names = ("int8_max_pool", "int8_avg_pool")
        functions = {n: functools.partial(getattr(kernels.module, n), largest_index=most) for n in names}
        module = SimpleNamespace(PoolGeometry=kernels.module.PoolGeometry, **functions)
        return NativeKernels(module, kernels.device_type)
    import cnnkernels.triton_kernels.common.sites as spread

    monkeypatch.setattr(spread, "LARGEST_INDEX", most)
    return kernels


@pytest.mark.parametrize("most", [40, 200])
def test_slices_and_64_bit_arithmetic_agree(kernels, device, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = PoolCase("", 3, 7, 9, 8, (3, 3), (2, 2), (1, 1))
    x = images(case.input_shape, torch.int8)
    results = both(limited(kernels, most, monkeypatch), dense(x, Layout.NHWC, device), case)
    assert agree(results, expected(x, case))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@integers
def test_functional(backend, device, dtype: torch.dtype, memory_format) -> None:
    case = PoolCase("", 2, 6, 9, 8, (3, 2), (2, 1), (1, 1), ceil_mode=True)
    x = images(case.input_shape, dtype)
    placed = x.to(device).to(memory_format=memory_format)
    arguments = case.kernel, case.stride, case.padding
    with use_backend(backend):
        y = F.int8_max_pool2d(placed, *arguments, ceil_mode=True)
        means = F.int8_avg_pool2d(placed, *arguments, True, False, zero_point=9)
        alone = F.int8_avg_pool2d(placed[1], *arguments, True, False, zero_point=9)
        overall = F.int8_adaptive_avg_pool2d(placed, zero_point=9)
        dilated = F.int8_max_pool2d(placed, 3, 2, 1, (2, 4))
        plain = F.int8_max_pool2d(placed[:, :, 1:, ::2], 2)
    assert torch.equal(y.cpu(), largest(x, case))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(means.cpu(), mean(x, case, 9, False, None))
    assert torch.equal(alone.cpu(), means[1].cpu())
    whole = PoolCase("", 2, 6, 9, 8, (9, 8), (9, 8))
    assert torch.equal(overall.cpu(), mean(x, whole, 9, True, None))
    assert torch.equal(dilated.cpu(), largest(x, PoolCase("", 2, 6, 9, 8, (3, 3), (2, 2), (1, 1), (2, 4))))
    part = x[:, :, 1:, ::2]
    assert torch.equal(plain.cpu(), largest(part, PoolCase("", *part.shape, (2, 2), (2, 2))))


def test_rounding_by_hand(kernel_backend, device) -> None:
    """Means of two: ties to even about the zero point, and saturation by a divisor."""
    pairs = torch.tensor([[0, 1], [1, 2], [2, 3], [-1, 0], [-2, -1], [127, 127], [-128, -128], [-128, 127]])
    x = pairs.to(torch.int8).view(8, 1, 1, 2).to(device)
    with use_backend(kernel_backend):
        assert F.int8_avg_pool2d(x, (1, 2)).flatten().tolist() == [0, 2, 2, 0, -2, 127, -128, 0]
        shifted = F.int8_avg_pool2d(x, (1, 2), zero_point=1).flatten().tolist()
        assert shifted == [1, 1, 3, -1, -1, 127, -128, -1]
        saturated = F.int8_avg_pool2d(x, (1, 2), divisor_override=1).flatten().tolist()
        assert saturated == [1, 3, 5, -1, -3, 127, -128, -1]


X = torch.ones(2, 3, 4, 5, dtype=torch.int8)
ERRORS = [
    (lambda: F.int8_max_pool2d(X.float(), 2), RuntimeError, "input.*int8 or uint8.*float32"),
    (lambda: F.int8_max_pool2d([1], 2), TypeError, "input.*list"),
    (lambda: F.int8_max_pool2d(X[0, 0], 2), RuntimeError, r"size: \[4, 5\]"),
    (lambda: F.int8_max_pool2d(X[:, :0], 2), RuntimeError, r"size: \[2, 0, 4, 5\]"),
    (lambda: F.int8_max_pool2d(X, 0), RuntimeError, r"kernel size.*\(0, 0\)"),
    (lambda: F.int8_max_pool2d(X, 2, 0), RuntimeError, r"stride.*\(0, 0\)"),
    (lambda: F.int8_max_pool2d(X, 2, padding=2), RuntimeError, r"padding=\(2, 2\)"),
    (lambda: F.int8_max_pool2d(X, 7), RuntimeError, "Output size is too small"),
    (lambda: F.int8_max_pool2d(X, (1, 2, 3)), RuntimeError, "kernel_size"),
    (lambda: F.int8_max_pool2d(X, 2, ceil_mode=1), TypeError, "ceil_mode=1"),
    (lambda: F.int8_avg_pool2d(X, 2, divisor_override=0), ValueError, "divisor_override.*0"),
    (lambda: F.int8_avg_pool2d(X, 2, divisor_override=2**31), ValueError, "divisor_override.*2147483648"),
    (lambda: F.int8_avg_pool2d(X, 2, zero_point=128), ValueError, "zero_point=128"),
    (lambda: F.int8_avg_pool2d(X, 2, zero_point=0.5), TypeError, "zero_point.*float"),
    (lambda: F.int8_avg_pool2d(X, 2, zero_point=torch.ones(1)), TypeError, "zero_point.*Tensor"),
    (lambda: F.int8_avg_pool2d(X[:1, :1, :1, :1].expand(1, 1, 4096, 4096), 4096), ValueError, "16777216 places"),
    (lambda: F.int8_adaptive_avg_pool2d(X, 2), ValueError, "output_size=2"),
]


@pytest.mark.parametrize("call, kind, message", ERRORS, ids=[str(i) for i in range(len(ERRORS))])
def test_errors(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_empty_batch(backend, device) -> None:
    with use_backend(backend):
        assert F.int8_max_pool2d(X[:0].to(device), 2).shape == (0, 3, 2, 2)


def chain(x: Tensor) -> Tensor:
    return F.int8_avg_pool2d(F.int8_max_pool2d(x, 3, 2, 1), 2, 1, zero_point=3)


def test_compile_and_vmap(kernel_backend, device) -> None:
    torch.compiler.reset()
    x = images((2, 3, 9, 8), torch.int8).to(device)
    with use_backend(kernel_backend):
        compiled = torch.compile(chain, fullgraph=True, backend="aot_eager")(x)
        assert torch.equal(compiled, chain(x)) and compiled.stride() == chain(x).stride()
        assert torch.equal(torch.func.vmap(chain)(x[:, None])[:, 0], chain(x))
