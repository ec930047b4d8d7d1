"""What launchers ask of a GPU, whatever its size: grids that every axis holds, blocks that stay for as many processors
as there are, limits that are only raised; and that nothing known of one GPU is taken for another's."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import backends, native
from cnnkernels.geometry import Axis, ConvGeometry, Layout, PoolGeometry
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native import NativeKernels
from cnnkernels.testing.cases import ConvCase
from helpers.conv import DIRECTIONS, ConvRunner, floats, result_shape
from helpers.conv_sm90 import plan as hopper_plan
from helpers.device import HAS_GPU
from helpers.int8_gemm import SM90_TILES, integers, pitched, product, run, sm90

pytestmark = pytest.mark.skipif(HAS_GPU, reason="launches are looked at in the interpreter")

Calls = Iterator[Callable[[], None]]


@pytest.fixture(scope="module")
def kernels() -> NativeKernels:
    return native.load("interpreter")


@pytest.fixture
def standing(kernels: NativeKernels) -> Iterator[Callable[[int], Any]]:
    """Has the interpreter stand for an H100 of so many processors."""
    m = kernels.module
    yield lambda processors: m.stand_for(m.gpu_like("NVIDIA H100 slice", 90, processors))
    m.stand_for(m.gpu_named("a100"))


# Blocks that stay


@pytest.mark.parametrize("processors", [1, 2, 3, 5, 132])
@pytest.mark.parametrize("tile", SM90_TILES[1:4])
def test_a_block_a_processor(kernels: NativeKernels, standing: Any, tile: str, processors: int) -> None:
    """Whole clusters, as many as there are processors for, but one at least and none without a tile: more tiles than
    blocks, and fewer."""
    standing(processors)
    m, n, k = 270, 136, 144
    rows, columns, _, cluster, _ = kernels.module.int8_sm90_tiles[SM90_TILES.index(tile)]
    tiles = -(-m // (rows * cluster)) * -(-n // columns)
    a, b = integers(1, m, k), integers(2, k, n)
    kernels.module.reset_statistics()
    found = run(kernels, pitched(a), pitched(b.t()).t(), plan=sm90(kernels, tile))
    assert kernels.module.statistics()["blocks"] == min(max(processors // cluster, 1), tiles) * cluster
    assert torch.equal(found, product(a, b))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_bits_do_not_depend_on_the_number_of_processors(kernels: NativeKernels, standing: Any, direction: str) -> None:
    """Neither those of a plan that was dictated, nor of the one that is chosen."""
    case = ConvCase("", 3, 64, 10, 9, 64, 3, 3, (2, 1), (1, 1, 1, 1))
    runner = ConvRunner(kernels.module, "cpu")
    operands = floats(case, torch.bfloat16).operands(direction)
    splits = 2 if direction == "backward_weight" else 1
    tiles = "128x256 cluster", "128x128 ping-pong"
    for chosen in (*(hopper_plan(runner, tile, splits) for tile in tiles), None):
        results = []
        for processors in (1, 7, 132):
            standing(processors)
            results.append(runner.run(direction, case, Layout.NHWC, "bf16", operands, chosen))
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2]), chosen


# Grids


def empty(shape: tuple[int, ...], dtype: torch.dtype, stride: tuple[int, ...] | None = None) -> Tensor:
    """A tensor of any size that lies nowhere."""
    if stride is None:
        return torch.empty(shape, dtype=dtype, device="meta")
    return torch.empty_strided(shape, stride, dtype=dtype, device="meta")


def convolutions(kernels: NativeKernels, case: ConvCase) -> Calls:
    g = case.geometry
    for dtype, layout in itertools.product((torch.float16, torch.float32), Layout):
        x, w, y = (empty(shape, dtype) for shape in (case.input_shape, case.weight_shape, case.output_shape))
        for direction in DIRECTIONS:
            first, second = {"forward": (x, w), "backward_input": (y, w), "backward_weight": (y, x)}[direction]
            bias = (None,) * (direction == "forward")
            operands = first, second, *bias, empty(result_shape(direction, case), dtype), g, layout
            yield partial(getattr(kernels, f"conv_{direction}"), *operands, False)
            if g.groups == g.c > 1:
                yield partial(getattr(kernels, f"depthwise_conv_{direction}"), *operands)
        yield partial(kernels.conv_backward_bias, y, empty((g.k,), dtype), g, layout)
        if g.groups == g.c == g.k:
            yield from pairs(kernels, g, dtype, layout)


def pairs(kernels: NativeKernels, g: ConvGeometry, dtype: torch.dtype, layout: Layout) -> Calls:
    for filters in (8, g.k):
        x, z, y = (empty(s, dtype) for s in ((g.n, g.c, g.h, g.w), (g.n, g.k, g.p, g.q), (g.n, filters, g.p, g.q)))
        w, v = empty((g.k, 1, g.r, g.s), dtype), empty((filters, g.k, 1, 1), dtype)
        of_pair = g, layout, False, "relu", "none", 0.0
        yield partial(kernels.depthwise_separable_conv_forward, x, w, v, None, None, y, z, *of_pair)
        yield partial(kernels.depthwise_separable_conv_intermediate, x, w, None, z, g, layout)
        yield partial(
            kernels.depthwise_separable_conv_backward, y, x, w, v, None, z, z, v, g, layout, "relu", 0.0
        )  # fmt: skip


def int8_products(kernels: NativeKernels, m: int, n: int, k: int) -> Calls:
    e, c = Int8Epilogue(zero_point_a=3, zero_point_b=5), empty((m, n), torch.int32)
    packed = kernels.module.Int8GemmPlan(), kernels.module.Int8GemmPlan()
    packed[0].pack_a = packed[1].pack_a = packed[1].pack_b = True
    of_a, of_b = ((k, 1), (k + 1, 1), (1, m), (2 * k, 2)), ((n, 1), (1, k), (1, k + 1))
    for a_stride, b_stride, plan in itertools.product(of_a, of_b, (None, *packed)):
        a, b = empty((m, k), torch.uint8, a_stride), empty((k, n), torch.int8, b_stride)
        yield partial(kernels.int8_gemm, a, b, c, e, plan)
    x, w = empty((m, k), torch.float16), empty((n, k), torch.int8)
    if m <= kernels.module.int8_weight_only_linear_rows:
        yield partial(kernels.int8_weight_only_linear, x, w, empty((m, n), torch.float16), Int8Epilogue())


def int8_convolutions(kernels: NativeKernels, case: ConvCase) -> Calls:
    x, w = empty(case.input_shape, torch.uint8), empty(case.weight_shape, torch.int8)
    tensors = x, w, empty(case.output_shape, torch.int8)
    narrow, depthwise = kernels.module.Int8ConvPlan(), kernels.module.Int8ConvPlan()
    narrow.kernel, depthwise.kernel = kernels.module.Int8ConvKernel.grouped, kernels.module.Int8ConvKernel.depthwise
    for plan in (None, narrow, depthwise):
        yield partial(kernels.int8_conv, *tensors, case.geometry, Int8Epilogue(zero_point_a=3), plan)


def poolings(kernels: NativeKernels, n: int, c: int, h: int, w: int) -> Calls:
    g = PoolGeometry.of_axes(n, c, (Axis(h, 2, h - 1), Axis(w, 2, w - 1)))
    large, small = (n, c, h, w), (n, c, h - 1, w - 1)
    place, index, winner = empty(small, torch.uint8), empty(small, torch.int64), empty(large, torch.int32)
    for layout in Layout:
        for dtype in (torch.float16, torch.float32):
            x, y = empty(large, dtype), empty(small, dtype)
            yield partial(kernels.max_pool_forward, x, y, place, g, layout)
            yield partial(kernels.max_pool_backward, y, place, x, g, layout)
            yield partial(kernels.max_pool_gather, x, place, y, g, layout)
            yield partial(kernels.max_unpool_forward, y, index, winner, x, layout)
            yield partial(kernels.max_unpool_backward, x, index, y, layout)
            for bins in ((h - 1, w - 1), (1, 1)):
                of_bins = PoolGeometry.of_axes(n, c, (Axis(h, 1, bins[0]), Axis(w, 1, bins[1]))), layout
                y = empty((n, c, *bins), dtype)
                yield partial(kernels.adaptive_avg_pool_forward, x, y, *of_bins)
                yield partial(kernels.adaptive_avg_pool_backward, y, x, *of_bins)
            y = empty(small, dtype)
            yield partial(kernels.avg_pool_forward, x, y, g, layout, True, None)
            yield partial(kernels.avg_pool_backward, y, x, g, layout, True, None)
        yield partial(kernels.max_pool_indices, place, index, g, layout)
    i8 = empty(large, torch.int8), empty(small, torch.int8)
    yield partial(kernels.int8_max_pool, *i8, g)
    yield partial(kernels.int8_avg_pool, *i8, g, 0, True, None)


def quantizations(kernels: NativeKernels, *shape: int) -> Calls:
    x, q, scale = empty(shape, torch.float16), empty(shape, torch.int8), empty((shape[1],), torch.float32)
    yield partial(kernels.quantize, x, q, scale, 0)
    yield partial(kernels.quantize, x, q, scale, 0, dynamic=True)
    yield partial(kernels.dequantize, q, x, scale, 0)


MANY = 2**24 + 3  # of anything: 65,535 blocks of 256 of them are fewer
LARGE: dict[str, Callable[[NativeKernels], Calls]] = {
    "conv2d, images": lambda k: convolutions(k, ConvCase("", MANY, 8, 3, 3, 8, 3, 3)),
    "conv2d, channels": lambda k: convolutions(k, ConvCase("", 1, MANY, 3, 3, 8, 2, 2)),
    "conv2d, filters": lambda k: convolutions(k, ConvCase("", 1, 8, 3, 3, MANY, 2, 2)),
    "conv2d, rows": lambda k: convolutions(k, ConvCase("", 1, 8, MANY, 3, 8, 3, 3)),
    "conv2d, columns": lambda k: convolutions(k, ConvCase("", 1, 8, 3, MANY, 8, 3, 3)),
    "conv2d, groups": lambda k: convolutions(k, ConvCase("", 1, 8 * MANY, 3, 3, 8 * MANY, 3, 3, groups=MANY)),
    "depthwise, images": lambda k: convolutions(k, ConvCase("", MANY, 8, 3, 3, 8, 3, 3, groups=8)),
    "depthwise, channels": lambda k: convolutions(k, ConvCase("", 1, MANY, 3, 3, MANY, 3, 3, groups=MANY)),
    "depthwise, multiplier": lambda k: convolutions(k, ConvCase("", 1, 2, 3, 3, 2 * MANY, 3, 3, groups=2)),
    "depthwise, rows": lambda k: convolutions(k, ConvCase("", 1, 8, MANY, 3, 8, 3, 3, groups=8)),
    "depthwise, columns": lambda k: convolutions(k, ConvCase("", 1, 8, 3, MANY, 8, 3, 3, groups=8)),
    "int8_gemm, rows": lambda k: int8_products(k, MANY, 3, 3),
    "int8_gemm, columns": lambda k: int8_products(k, 3, MANY, 3),
    "int8_gemm, depth": lambda k: int8_products(k, 3, 3, MANY // 2),  # whose copies are allowed
    "int8_conv2d, images": lambda k: int8_convolutions(k, ConvCase("", MANY, 16, 3, 3, 8, 3, 3)),
    "int8_conv2d, filters": lambda k: int8_convolutions(k, ConvCase("", 1, 16, 3, 3, MANY, 3, 3)),
    "int8_conv2d, rows": lambda k: int8_convolutions(k, ConvCase("", 1, 16, MANY, 3, 8, 3, 3)),
    "int8 groups": lambda k: int8_convolutions(k, ConvCase("", 1, 4 * MANY, 3, 3, 4 * MANY, 3, 3, groups=MANY)),
    "int8 depthwise": lambda k: int8_convolutions(k, ConvCase("", 1, MANY, 3, 3, MANY, 3, 3, groups=MANY)),
    "int8 multiplier": lambda k: int8_convolutions(k, ConvCase("", 1, 2, 3, 3, 2 * MANY, 3, 3, groups=2)),
    "pooling, images": lambda k: poolings(k, MANY, 4, 3, 3),
    "pooling, channels": lambda k: poolings(k, 1, MANY, 3, 3),
    "pooling, rows": lambda k: poolings(k, 1, 4, MANY, 3),
    "pooling, columns": lambda k: poolings(k, 1, 4, 3, MANY),
    "quantize, groups": lambda k: quantizations(k, 1, MANY, 3),
    "quantize, outer": lambda k: quantizations(k, MANY, 3, 2),
    "quantize, inner": lambda k: quantizations(k, 2, 3, MANY),
}


@pytest.mark.parametrize("gpu", ["a100", "h200"])
@pytest.mark.parametrize("what", LARGE)
def test_every_grid_fits_its_axes(kernels: NativeKernels, what: str, gpu: str) -> None:
    """Many of anything: a launch that a GPU would not take is refused by the interpreter as well, and only a sentence
    about the problem (ValueError) may stand in its place."""
    m = kernels.module
    m.stand_for(m.gpu_named(gpu))
    m.set_recording(True)
    launches = 0
    try:
        for call in LARGE[what](kernels):
            with contextlib.suppress(ValueError):
                call()
            launches += len(m.set_recording(True))
    finally:
        m.set_recording(False)
        m.stand_for(m.gpu_named("a100"))
    assert launches > 0


def test_nothing_runs_while_launches_are_recorded(kernels: NativeKernels) -> None:
    a, b = integers(1, 3, 5), integers(2, 5, 7)
    kernels.module.set_recording(True)
    try:
        assert torch.equal(run(kernels, a, b), torch.full((3, 7), 77, dtype=torch.int32))
        ((grid, block, cluster, shared),) = kernels.module.set_recording(True)
    finally:
        kernels.module.set_recording(False)
    assert (grid, block, cluster) == ((1, 1, 1), (128, 1, 1), (1, 1, 1)) and shared > 0
    assert torch.equal(run(kernels, a, b), product(a, b))


# Limits


def raised_limits() -> Any:
    native.load("interpreter")
    return importlib.import_module("cnnkernels._interpreter_tests").RaisedLimits()


def test_a_kernels_limit_is_only_raised() -> None:
    limits, raised = raised_limits(), []
    for kernel, device, size in [(1, 0, 60), (1, 0, 50), (1, 0, 60), (1, 0, 70), (1, 0, 65), (2, 0, 50), (1, 1, 50)]:
        limits.allow(kernel, device, size, lambda at=(kernel, device, size): raised.append(at))
    assert raised == [(1, 0, 60), (1, 0, 70), (2, 0, 50), (1, 1, 50)]


def test_a_limit_that_was_refused_is_asked_for_again() -> None:
    limits, raised = raised_limits(), []

    def refuse() -> None:
        raise MemoryError("too much")

    with pytest.raises(MemoryError, match="too much"):
        limits.allow(1, 0, 60, refuse)
    limits.allow(1, 0, 60, lambda: raised.append(60))
    assert raised == [60]


# Arguments


@pytest.mark.parametrize(
    ("members", "packed"),
    [
        ("const void* x; std::int32_t h; bool c, u[3];", True),
        ("Inner x[2]; AsBits<float> f; AsBits<double> g[2]; std::int32_t unused; bool c[8];", False),
        ("Inner x[2]; AsBits<float> f; std::int32_t unused; AsBits<double> g[2]; bool c[8];", True),
        ("std::int32_t h; const void* x;", False),
        ("struct { std::int16_t s; bool c; } x[2];", False),
        ("std::int32_t h; float f;", False),  # might hide a gap elsewhere: the compiler does not say
    ],
)
def test_arguments_have_no_padding(members: str, packed: bool) -> None:
    """Its bytes would be what the stack held: a launch of the same arguments would be another. The compiler refuses."""
    source = f"""
        #include "common/launch.h"
        #include "common/as_bits.h"
        namespace cnnkernels {{
        struct Inner {{ std::int32_t a; }};
        struct Arguments {{ {members} }};
        CNN_KERNEL(32, 1) kernel(const Arguments, float, bool, const void*) {{}}
        void start(const Arguments& a) {{ launch(kernel, Launch{{1, 1}}, a, 1.0f, true, nullptr); }}
        }}"""
    command = ["c++", "-std=c++20", "-fsyntax-only", "-DCNN_INTERPRETER=1", "-Icsrc", "-xc++", "-"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent.parent, input=source, capture_output=True, text=True
    )
    assert (done.returncode == 0) == packed, done.stderr
    assert packed or "a kernel's argument has padding" in done.stderr


# Devices


def test_what_is_known_of_one_gpu_is_not_taken_for_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "cuda" is the current GPU, which changes: one too old for the kernels, then one that is not."""
    current = 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(
        torch.cuda,
        "get_device_capability",
        lambda device: [(7, 0), (9, 0)][current if device.index is None else device.index],
    )
    monkeypatch.setattr(backends, "why_missing", lambda backend, device: None)
    backends._capability.cache_clear()
    try:
        assert backends.available_backends("cuda") == ("reference",)
        current = 1
        assert backends.available_backends("cuda") == ("cuda", "triton", "reference")
    finally:
        backends._capability.cache_clear()
