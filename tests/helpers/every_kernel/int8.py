"""The kernels of integers: products by mma.sync and wgmma, convolutions of narrow groups, copies, sums and pools."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from cnnkernels.geometry import Axis, Layout, PoolGeometry
from cnnkernels.int8.epilogue import Int8Epilogue
from helpers.every_kernel import Trial, emulated
from helpers.int8_conv import Shape, convolve
from helpers.int8_conv import operands as images
from helpers.int8_conv import run as run_conv
from helpers.int8_gemm import PLAIN, SM90_TILES, integers, pitched, product, run, sm90, streaming, strided, tiles
from helpers.pool import dense, unwritten

SIGNS = (torch.int8, torch.uint8)
ZEROS = PLAIN._replace(zero_point_a=100, zero_point_b=-3)


def multiply(plan: Any, m: int, n: int, k: int, how: tuple[str, str] = ("rows", "columns"), e: Any = PLAIN) -> None:
    a, b = strided(integers(1, m, k, torch.uint8), how[0]), strided(integers(2, k, n), how[1])
    assert torch.equal(run(emulated(), a, b, e, plan()), product(a, b, e))


def multiply_sm90(tile: str, dtype: torch.dtype, m: int = 140) -> None:
    """More stages than the ring has, several tiles by one block or cluster."""
    n, k = 136, 9 * 128 + 16
    a, b = integers(3, m, k, dtype), integers(4, k, n)
    plan = sm90(emulated(), tile, 1, 2 if "cluster" in tile else 1)
    assert torch.equal(run(emulated(), pitched(a), pitched(b.t()).t(), plan=plan), product(a, b))


def convolution(shape: Shape, plan: Any = None, zero_point: int = 7, dtype: torch.dtype = torch.int8) -> None:
    x, w = images(shape, dtype)
    chosen = None if plan is None else plan()
    assert torch.equal(
        run_conv(emulated(), shape, x, w, PLAIN._replace(zero_point_a=zero_point), chosen),
        convolve(shape, x, w, zero_point),
    )


def conv_plan(**fields: Any) -> Any:
    plan = emulated().module.Int8ConvPlan()
    for name, value in fields.items():
        setattr(plan, name, value)
    return plan


def conv_tiles(vectors: bool, tile: int) -> Any:
    return conv_plan(tiles=emulated().module.Int8Plan(vectors, tile, 1))


def conv_grouped() -> Any:
    return conv_plan(kernel=emulated().module.Int8ConvKernel.grouped)


def conv_sm90(tile: str) -> Any:
    return conv_plan(tiles=sm90(emulated(), tile, 1, 1).tiles)


def pool(channels: int) -> None:
    x = torch.randint(-128, 128, (2, channels, 8, 6), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    g = PoolGeometry.of_axes(2, channels, [Axis(8, 2, 4, 2, 0), Axis(6, 2, 3, 2, 0)])
    given = dense(x, Layout.NHWC, "cpu")
    largest, mean = (unwritten((2, channels, 4, 3), torch.int8, Layout.NHWC, "cpu") for _ in range(2))
    emulated().int8_max_pool(given, largest, g)
    emulated().int8_avg_pool(given, mean, g, 0, True, None)
    assert torch.equal(largest, F.max_pool2d(x.double(), 2).to(torch.int8))
    assert torch.equal(mean, F.avg_pool2d(x.double(), 2).round().to(torch.int8))


def weights_alone(rows: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(-2, 3, (rows, 1100), generator=generator).float()
    w = torch.randint(-8, 8, (19, 1100), generator=generator).to(torch.int8)
    y = torch.full((rows, 19), float("nan"))
    emulated().int8_weight_only_linear(x, w, y, Int8Epilogue())
    assert torch.equal(y, x @ w.float().t())


GROUPS = [Shape(1, 4 * size, 7, 19, 4 * size, 3, 3, padding=(1, 1), groups=4) for size in (4, 8, 16)]
DEPTHWISE = [
    Shape(2, 12, 7, 21, 12, 3, 3, padding=(1, 1), groups=12),
    Shape(1, 132, 7, 11, 132, 3, 3, stride=(2, 2), padding=(1, 1), groups=132),
    Shape(1, 8, 9, 13, 8, 3, 3, dilation=(2, 2), padding=(2, 2), groups=8),
    Shape(1, 6, 6, 9, 12, 3, 3, padding=(1, 1), groups=6),
]


def larger(source: str) -> Iterator[Trial]:
    """Several tiles of each cluster, more taps than are held at a time."""
    if source == "int8/sm90_product.cu":
        for tile, dtype in itertools.product(SM90_TILES, SIGNS):
            yield Trial(f"{tile} of {dtype}, more rows", partial(multiply_sm90, tile, dtype, 530))
    if source == "int8_conv/grouped.cu":
        for size in (4, 8, 16):
            shape = Shape(1, 4 * size, 7, 19, 4 * size, 9, 9, padding=(4, 4), groups=4)
            yield Trial(f"groups of {size}, 81 taps", partial(convolution, shape, conv_grouped))
    if source == "int8_conv/depthwise.cu":
        for stride, dilation in ((1, 1), (2, 1), (1, 2)):
            steps = {"stride": (stride, stride), "dilation": (dilation, dilation)}
            shape = Shape(1, 8, 21, 23, 8, 9, 9, padding=(4, 4), groups=8, **steps)
            yield Trial(f"{shape}, 81 taps", partial(convolution, shape))


def trials(source: str) -> Iterator[Trial]:
    k = emulated()
    if source == "int8/product.cu":
        for tile in range(3):
            rows, columns = k.module.int8_tiles[tile]
            for splits in (1, 3):
                plan = partial(tiles, k, True, tile, splits)
                yield Trial(f"tile {tile} in {splits}", partial(multiply, plan, rows + 9, columns + 6, 400))
        words = partial(tiles, k, False, 1)
        yield Trial("whole words", partial(multiply, words, 68, 64, 416))
        yield Trial("words", partial(multiply, words, 66, 65, 330, ("odd", "rows")))
        yield Trial(
            "words of images",
            partial(convolution, Shape(1, 19, 8, 7, 7, 3, 3, padding=(1, 1)), partial(conv_tiles, False, 1)),
        )
    if source == "int8/sm90_product.cu":
        for tile in SM90_TILES:
            for dtype in SIGNS:  # which of two products, in one kernel
                yield Trial(f"{tile} of {dtype}", partial(multiply_sm90, tile, dtype))
        for tile in ("128x128 ping-pong", "128x64"):
            for channels in (64, 32):
                shape = Shape(1, channels, 9, 9, 70, 5, 5, padding=(2, 2))
                for dtype in SIGNS:
                    run_it = partial(convolution, shape, partial(conv_sm90, tile), dtype=dtype)
                    yield Trial(f"{tile}, {channels} channels of {dtype}", run_it)
    if source == "int8/sums.cu":
        for how in (("rows", "columns"), ("columns", "rows")):
            yield Trial(str(how), partial(multiply, partial(tiles, k, False, 1), 40, 48, 160, how, ZEROS))
        shape = Shape(1, 32, 5, 6, 8, 3, 3, padding=(1, 1))
        yield Trial("windows", partial(convolution, shape, partial(conv_sm90, "128x64")))
    if source == "int8_conv/grouped.cu":
        yield from (Trial(str(shape), partial(convolution, shape, conv_grouped)) for shape in GROUPS)
    if source == "int8_conv/depthwise.cu":
        yield from (Trial(str(shape), partial(convolution, shape)) for shape in DEPTHWISE)
    if source == "int8_gemm/pack.cu":
        for how in (("odd", "rows"), ("columns", "odd columns"), ("columns", "rows")):
            yield Trial(str(how), partial(multiply, partial(tiles, k, True, 1, 2, "ab"), 68, 72, 132, how, ZEROS))
    if source == "int8_gemm/stream_weights.cu":
        for m, n, columns, warps in ((16, 45, 8, 4), (9, 70, 32, 3)):
            yield Trial(f"{columns} columns", partial(multiply, partial(streaming, k, columns, warps), m, n, 1104))
    if source == "int8_pool/int8_pool.cu":
        yield from (Trial(f"{channels} channels", partial(pool, channels)) for channels in (16, 12, 5))
    if source == "int8_weight_only_linear/forward.cu":
        yield from (Trial(f"{rows} rows", partial(weights_alone, rows)) for rows in (3, 13))
