"""No launch asks for more shared memory than a block of its GPU has: every layer of the benchmarks, by every operator,
direction, type and layout, on every GPU that selection knows.

The interpreter stands for the GPU. Of most launches here it checks what that would refuse, and runs nothing: so tensors
are addresses that nobody reads.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from cnnkernels.triton_kernels.common.target import gpu_of

from benchmarks.cases import problems
from benchmarks.families import GemmCase, SeparableCase
from cnnkernels import native
from cnnkernels.dtypes import dtype_code
from cnnkernels.geometry import ConvGeometry, Layout, PaddingMode, PoolGeometry, argmax_dtype
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native.int8_epilogue import native_epilogue
from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import ConvCase, PoolCase
from helpers.conv import ELEMENTS
from helpers.depthwise_separable_conv import PairRunner, pair_case, reference

MODULE: Any = native.load("interpreter").module
GPUS = {gpu.name: gpu for gpu in MODULE.gpus()}
# What the CUDA programming guide says a block may have of each compute capability.
KILOBYTES = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
MEMORY, APART = 1 << 44, 1 << 40  # where tensors would lie
FLOATS = [(dtype_code(dtype), tf32) for dtype, _, tf32 in ELEMENTS.values()]
LAYOUTS = [int(layout) for layout in Layout]


@pytest.fixture
def standing() -> Iterator[Callable[..., None]]:
    def stand(name: str, only_noted: bool = True) -> None:
        MODULE.stand_for(GPUS[name])
        MODULE.set_recording(only_noted)

    yield stand
    MODULE.set_recording(False)
    MODULE.stand_for(GPUS["a100"])


def at(number: int, offset: int = 0) -> int:
    return MEMORY + number * APART + offset


def epilogue(out: torch.dtype = torch.int8) -> Any:
    return native_epilogue(MODULE, Int8Epilogue(zero_point_a=3), out)


def conv2d(g: ConvGeometry, offset: int) -> None:
    geometry = MODULE.ConvGeometry(*g)
    for (dtype, tf32), layout in itertools.product(FLOATS, LAYOUTS):
        numbers = dtype, layout, tf32, geometry
        MODULE.conv_forward(at(0, offset), at(1), at(2), at(3), *numbers, 0, workspace=at(4))
        MODULE.conv_backward_input(at(0, offset), at(1), at(2), *numbers, 0, workspace=at(4))
        MODULE.conv_backward_weight(at(0, offset), at(1), at(2), at(4), *numbers, 0)
        if not tf32:
            MODULE.conv_backward_bias(at(0), at(1), at(4), dtype, layout, geometry, 0)
        if g.pad_h < g.h > g.pad_w and g.pad_h + g.pad_w > 0:
            reflected = dtype, layout, tf32, MODULE.ConvGeometry(*g._replace(padding_mode=PaddingMode.REFLECT))
            if not MODULE.conv_why_copy_border(MODULE.ConvDirection.forward, *reflected, at(0, offset), at(1)):
                MODULE.conv_forward(at(0, offset), at(1), at(2), at(3), *reflected, 0, workspace=at(4))


def depthwise_conv2d(g: ConvGeometry, offset: int) -> None:
    geometry = MODULE.ConvGeometry(*g)
    for (dtype, tf32), layout in itertools.product(FLOATS, LAYOUTS):
        if not tf32:
            numbers = dtype, layout, geometry, 0
            MODULE.depthwise_conv_forward(at(0, offset), at(1), at(2), at(3), *numbers)
            MODULE.depthwise_conv_backward_input(at(0, offset), at(1), at(2), *numbers)
            MODULE.depthwise_conv_backward_weight(at(0, offset), at(1), at(2), at(4), *numbers)


def pair(g: ConvGeometry, filters: int, offset: int) -> None:
    geometry, none = MODULE.ConvGeometry(*g), (0, 0, 0.0, 0)
    for (dtype, tf32), layout in itertools.product(FLOATS, LAYOUTS):
        tensors = at(0, offset), at(1), at(2), at(3), at(4), at(5)
        numbers = dtype, layout, tf32, geometry, filters, *none
        MODULE.depthwise_separable_conv_forward(*tensors, 0, *numbers)
        MODULE.depthwise_separable_conv_forward(*tensors, at(6), *numbers)
        if not tf32:
            saved = at(0, offset), at(1), at(3), at(4)
            MODULE.depthwise_separable_conv_intermediate(*saved, dtype, layout, geometry, 0)
            for kept in (0, at(6)):
                tensors = at(0), at(1, offset), at(2), at(3), at(4), kept, at(7), at(8), at(9)
                last = dtype, layout, geometry, filters, 0, 0.0, 0
                MODULE.depthwise_separable_conv_backward(*tensors, *last)


def int8_conv2d(g: ConvGeometry, offset: int) -> None:
    geometry = MODULE.ConvGeometry(*g)
    for unsigned, out in ((False, torch.int8), (True, torch.float32)):
        MODULE.int8_conv(at(0, offset), at(1), at(2), at(4), geometry, unsigned, epilogue(out), 0)


def int8_gemm(case: GemmCase, offset: int) -> None:
    m, n, k = case.m, case.n, case.k
    for a, b in itertools.product(((k, 1), (1, m)), ((1, k), (n, 1))):
        problem = (m, n, k), (at(0, offset), *a), (at(1), *b), False
        MODULE.int8_gemm(*problem, epilogue(torch.int32), at(2), at(4), 0)
    for rows in {1, min(m, 5), min(m, MODULE.int8_weight_only_linear_rows)}:
        for dtype in (torch.float32, torch.bfloat16):
            numbers = dtype_code(dtype), (rows, n, k), (k, 1, k), epilogue(dtype), 0
            MODULE.int8_weight_only_linear(at(0, offset), at(1), at(2), *numbers)


def pool2d(g: PoolGeometry, offset: int) -> None:
    geometry, places = MODULE.PoolGeometry(*g), dtype_code(argmax_dtype(g.r, g.s))
    sizes = g.n, g.c, g.p, g.q, g.h, g.w
    for (dtype, tf32), layout in itertools.product(FLOATS, LAYOUTS):
        if not tf32:
            numbers = dtype, places, layout, geometry, 0
            MODULE.max_pool_forward(at(0, offset), at(1), at(2), *numbers)
            MODULE.max_pool_backward(at(0), at(1), at(2), *numbers)
            MODULE.max_pool_gather(at(0, offset), at(1), at(2), *numbers)
            MODULE.max_pool_indices(at(0), at(1), places, layout, geometry, 0)
            MODULE.avg_pool_forward(at(0, offset), at(1), dtype, layout, geometry, True, 0, 0)
            MODULE.avg_pool_backward(at(0), at(1), dtype, layout, geometry, False, 0, 0)
            MODULE.adaptive_avg_pool_forward(at(0, offset), at(1), at(2), dtype, layout, geometry, 0)
            MODULE.adaptive_avg_pool_backward(at(0), at(1), dtype, layout, geometry, 0)
            MODULE.max_unpool_forward(at(0, offset), at(1), at(2), at(3), dtype, layout, sizes, 0)
            MODULE.max_unpool_backward(at(0, offset), at(1), at(2), dtype, layout, sizes, 0)
            for shape in ((g.n, g.c, g.h * g.w), (1, g.n * g.c * g.h, g.w), (1, 1, g.n * g.c * g.h * g.w)):
                of_type = (dtype, dtype_code(torch.int8)), shape, 0
                MODULE.quantize(at(0, offset), at(1), at(2), at(3), 1.0, 0, *of_type[0], *of_type[1:])
                MODULE.dequantize(at(1), at(0, offset), at(2), at(3), 1.0, 0, *of_type[0][::-1], *of_type[1:])
                MODULE.quantize_dynamic(at(0, offset), at(1), at(2), at(4), dtype, *of_type[1:])
    for code in map(dtype_code, (torch.int8, torch.uint8)):
        MODULE.int8_max_pool(at(0, offset), at(1), code, geometry, 0)
        MODULE.int8_avg_pool(at(0, offset), at(1), code, geometry, 3, True, 0, 0)


@functools.cache
def layers() -> tuple[Any, ...]:
    """Every distinct problem of benchmarks/workloads.json, those of networks with three batches."""
    found = {(family, repr(case)): (family, case) for _, family, case in problems((1, 32, 256))}
    return tuple(found.values())


def call(family: str, case: Any, offset: int) -> None:
    if isinstance(case, PoolCase):
        pool2d(case.geometry, offset)
    elif isinstance(case, GemmCase):
        int8_gemm(case, offset)
    elif isinstance(case, SeparableCase):
        depthwise = as_depthwise(case)
        depthwise_conv2d(depthwise, offset)
        pair(depthwise, case.k, offset)
    else:
        g = case.geometry
        int8_conv2d(g, offset)
        if family == "depthwise_conv2d":
            depthwise_conv2d(g, offset)
            pair(g, g.k // 2, offset)
        else:
            conv2d(g, offset)


def as_depthwise(case: SeparableCase) -> ConvGeometry:
    sides = tuple(pad for pad in case.padding for _ in range(2))
    return ConvCase(
        "", case.n, case.c, case.h, case.w, case.c, case.r, case.s, case.stride, sides, case.dilation, case.c
    ).geometry  # fmt: skip


def test_what_a_block_may_have(standing: Callable[..., None]) -> None:
    """The interpreter at first stands for an A100."""
    assert MODULE.schedule()["most_shared_bytes"] == 163 * 1024
    for name, gpu in GPUS.items():
        standing(name)
        most = 1024 * KILOBYTES[gpu.architecture]
        assert gpu.block_bytes == MODULE.schedule()["most_shared_bytes"] == most


def test_tritons_table_has_the_same() -> None:
    for architecture, kilobytes in KILOBYTES.items():
        assert gpu_of(architecture).shared_bytes == 1024 * kilobytes


@pytest.mark.parametrize("name", list(GPUS))
def test_every_layer_fits(standing: Callable[..., None], name: str) -> None:
    standing(name)
    for number, (family, case) in enumerate(layers()):
        call(family, case, 8 * (number % 3 == 0))  # some begin where no 16 bytes do


RESNET = ConvCase("", 32, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1)).geometry
MOBILENET = ConvCase("", 32, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1), groups=64).geometry
GROUPED = ConvCase("", 32, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1), groups=16).geometry


@pytest.mark.parametrize(
    "launch",
    [
        lambda: conv2d(RESNET, 0),
        lambda: MODULE.conv_forward(at(0), at(1), 0, at(3), 3, 1, False, MODULE.ConvGeometry(*GROUPED), 0),
        lambda: depthwise_conv2d(MOBILENET, 0),
        lambda: pair(MOBILENET, 128, 0),
        lambda: int8_conv2d(RESNET, 0),
        lambda: int8_gemm(GemmCase("", 4096, 4096, 4096), 0),
        lambda: int8_gemm(GemmCase("", 4, 4096, 4096), 0),
    ],
    ids=["conv2d", "grouped", "depthwise", "pair", "int8_conv2d", "int8_gemm", "weights"],
)
def test_the_interpreter_refuses_what_the_gpu_would(standing: Callable[..., None], launch: Callable[[], None]) -> None:
    """So the calls above do come to launches that are checked."""
    standing("a100")
    launch()
    MODULE.set_most_shared_bytes(2048)
    with pytest.raises(RuntimeError, match="bytes of dynamic shared memory, 2048 are the most"):
        launch()


def attempt(launch: Callable[[], None]) -> bool:
    """Was it launched? A plan that cannot serve must be refused before that, with the reason."""
    try:
        launch()
    except ValueError:
        return False
    return True


PAIR_PLANS = [(*numbers, f) for numbers in itertools.product(range(3), range(3), (False, True)) for f in FLOATS]


@pytest.mark.parametrize("name", list(GPUS))
def test_a_dictated_plan_that_does_not_fit_is_refused(standing: Callable[..., None], name: str) -> None:
    """Of those whose size follows from the problem: the fused pair's, and the gradient of depthwise filters."""
    standing(name)
    launched = dict.fromkeys((False, True), 0)
    readers = [getattr(MODULE.DepthwiseSeparableReader, word) for word in ("rows_of_three", "vectors", "elements")]
    tensors, none = (at(0), at(1), at(2), at(3), at(4), at(5), 0), (0, 0, 0.0, 0)
    for channels, (tile, reader, keeps, (dtype, tf32)) in itertools.product((32, 64, 256, 1024), PAIR_PLANS):
        plan = MODULE.DepthwiseSeparablePlan()
        plan.tile, plan.reader, plan.keeps = tile, readers[reader], keeps
        geometry = MODULE.ConvGeometry(*ConvCase("", 8, channels, 9, 9, channels, 3, 3, groups=channels).geometry)
        for plan.wgmma in (False, GPUS[name].architecture == 90):
            numbers = dtype, 1, tf32, geometry, 256, *none, plan
            launched[attempt(lambda numbers=numbers: MODULE.depthwise_separable_conv_forward(*tensors, *numbers))] += 1
    geometry = MODULE.ConvGeometry(*ConvCase("", 8, 2048, 9, 9, 2048, 9, 9, groups=2048).geometry)
    for (dtype, tf32), vector, lanes, workers in itertools.product(FLOATS, (1, 2, 4, 8), (1, 32, 128), (1, 2, 8, 256)):
        plan = MODULE.DepthwiseConvPlan()
        plan.vector, plan.lanes, plan.workers = vector, lanes, workers
        numbers = at(0), at(1), at(2), at(4), dtype, 1, geometry, 0, plan
        launched[attempt(lambda numbers=numbers: MODULE.depthwise_conv_backward_weight(*numbers))] += not tf32
    assert min(launched.values()) > 50


def test_a_refused_plan_says_what_it_asks_for(standing: Callable[..., None]) -> None:
    """The widest tile of tf32 takes 512 bytes more than a block of an RTX has."""
    standing("rtx4090")
    plan, sums = MODULE.DepthwiseSeparablePlan(), MODULE.DepthwiseConvPlan()
    plan.tile, plan.reader = 2, MODULE.DepthwiseSeparableReader.vectors
    numbers = 1, 1, True, MODULE.ConvGeometry(*MOBILENET), 128, 0, 0, 0.0, 0, plan
    with pytest.raises(ValueError, match="takes 101888 bytes of shared memory, and this GPU gives one 101376"):
        MODULE.depthwise_separable_conv_forward(at(0), at(1), at(2), at(3), at(4), at(5), 0, *numbers)
    geometry = MODULE.ConvGeometry(*ConvCase("", 8, 2048, 9, 9, 2048, 9, 9, groups=2048).geometry)
    sums.vector, sums.lanes, sums.workers = 8, 128, 2
    with pytest.raises(ValueError, match="sums take more than 96 KB"):
        MODULE.depthwise_conv_backward_weight(at(0), at(1), at(2), at(4), 3, 1, geometry, 0, sums)


@pytest.mark.parametrize("name", ["rtx3090", "rtx4090", "rtx5090"])
@pytest.mark.parametrize(("channels", "size", "filters"), [(64, 56, 128), (128, 28, 256), (144, 56, 144)])
def test_mobilenets_pairs_run_in_tf32(
    standing: Callable[..., None], name: str, channels: int, size: int, filters: int
) -> None:
    """By the plan of the whole layer, on a corner of it."""
    standing(name, only_noted=False)
    runner, same = PairRunner(), {"padding": (1, 1, 1, 1)}
    layer = MODULE.ConvGeometry(*pair_case(32, channels, size, size, filters, **same).geometry)
    plan = MODULE.depthwise_separable_conv_plan(1, 1, True, layer, filters, GPUS[name])
    case = pair_case(1, channels, 5, 7, filters, **same)
    tensors = operands(case)
    y, z = reference(case, ("none", "none"), *tensors)
    ours = runner.run(case, Layout.NHWC, "tf32", tensors, plan)
    assert torch.equal(ours[0], y.to(ours[0].dtype)) and torch.equal(ours[1], z.to(ours[1].dtype))


def test_static_arrays_count(interpreter: Any) -> None:
    """As they lie before what is dynamic, at a multiple of 1 KB: 512 bytes of them take 1024."""
    interpreter.set_most_shared_bytes(8192)
    try:
        interpreter.run("static_beside_dynamic_test", 8192 - 1024)
        with pytest.raises(interpreter.KernelFault, match="of 8193 bytes with 'tile'; 8192 are the most"):
            interpreter.run("static_beside_dynamic_test", 8192 - 1023)
        with pytest.raises(RuntimeError, match="8193 bytes of dynamic shared memory, 8192 are the most"):
            interpreter.run("static_beside_dynamic_test", 8193)
    finally:
        interpreter.set_most_shared_bytes(1024 * max(KILOBYTES.values()))
