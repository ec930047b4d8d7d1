"""What select.h decides for the layers of well-known networks, and why: nothing is launched, so it runs anywhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor

from cnnkernels import native
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from helpers.conv import DIRECTIONS, ELEMENTS, ConvRunner, integers, torch_alloc
from helpers.conv_select import GPUS, WORKLOADS, WORKSPACE_LIMIT, explain, workload_cases

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


def case_of(spec: tuple, batch: int) -> ConvCase:
    name, c, size, k, kernel, stride, pad, dilation, groups = spec
    return ConvCase(name, batch, c, size, size, k, kernel, kernel, (stride,) * 2, (pad,) * 4, (dilation,) * 2, groups)


@pytest.fixture(scope="module")
def runner() -> ConvRunner:
    return ConvRunner(native.load("interpreter").module, "cpu")


layers = pytest.mark.parametrize("spec", LAYERS, ids=lambda spec: spec[0].replace(" ", "-"))


@layers
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_every_layer_has_a_plan(runner: ConvRunner, spec: tuple, batch: int) -> None:
    case = case_of(spec, batch)
    g = case.geometry
    for direction, layout, element in itertools.product(DIRECTIONS, Layout, ELEMENTS):
        plans = runner.plans(direction, case, layout, element)
        if plans[0].engine.name == "grouped":
            assert 1 < g.groups < g.c and layout is Layout.NHWC and element in ("fp16", "bf16")
            assert plans[0].splits >= 1 and len(plans) == 1
            continue
        phases = min(g.stride_h, g.h) * min(g.stride_w, g.w) if direction == "backward_input" else 1
        assert len(plans) == phases
        for plan in plans:
            assert plan.engine.name == ("fma" if element in ("fp64", "fp32") else "mma")
            assert plan.tile_shape == TILES[plan.tile]
            assert not (element == "fp64" and plan.tile == 0)
            assert plan.splits >= 1 and (direction == "backward_weight" or plan.splits == 1)
            assert plan.engine.name in repr(plan) and "x".join(map(str, plan.tile_shape)) in repr(plan)


@layers
def test_whole_channels_are_copied_in_vectors(runner: ConvRunner, spec: tuple) -> None:
    """NHWC with channels a multiple of 16 bytes never gathers single elements."""
    case = case_of(spec, 32)
    g = case.geometry
    vectors = (g.c // g.groups) % 8 == 0 and (g.k // g.groups) % 8 == 0
    for direction in DIRECTIONS:
        for plan in runner.plans(direction, case, Layout.NHWC, "bf16"):
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
                assert loaders == ({"elements"} if plan.packing.name == "none" else {"along_depth"})


@layers
@pytest.mark.parametrize("batch", [1, 32, 256])
def test_the_split_fills_a_gpu_within_its_memory(runner: ConvRunner, spec: tuple, batch: int) -> None:
    case = case_of(spec, batch)
    g = case.geometry
    weights = math.prod(case.weight_shape)
    for layout, element in itertools.product(Layout, ELEMENTS):
        (plan,) = runner.plans("backward_weight", case, layout, element)
        _, dtype, tf32 = ELEMENTS[element]
        accumulator = 8 if element == "fp64" else 4
        kind, packed = (dtype, int(layout), tf32), plan.packing.name != "none"
        size = runner.workspace_bytes("backward_weight", kind, runner.geometry(case), None)
        parts = 0 if plan.splits == 1 else plan.splits * weights * accumulator
        assert parts <= WORKSPACE_LIMIT
        if plan.engine.name == "grouped":  # unaligned tensors go to another engine, whose parts may be more
            assert parts <= size <= 2 * WORKSPACE_LIMIT
            continue
        assert parts < size <= 2 * WORKSPACE_LIMIT if packed else size == parts
        rows, columns = plan.tile_shape
        tall, wide = g.c // g.groups * g.r * g.s, g.k // g.groups
        blocks = math.ceil(tall / rows) * math.ceil(wide / columns) * g.groups
        long_enough = g.n * g.p * g.q >= 256 * 16 * 32
        if long_enough and not packed:
            assert blocks * plan.splits >= 256


def test_a_small_output_takes_small_tiles(runner: ConvRunner) -> None:
    """ResNet-50's last stage at batch 1 has 49 pixels: tiles of 128 x 128 would leave most of a GPU idle."""
    (small,) = runner.plans("forward", case_of(LAYERS[7], 1), Layout.NHWC, "bf16")
    (large,) = runner.plans("forward", case_of(LAYERS[10], 64), Layout.NHWC, "bf16")
    assert small.tile_shape != (128, 128) and large.tile_shape == (128, 128)


def test_few_filters_take_narrow_tiles(runner: ConvRunner) -> None:
    (plan,) = runner.plans("forward", case_of(LAYERS[16], 8), Layout.NHWC, "bf16")
    assert plan.tile_shape == (128, 32)


@pytest.mark.parametrize("element", list(ELEMENTS))
def test_the_bias_workspace_is_small(runner: ConvRunner, element: str) -> None:
    for spec in LAYERS:
        case = case_of(spec, 256)
        _, dtype, _ = ELEMENTS[element]
        size = runner.module.conv_backward_bias_workspace(dtype, 1, runner.geometry(case))
        assert 0 < size <= 512 * case.k * 8


SHORT_RUNS = {
    "a cluster shares stages whose 128 bytes are of one tap",
    "its stages hold 128 bytes of one tap, and with so few channels several taps share one",
}


NETWORKS = [network for network in WORKLOADS if workload_cases(network)]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_layer_of_the_workloads(runner: ConvRunner, network: str) -> None:
    """The cheapest of those that can serve is chosen; those that cannot say why; the split is the same everywhere."""
    for case in workload_cases(network):
        shapes = (case.output_shape, case.input_shape, case.weight_shape)
        outputs = dict(zip(DIRECTIONS, map(math.prod, shapes), strict=True))
        for direction, layout, element in itertools.product(DIRECTIONS, Layout, ["fp64", "fp32", "bf16"]):
            splits: dict[str, set[int]] = {}
            for gpu in GPUS:
                found = explain(runner, direction, case, layout, element, gpu)
                made, packed = sum(part.rows * part.columns * part.groups for part in found.parts), found.packing.name
                assert made == outputs[direction] if packed == "none" else made >= outputs[direction]
                for part in found.parts:
                    able = [c for c in part.candidates if c.why_not is None]
                    assert {c.plan.engine.name for c in able} == {"mma" if element == "bf16" else "fma"}
                    assert len(able) == (2 if element == "fp64" else 3)
                    check_choice(able, part.candidates[part.chosen])
                    splits.setdefault(packed, set()).update(c.plan.splits for c in able)
                assert bool(found.why_not_wgmma) == (not found.wgmma)
                assert (found.chosen_grouped < 0) == (not found.grouped) == bool(found.why_not_grouped)
                if found.grouped:
                    assert element == "bf16" and (layout is Layout.NHWC or packed != "none") and found.chosen_wgmma < 0
                    able = [c for c in found.grouped if c.why_not is None]
                    check_choice(able, found.grouped[found.chosen_grouped])
                    continue
                assert (found.chosen_wgmma < 0) == (not found.wgmma)
                if found.wgmma:
                    assert gpu == "h200" and element == "bf16" and (layout is Layout.NHWC or packed != "none")
                    able = [c for c in found.wgmma if c.why_not is None]
                    assert {c.why_not for c in found.wgmma} <= {None, *SHORT_RUNS}
                    check_choice(able, found.wgmma[found.chosen_wgmma])
            assert direction != "backward_weight" or all(len(each) == 1 for each in splits.values())


def check_choice(able: list[Any], chosen: Any) -> None:
    assert chosen.why_not is None
    assert chosen.cost.seconds == min(c.cost.seconds for c in able)
    for candidate in able:
        assert 0 <= candidate.cost.useful <= 1 and candidate.cost.seconds >= candidate.cost.memory > 0


def test_the_model_counts_tiles_waves_padding_and_bytes(runner: ConvRunner) -> None:
    """By hand: 3x3, 64 to 48 filters at 56, batch 32, in tiles of 128 x 128 on 132 SMs of one block each."""
    case = ConvCase("", 32, 64, 56, 56, 48, 3, 3, padding=(1, 1, 1, 1))
    (found,) = explain(runner, "forward", case, Layout.NHWC, "tf32", "h200").parts
    cost = found.candidates[0].cost
    assert found.candidates[0].plan.tile_shape == (128, 128)
    pixels = 32 * 56 * 56
    assert (found.rows, found.columns, found.depth) == (pixels, 48, 64 * 9)
    assert cost.tiles == pixels / 128
    assert cost.waves == cost.tiles / 132
    assert cost.useful == 48 / 128
    assert cost.memory == pytest.approx(4 * (pixels * 64 + 48 * 64 * 9 + pixels * 48) / (0.9 * 4.8e12))
    turns = math.ceil(cost.tiles / 132)
    assert cost.filling == pytest.approx(turns * 0.7e-6)
    stages = 64 * 9 / 16
    assert cost.operands == pytest.approx(turns * stages * (128 + 128) * 64 / (5.5e12 / 132))
    multiply = turns * stages * 128 * 128 * 16 / (0.62 * 495e12 / 2 / 132)
    # 8 warps read 64 rows and 32 columns of 64 bytes, 256 rows and columns are copied, places are looked up
    shared = turns * stages * (8 * (64 + 32) * 64 / 128 + (128 + 128) * 64 / 128 + 136) / 1.83e9
    assert (cost.limit, cost.arithmetic) == ("shared", pytest.approx(shared)) and shared > multiply
    assert cost.seconds >= max(cost.memory, cost.arithmetic, cost.operands) + cost.filling


def test_few_blocks_have_more_of_l2_each(runner: ConvRunner) -> None:
    """No more than 64 bytes a clock: 512 channels at 7 x 7, batch 1, are 8 tiles of 64 x 64 on 108 SMs."""
    case = ConvCase("", 1, 512, 7, 7, 512, 3, 3, padding=(1, 1, 1, 1))
    (found,) = explain(runner, "forward", case, Layout.NHWC, "bf16", "a100").parts
    (cost,) = [c.cost for c in found.candidates if c.plan.engine.name == "mma" and c.plan.tile_shape == (64, 64)]
    assert cost.tiles == 8
    assert cost.operands == pytest.approx(9 * 512 / 32 * (64 + 64) * 64 / (64 * 1.41e9))


def test_where_no_other_warp_hides_them_instructions_add_up(runner: ConvRunner) -> None:
    """One block of 4 warps on an SM: 128 x 128, batch 1, of which 1,131 - 256 instructions a stage are no products."""
    case = ConvCase("", 1, 512, 14, 14, 128, 3, 3, padding=(1, 1, 1, 1))
    (found,) = explain(runner, "forward", case, Layout.NHWC, "bf16", "a100").parts
    (cost,) = [c.cost for c in found.candidates if c.plan.engine.name == "mma" and c.plan.tile_shape == (128, 128)]
    multiply = 128 * 128 * 32 / (0.9 * 312e12 / 2 / 108)
    assert cost.tiles == 2
    assert cost.arithmetic == pytest.approx(9 * 512 / 32 * (multiply + (1131 - 256) / 4 / 1.41e9))


def test_a_cluster_brings_its_columns_once(runner: ConvRunner) -> None:
    """By hand: 3x3, 512 to 512 at 28, batch 31: 190 row tiles of 128, so 95 pairs, each of two columns of 256."""
    case = ConvCase("", 31, 512, 28, 28, 512, 3, 3, padding=(1, 1, 1, 1))
    found = explain(runner, "forward", case, Layout.NHWC, "bf16", "h200")
    costs = {c.plan.tile_shape: c.cost for c in found.wgmma}
    alone, together = costs[128, 256], costs[128, 256, 1, 2]
    assert alone.tiles == together.tiles == 2 * 190 and together.waves == 2 * 190 / 132
    stages, turns, l2 = 9 * 512 / 64, 3, 5.5e12 / 132
    assert alone.operands == pytest.approx(turns * stages * (128 + 256) * 128 / l2)
    assert together.operands == pytest.approx(turns * stages * (128 + 128) * 128 / l2)
    assert together.arithmetic == alone.arithmetic < together.operands < alone.operands
    assert found.wgmma[found.chosen_wgmma].plan.tile_shape == (128, 256, 1, 2)

    odd = explain(runner, "forward", replace(case, n=1), Layout.NHWC, "bf16", "h200")  # 7 row tiles are 4 pairs
    assert {c.plan.tile_shape: c.cost.tiles for c in odd.wgmma}[128, 256, 1, 2] == 2 * 8
    narrow = explain(runner, "forward", replace(case, c=72), Layout.NHWC, "bf16", "h200").wgmma
    assert [c.plan.tile_shape for c in narrow if (c.why_not or "").startswith("a cluster")] == [
        (128, 256, 1, 2),
        (256, 128, 1, 2),
    ]


def test_a_faster_machine_is_not_slower(runner: ConvRunner) -> None:
    for network, direction in itertools.product(["resnet50", "mobilenet_v2"], DIRECTIONS):
        for case in workload_cases(network):
            seconds = []
            for gpu in ("h100", "h200"):
                found = explain(runner, direction, case, Layout.NHWC, "bf16", gpu)
                chosen = [found.wgmma[found.chosen_wgmma]] if found.wgmma else []
                chosen = chosen or [part.candidates[part.chosen] for part in found.parts]
                seconds.append(sum(c.cost.seconds for c in chosen))
            assert seconds[1] <= seconds[0]


def test_loaders_say_why_they_cannot(runner: ConvRunner) -> None:
    stem = case_of(LAYERS[0], 8)
    (found,) = explain(runner, "forward", stem, Layout.NHWC, "fp32", "h200").parts
    reasons = {loader.name: why for loader, why in found.a}
    assert reasons["elements"] is None and "no 16 bytes run along the reduction" in reasons["along_depth"]
    assert found.candidates[found.chosen].plan.a.name == "elements"


@pytest.mark.parametrize("gpu", ["a100", "h200"])
def test_a_tuned_plan_goes_before_the_model_where_it_can_serve(runner: ConvRunner, gpu: str) -> None:
    case = case_of(LAYERS[2], 32)

    def chosen(tuned: Any = None) -> tuple[bool, Any]:
        found = explain(runner, "forward", case, Layout.NHWC, "bf16", gpu, tuned)
        if found.chosen_wgmma >= 0:
            return found.tuned, found.wgmma[found.chosen_wgmma].plan
        (part,) = found.parts
        return found.tuned, part.candidates[part.chosen].plan

    able, unable = (runner.plan("bf16", 2, loader, "along_depth") for loader in ("along_depth", "along_side"))
    of_hopper = runner.plan("bf16", 6, "elements", "elements")
    of_hopper.engine = runner.module.ConvEngine.wgmma
    tuned, model = chosen()
    assert not tuned and model not in (able, of_hopper)
    assert chosen(able) == (True, able)
    assert chosen(unable) == (False, model)
    assert chosen(of_hopper) == ((True, of_hopper) if gpu == "h200" else (False, model))


def test_a_preference_that_cannot_serve_gives_way_at_the_launch(runner: ConvRunner) -> None:
    case = ConvCase("", 1, 3, 5, 5, 4, 3, 3)
    data = integers(case)
    plan = runner.plan("fp32", 1, "along_depth", "along_depth")
    plan.binding = False
    result = runner.run("forward", case, Layout.NHWC, "fp32", data.operands("forward"), plan)
    assert (result == data.expected("forward", case)).all()
    plan.binding = True
    with pytest.raises(ValueError, match="A is not contiguous"):
        runner.run("forward", case, Layout.NHWC, "fp32", data.operands("forward"), plan)


def test_machines(runner: ConvRunner) -> None:
    m = runner.module
    assert [gpu.name for gpu in m.gpus()] == ["a100", "rtx3090", "rtx4090", "h100", "h200", "rtx5090"]
    assert m.gpu_like("NVIDIA H200", 90, 132).name == "h200"
    slice_of_one = m.gpu_like("NVIDIA H200 MIG 1g.18gb", 90, 16)
    assert slice_of_one.processors == 16 and slice_of_one.tensor16 == pytest.approx(989e12 * 16 / 132)
    assert slice_of_one.memory < m.gpu_named("h200").memory
    ada = m.gpu_like("NVIDIA L40S", 89, 142)
    assert (ada.name, ada.architecture, ada.processors) == ("rtx4090", 89, 142)
    assert m.gpu_like("NVIDIA T1000", 75, 14).name == "a100"
    with pytest.raises(ValueError, match=r"no GPU is called 'v100' here, only a100, .*h200"):
        m.gpu_named("v100")


@pytest.fixture
def hopper(runner: ConvRunner) -> Iterator[ConvRunner]:
    """The interpreter standing for an H200."""
    m = runner.module
    m.stand_for(m.gpu_named("h200"))
    yield runner
    m.stand_for(m.gpu_named("a100"))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_on_hopper_its_kernel_serves_without_being_asked(hopper: ConvRunner, direction: str) -> None:
    """And tensors that TMA cannot read are served by the other engine, in the workspace that was made."""
    case = ConvCase("", 6, 16, 21, 20, 24, 3, 3, (2, 1), (1, 1, 1, 1))
    data = integers(case)
    (plan,) = hopper.plans(direction, case, Layout.NHWC, "bf16")
    assert plan.engine.name == "wgmma" and (plan.splits > 1) == (direction == "backward_weight")

    def shifted(flat: Tensor) -> Tensor:
        memory = flat.new_empty(flat.numel() + 8 // flat.element_size())
        return memory[8 // flat.element_size() :].copy_(flat)

    for place in (torch_alloc, shifted):
        result = hopper.run(direction, case, Layout.NHWC, "bf16", data.operands(direction), place=place)
        assert (result == data.expected(direction, case)).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_every_hopper_cuts_a_reduction_alike(runner: ConvRunner, network: str) -> None:
    """The bits of backward_weight depend on its parts, so they are one GPU's choice, within the workspace limit."""
    for case in workload_cases(network):
        plans = []
        for gpu in ("h100", "h200"):
            found = explain(runner, "backward_weight", case, Layout.NHWC, "bf16", gpu)
            plans += [found.wgmma[found.chosen_wgmma].plan] if found.wgmma else [None]
            splits = [c.plan.splits for c in found.wgmma if c.why_not is None and c.plan.splits > 1]
            sizes = [n * math.prod(case.weight_shape) * 4 for n in splits]
            assert max(sizes, default=0) <= WORKSPACE_LIMIT
        assert plans[0] == plans[1]


def test_on_hopper_the_engine_is_a_function_of_the_layer(runner: ConvRunner) -> None:
    """Whatever the batch: engines add in steps of different length."""
    for network in NETWORKS:
        for case in workload_cases(network):
            for direction in ("forward", "backward_input"):
                served = {
                    bool(explain(runner, direction, replace(case, n=n), Layout.NHWC, "bf16", "h200").wgmma)
                    for n in (1, 7, 256)
                }
                assert len(served) == 1
