"""conv2d over tensors of more than 2^31 elements, on a GPU: each part of a result is what that part alone gives. The
same test on a few elements shows that it asks for the right thing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from cnnkernels import use_backend
from cnnkernels.functional import conv2d
from cnnkernels.geometry import Layout
from helpers.device import DEVICE

OVER = (171, 64, 448, 448)
assert math.prod(OVER) > 2**31
sizes = pytest.mark.parametrize(
    ("shape", "images"), [((5, 8, 6, 7), 2), pytest.param(OVER, 19, marks=pytest.mark.gpu)], ids=["few", "over 2^31"]
)
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())


def whole_numbers(shape: tuple[int, ...], layout: Layout, seed: int) -> Tensor:
    """-1, 0 and 1 in bf16: sums stay exact in fp32, and are rounded once."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    x = torch.empty(shape, dtype=torch.bfloat16, device=DEVICE, memory_format=layout.memory_format)
    return x.random_(-1, 2, generator=generator)


@pytest.fixture
def memory(shape: tuple[int, ...]) -> Iterator[None]:
    """Four tensors of that size, and room for what PyTorch computes in fp32."""
    needed = 4 * 2 * math.prod(shape) + (8 << 30)
    if shape == OVER and torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed >> 30} GiB of GPU memory that nobody uses")
    yield
    if shape == OVER:
        torch.cuda.empty_cache()


def parts(count: int, images: int) -> Iterator[slice]:
    return (slice(first, min(first + images, count)) for first in range(0, count, images))


@sizes
@layouts
def test_forward_and_backward_input(
    kernel_backend: str, layout: Layout, shape: tuple[int, ...], images: int, memory: None
) -> None:
    channels = shape[1]
    x, dy = whole_numbers(shape, layout, 1), whole_numbers(shape, layout, 3)
    w = whole_numbers((channels, channels, 3, 3), layout, 2)

    def both(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        y = conv2d(x, w, padding=1)
        return y.detach(), torch.autograd.grad(y, x, dy)[0]

    with use_backend(kernel_backend):
        y, dx = both(x, dy)
        for part in parts(len(x), images):
            alone_y, alone_dx = both(x[part], dy[part])
            assert torch.equal(y[part], alone_y), part
            assert torch.equal(dx[part], alone_dx), part
        w[0, 0, 0, 0] = math.inf  # what misses a window at the last image's border is made anew
        _, dx = both(x, dy)
        _, alone_dx = both(x[-1:], dy[-1:])
        assert torch.equal(dx[-1:].nan_to_num(7.0), alone_dx.nan_to_num(7.0))
        assert alone_dx[:, 0].isfinite().any() and not alone_dx[:, 0].isfinite().all()


@sizes
@layouts
def test_backward_weight(
    kernel_backend: str, layout: Layout, shape: tuple[int, ...], images: int, memory: None
) -> None:
    """Of all images together, against the sum of what PyTorch makes of each of them in fp32, exact on whole numbers."""
    channels = shape[1]
    x, dy = whole_numbers(shape, layout, 1), whole_numbers(shape, layout, 3)
    w = whole_numbers((channels, channels, 3, 3), layout, 2).requires_grad_()
    with use_backend(kernel_backend):
        (dw,) = torch.autograd.grad(conv2d(x, w, padding=1), w, dy)
    expected = torch.zeros(w.shape, dtype=torch.float64, device=DEVICE)
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for i in range(len(x)):
            one, error = x[i : i + 1].float().contiguous(), dy[i : i + 1].float().contiguous()
            expected += torch.nn.grad.conv2d_weight(one, w.shape, error, padding=1).double()
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    assert torch.equal(dw, expected.to(torch.bfloat16))
