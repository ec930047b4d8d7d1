"""What only the interpreter can show of averages in CUDA: no access out of bounds, no schedule that matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cnnkernels import native
from cnnkernels.dtypes import FLOATING
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import PoolCase
from cnnkernels.testing.guarded import guarded
from helpers.pool import dense, unwritten

layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
CASES = (
    PoolCase("windows that overhang", 3, 16, 9, 7, (3, 2), (2, 2), (1, 1), ceil_mode=True),
    PoolCase("odd channels", 3, 3, 9, 7, (2, 2), (2, 2)),
    PoolCase("bins that overlap", 3, 16, 9, 7, (1, 1), (1, 1), bins=(4, 5)),
    PoolCase("more bins than pixels", 3, 3, 2, 3, (1, 1), (1, 1), bins=(5, 4)),
    PoolCase("one bin", 3, 16, 9, 7, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("one bin of odd channels", 3, 5, 9, 7, (1, 1), (1, 1), bins=(1, 1)),
    PoolCase("one bin in parts", 1, 8, 40, 31, (1, 1), (1, 1), bins=(1, 1)),
)
cases = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def kernels() -> native.NativeKernels:
    return native.load("interpreter")


def both(
    kernels: native.NativeKernels,
    case: PoolCase,
    dtype: torch.dtype,
    layout: Layout,
    wrap: Callable[[Tensor], Tensor] = lambda t: t,
) -> list[Tensor]:
    """The means and the gradient, every tensor passed through `wrap`."""
    generator = torch.Generator().manual_seed(7)
    name, rest = ("avg_pool", (False, None)) if case.bins is None else ("adaptive_avg_pool", ())
    results = []
    for direction, shapes in (
        ("forward", (case.input_shape, case.output_shape)),
        ("backward", (case.output_shape, case.input_shape)),
    ):
        given = wrap(dense(torch.randn(shapes[0], generator=generator).to(dtype), layout, "cpu"))
        results.append(wrap(unwritten(shapes[1], dtype, layout, "cpu")))
        getattr(kernels, f"{name}_{direction}")(given, results[-1], case.geometry, layout, *rest)
    return results


@layouts
@cases
@pytest.mark.parametrize("dtype", FLOATING.values(), ids=FLOATING.keys())
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
def test_no_access_out_of_bounds(kernels, case: PoolCase, dtype: torch.dtype, after: bool, layout: Layout) -> None:
    """Every tensor ends, or begins, at an inaccessible page; an access beyond would be a KernelFault."""
    results = both(kernels, case, dtype, layout, lambda t: guarded(t, after))
    for ours, expected in zip(results, both(kernels, case, dtype, layout), strict=True):
        assert torch.equal(ours, expected) and not ours.isnan().any()


@layouts
@cases
@pytest.mark.parametrize("order", ["ordered", "reversed", "random"])
def test_every_schedule_gives_the_same(kernels, case: PoolCase, order: str, layout: Layout) -> None:
    before = kernels.module.schedule()
    expected = both(kernels, case, torch.float32, layout)
    try:
        for seed in (1, 2):
            kernels.module.set_schedule(order=order, seed=seed)
            results = both(kernels, case, torch.float32, layout)
            assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
    finally:
        kernels.module.set_schedule(order=before["order"], seed=before["seed"])
