"""What select.h decides for the layers of well-known networks: nothing is launched, so it runs anywhere."""

from __future__ import annotations

import itertools
import math

import pytest
from conv2d_helpers import DIRECTIONS, ELEMENTS, Machine

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import Conv2dCase

WORKSPACE_LIMIT = 256 * 2**20
TILES = [(128, 128), (64, 64), (128, 32)]


def layer(name: str, c: int, size: int, k: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1):
    pad = dilation * (kernel - 1) // 2
    return name, c, size, k, kernel, stride, pad, dilation, groups


LAYERS = [
    layer("resnet50 stem", 3, 224, 64, 7, 2),
    layer("resnet50 1x1 64 to 64", 64, 56, 64, 1),
    layer("resnet50 3x3 of 64", 64, 56, 64, 3),
    layer("resnet50 1x1 64 to 256", 64, 56, 256, 1),
    layer("resnet50 3x3 of 128 stride 2", 128, 56, 128, 3, 2),
    layer("resnet50 downsample", 256, 56, 512, 1, 2),
    layer("resnet50 3x3 of 256", 256, 14, 256, 3),
    layer("resnet50 3x3 of 512", 512, 7, 512, 3),
    layer("resnet50 1x1 512 to 2048", 512, 7, 2048, 1),
    layer("vgg16 first", 3, 224, 64, 3),
    layer("vgg16 3x3 of 512", 512, 28, 512, 3),
    layer("alexnet 5x5", 64, 27, 192, 5),
    layer("resnext50 32 groups", 128, 56, 128, 3, 1, 32),
    layer("deeplab dilation 4", 512, 64, 512, 3, 1, 1, 4),
    layer("mobilenet depthwise", 96, 112, 96, 3, 2, 96),
    layer("convnext depthwise 7x7", 96, 56, 96, 7, 1, 96),
    layer("unet last", 64, 512, 2, 1),
]


def case_of(spec: tuple, batch: int) -> Conv2dCase:
    name, c, size, k, kernel, stride, pad, dilation, groups = spec
    return Conv2dCase(name, batch, c, size, size, k, kernel, kernel, (stride,) * 2, (pad,) * 4, (dilation,) * 2, groups)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(native.load("interpreter").module, "cpu")


layers = pytest.mark.parametrize("spec", LAYERS, ids=lambda spec: spec[0].replace(" ", "-"))


@layers
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_every_layer_has_a_plan(machine: Machine, spec: tuple, batch: int) -> None:
    case = case_of(spec, batch)
    g = case.geometry
    for direction, layout, element in itertools.product(DIRECTIONS, Layout, ELEMENTS):
        plans = machine.plans(direction, case, layout, element)
        phases = min(g.stride_h, g.h) * min(g.stride_w, g.w) if direction == "backward_input" else 1
        assert len(plans) == phases
        for plan in plans:
            assert plan.engine.name == ("fma" if element in ("fp64", "fp32") else "mma")
            assert plan.tile_shape == TILES[plan.tile]
            assert not (element == "fp64" and plan.tile == 0)
            assert plan.splits >= 1 and (direction == "backward_weight" or plan.splits == 1)
            assert plan.engine.name in repr(plan) and "x".join(map(str, plan.tile_shape)) in repr(plan)


@layers
def test_whole_channels_are_copied_in_vectors(machine: Machine, spec: tuple) -> None:
    """NHWC with channels a multiple of 16 bytes never gathers single elements."""
    case = case_of(spec, 32)
    g = case.geometry
    vectors = (g.c // g.groups) % 8 == 0 and (g.k // g.groups) % 8 == 0
    for direction in DIRECTIONS:
        for plan in machine.plans(direction, case, Layout.NHWC, "bf16"):
            loaders = {plan.a.name, plan.b.name}
            if vectors:
                expected = {
                    "forward": {"along_depth"},
                    "backward_input": {"along_depth", "along_side"},
                    "backward_weight": {"along_side"},
                }[direction]
                # A phase that no tap reaches has nothing to load, so nothing to choose.
                assert loaders == expected or (direction == "backward_input" and g.r < g.stride_h)
            elif (g.c // g.groups) % 8 and direction == "forward":
                assert loaders == {"elements"}


@layers
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_the_split_fills_a_gpu_within_its_memory(machine: Machine, spec: tuple, batch: int) -> None:
    case = case_of(spec, batch)
    g = case.geometry
    weights = math.prod(case.weight_shape)
    for layout, element in itertools.product(Layout, ELEMENTS):
        (plan,) = machine.plans("backward_weight", case, layout, element)
        _, dtype, tf32 = ELEMENTS[element]
        accumulator = 8 if element == "fp64" else 4
        size = machine.module.conv2d_backward_weight_workspace(dtype, int(layout), tf32, machine.geometry(case))
        assert size == (0 if plan.splits == 1 else plan.splits * weights * accumulator)
        assert size <= WORKSPACE_LIMIT
        rows, columns = plan.tile_shape
        tall, wide = g.c // g.groups * g.r * g.s, g.k // g.groups
        blocks = math.ceil(tall / rows) * math.ceil(wide / columns) * g.groups
        long_enough = g.n * g.p * g.q >= 256 * 16 * 32
        if long_enough:
            assert blocks * plan.splits >= 256


def test_a_small_output_takes_small_tiles(machine: Machine) -> None:
    """ResNet-50's last stage at batch 1 has 49 pixels: tiles of 128 x 128 would leave most of a GPU idle."""
    (small,) = machine.plans("forward", case_of(LAYERS[7], 1), Layout.NHWC, "bf16")
    (large,) = machine.plans("forward", case_of(LAYERS[10], 64), Layout.NHWC, "bf16")
    assert small.tile_shape != (128, 128) and large.tile_shape == (128, 128)


def test_few_filters_take_narrow_tiles(machine: Machine) -> None:
    (plan,) = machine.plans("forward", case_of(LAYERS[16], 8), Layout.NHWC, "bf16")
    assert plan.tile_shape == (128, 32)


@pytest.mark.parametrize("element", list(ELEMENTS))
def test_the_bias_workspace_is_small(machine: Machine, element: str) -> None:
    for spec in LAYERS:
        case = case_of(spec, 256)
        _, dtype, _ = ELEMENTS[element]
        size = machine.module.conv2d_backward_bias_workspace(dtype, 1, machine.geometry(case))
        assert 0 < size <= 128 * case.k * 8
