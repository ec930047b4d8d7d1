"""The benchmarks' cases: that the data say what they should, and that every kind of case runs."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from benchmarks import cases, families, suite
from benchmarks.cases import Case
from benchmarks.families import FAMILIES, GemmCase, SeparableCase
from benchmarks.providers import PROVIDERS, QUICK_PROVIDERS
from benchmarks.results import MISSING, OK
from cnnkernels.cli import bench as command
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase, PoolCase
from helpers.bench import CEILINGS, SMALL, bench, conv_case, one_thread, pool_case  # noqa: F401

pytestmark = pytest.mark.long

FULL = cases.full()
QUICK = cases.quick()


def test_operations_and_bytes_by_hand() -> None:
    # 4 x 4 x 6 x 5 outputs of 3 x 3 x 3 products; x is 360 numbers, w 108, y 480
    case = conv_case()
    assert case.flops == 2 * 480 * 27
    assert case.bytes == 4 * (360 + 108 + 480)
    assert (conv_case("training").flops, conv_case("training").bytes) == (3 * case.flops, 3 * case.bytes)
    # 4 x 3 x 3 x 2 maxima, each with a byte for its place
    assert pool_case().bytes == 4 * (360 + 72) + 72
    pair = Case("depthwise_separable_conv2d", "forward", "bf16", Layout.NHWC, SeparableCase("", 2, 8, 5, 5, 6, 3, 3))
    assert pair.flops == 2 * 2 * 9 * 8 * (9 + 6)
    assert pair.bytes == 2 * (2 * 8 * 25 + 8 * 9 + 6 * 8 + 2 * 6 * 9)
    product = Case("int8_gemm", "forward", "int8", Layout.NHWC, GemmCase("", 3, 5, 7))
    assert (product.flops, product.bytes) == (2 * 3 * 5 * 7, 3 * 7 + 5 * 7 + 4 * 3 * 5)


def test_the_floor_is_the_larger_of_two_times() -> None:
    assert CEILINGS.floor(2e6, 1e5, "bf16") == pytest.approx(2.0)  # 2 us of arithmetic, 1 us of copying
    assert CEILINGS.floor(1e6, 3e5, "bf16") == pytest.approx(3.0)
    assert CEILINGS.floor(0, 3e5, "none has this rate") == pytest.approx(3.0)


def test_keys_are_unique_and_say_what_the_case_is() -> None:
    assert len({case.key for case in FULL}) == len(FULL)
    assert len({case.key for case in QUICK}) == len(QUICK)
    assert conv_case("backward_weight", "tf32", Layout.NCHW).key == "conv2d backward_weight tf32 nchw 4x3x6x5 k4 3x3 p1"
    assert pool_case("training").key == "max_pool2d training fp32 nchw 4x3x6x5 2x2 s2"


def test_every_layer_of_the_data_is_measured() -> None:
    rows = json.loads(cases.WORKLOADS.read_text())
    named = {case.shape for case in FULL}
    for network, about in rows["networks"].items():
        for row in about["layers"]:
            for n in (1, 32, 256):
                family, problem = cases.problem(row, n)
                assert FAMILIES[family].describe(problem) in named, (network, row)
    assert len(rows["networks"]["resnet50"]["layers"]) == 24
    there = Counter((case.family, case.direction, case.dtype) for case in FULL)
    expected = {(f.name, d, t) for f in FAMILIES.values() for d in f.directions for t in f.types}
    assert set(there) == expected
    assert {case.layout for case in FULL} == set(Layout)


def test_a_transposed_convolution_has_the_sizes_of_a_backward_input() -> None:
    row = {"op": "conv_transpose2d", "C": 4, "H": 5, "W": 3, "K": 6, "kernel": [3, 2], "stride": [2, 2]}
    row |= {"padding": [1, 0], "dilation": [1, 1], "groups": 1}
    family, problem = cases.problem(row, 2)
    y = torch.nn.functional.conv_transpose2d(torch.ones(2, 4, 5, 3), torch.ones(4, 6, 3, 2), stride=2, padding=(1, 0))
    assert isinstance(problem, ConvCase)
    assert (family, problem.input_shape, problem.output_shape) == (row["op"], tuple(y.shape), (2, 4, 5, 3))
    x, w = torch.ones(2, 4, 5, 3), torch.ones(4, 6, 3, 2)
    assert torch.equal(FAMILIES[family].torch(problem, x, w), y)


def test_the_corners_lie_around_two_to_the_31() -> None:
    sizes = {}
    for row in cases.workloads()["corners"]:
        _, problem = cases.problem(row, row["N"])
        assert isinstance(problem, ConvCase | PoolCase)
        sizes[row["reason"]] = torch.Size(problem.input_shape).numel()
    assert sizes["just under 2^31 elements"] < 2**31 < sizes["just over 2^31 elements"]
    assert sizes["depthwise just over 2^31 elements"] > 2**31


def test_filters() -> None:
    some = cases.full(["conv2d"], ["resnet50"], ["bf16"], [32], [Layout.NHWC], ["forward"])
    assert len(some) == 23  # resnet50's distinct convolutions
    assert all(case.key.startswith("conv2d forward bf16 nhwc 32x") for case in some)
    assert cases.full(networks=["nothing"]) == []
    assert all("vgg16" in case.networks for case in cases.full(networks=["vgg16"]))


def test_a_cut_run_has_something_of_every_family() -> None:
    for some in (FULL, QUICK):
        assert {case.family for case in some[: len(FAMILIES)]} == set(FAMILIES)
    assert len(QUICK) < 110
    assert {case.layout for case in QUICK if case.family == "depthwise_conv2d"} == set(Layout)


def test_options_name_what_there_is() -> None:
    assert set(FAMILIES) == set(command.MEASURED)
    assert set(PROVIDERS) == set(command.PROVIDERS)


def test_a_family_without_an_operator_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(families.functional, "conv2d")
    found = list(bench().measure(conv_case(), [PROVIDERS["cuda"]]))
    assert [(r.status, r.reason) for r in found] == [(MISSING, "cnnkernels.functional has no conv2d yet")]


@pytest.mark.parametrize("tiny", [cases.tiny(case) for case in QUICK[:18]], ids=lambda case: case.key)
def test_tiny_keeps_the_kind(tiny: Case) -> None:
    assert tiny.flops < 3e6 and tiny.bytes < 2e5
    assert all(extent > 0 for extent in tiny.operator.output(tiny.problem))


SMOKE = cases.smoke([*FULL, *QUICK])


def test_the_smoke_run_has_every_family_type_and_layout() -> None:
    assert {(case.family, case.direction) for case in SMOKE} == {
        (f.name, d) for f in FAMILIES.values() for d in f.directions
    }
    assert {(case.family, case.dtype) for case in SMOKE} == {(f.name, t) for f in FAMILIES.values() for t in f.types}
    assert {(case.family, case.layout) for case in SMOKE if case.operator.layouts} >= {
        ("conv2d", layout) for layout in Layout
    }


@pytest.mark.usefixtures("one_thread")
def test_every_benchmark_runs_in_small() -> None:
    """Triton's interpreter is slow: it takes part in the first of each family and direction."""
    lines: list[str] = []
    wanted = {(case.family, case.direction) for case in SMOKE}
    right = Counter()
    for case in SMOKE:
        first = (case.family, case.direction) in wanted
        wanted.discard((case.family, case.direction))
        names = [name for name in QUICK_PROVIDERS if name != "triton" or first]
        for record in bench(lines.append).measure(case, [PROVIDERS[name] for name in names]):
            assert record.status in (OK, MISSING), (record, lines)
            assert record.status is not OK or (record.median or 0) > 0
            right[record.provider] += record.status == OK
    assert right["cuda"] > 80 and right["triton"] > 5 and right["torch"] > 150, right


class NoBenchmark:
    """pytest-benchmark's fixture, as far as the suite uses it."""

    def __init__(self) -> None:
        self.group = ""
        self.extra_info: dict[str, object] = {}

    def pedantic(self, function, rounds: int, warmup_rounds: int) -> object:
        return function()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(torch.cuda.is_available(), reason="in small only without a GPU")
def test_the_small_suite_runs() -> None:
    some = suite.suite()
    assert {case.family for case in some} == set(FAMILIES)
    pooling = next(case for case in some if case.family == "max_pool2d")
    fixture = NoBenchmark()
    suite.test_speed(pooling, "cuda", fixture)
    assert fixture.group == pooling.key and fixture.extra_info["launches"] == 1
    with pytest.raises(pytest.skip.Exception):
        suite.test_speed(pooling, "int_mm", NoBenchmark())
