"""Whole networks: that they are the published ones, and that swapping their layers is measured rightly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import network_bench, run
from benchmarks.cases import workloads
from benchmarks.network_bench import Truth, layers_of, measure, table_of
from benchmarks.networks import NETWORKS, Network
from benchmarks.results import FAILED, OK, WRONG, Results
from cnnkernels.tuning.timing import ONCE
from helpers.bench import bench, one_thread, parsed  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = {nn.Conv2d: "conv2d", nn.MaxPool2d: "max_pool2d", nn.ConvTranspose2d: "conv_transpose2d"}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return NETWORKS[name].make()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet50", 25_557_032), ("mobilenet_v2", 3_504_872), ("convnext_tiny", 28_589_128), ("unet", 31_031_810)],
)
def test_parameters(name: str, parameters: int) -> None:
    """The first three as published with their ImageNet weights; U-Net's by its sum of K (C R S + 1)."""
    assert sum(p.numel() for p in on_meta(name).parameters()) == parameters
    if name == "unet":
        widths = [64, 128, 256, 512, 1024]
        down = sum(k * (c * 9 + 1) + k * (k * 9 + 1) for c, k in zip([3, *widths], widths, strict=False))
        up = sum(k * (2 * k * 4 + 1) + k * (2 * k * 9 + 1) + k * (k * 9 + 1) for k in widths[:-1])
        assert parameters == down + up + 2 * (64 + 1)
    else:
        assert NETWORKS[name].published == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_those_of_the_workloads(name: str) -> None:
    """Written apart from workloads.json, whose rows come from another implementation: the same layers in both."""
    model, seen = on_meta(name), Counter()

    def note(layer: Any, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        pairs = [
            v if isinstance(v, tuple) else (v, v)
            for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        ]
        channels = () if isinstance(layer, nn.MaxPool2d) else (layer.out_channels, layer.groups)
        seen[(LAYERS[type(layer)], *inputs[0].shape[1:], *pairs, *channels)] += 1

    for layer in model.modules():
        if type(layer) in LAYERS:
            layer.register_forward_hook(note)
    size = NETWORKS[name].size
    output = model(torch.empty(1, 3, size, size, device="meta"))
    assert output.shape == ((1, 2, size, size) if name == "unet" else (1, 1000))
    expected = Counter()
    for row in workloads()["networks"][name]["layers"]:
        pairs = [tuple(row[word]) for word in ("kernel", "stride", "padding", "dilation")]
        channels = () if row["op"] == "max_pool2d" else (row["K"], row["groups"])
        expected[(row["op"], row["C"], row["H"], row["W"], *pairs, *channels)] += row["count"]
    assert seen == expected


def little() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 5)),
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(NETWORKS, "little", Network(little, 8, 2, classes=5))
    monkeypatch.setattr(network_bench, "SMALL", (3, 8))
    return "little"


@pytest.mark.parametrize("mode", ["inference", "training"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_every_provider_is_right_and_timed(small: str, mode: str, dtype: str) -> None:
    found = list(measure(small, mode, dtype, ["torch", "cuda"], bench(), ONCE))
    assert [(one.provider, one.status) for one in found] == [("torch", OK), ("cuda", OK)]
    assert all(one.median and one.images_a_second for one in found)
    assert (found[0].swapped, found[1].swapped) == (0, 5)
    header, *lines = table_of([vars(one) for one in found])
    assert "images/s" in header and len(lines) == 2 and "1.00" in lines[0]


class Off(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 1.02


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_wrong_layers_are_seen(small: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(provider: str, model: nn.Module) -> tuple[nn.Module, int, int]:
        own, _, kept = layers_of("torch", model)
        if provider == "cuda":
            own[0].__class__ = Off
        return own, 1, kept

    monkeypatch.setattr(network_bench, "layers_of", wrong)
    told: list[str] = []
    found = list(measure(small, mode, "fp32", ["torch", "cuda"], bench(told.append), ONCE))
    assert {one.provider: one.status for one in found} == {"cuda": WRONG, "torch": OK}
    assert any(line.startswith("WRONG cuda: little") for line in told)


def test_a_failure_hides_nobody(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = network_bench.step_of

    def failing(provider: str, *rest: Any) -> Any:
        if provider == "cuda":
            raise RuntimeError("no")
        return right(provider, *rest)

    monkeypatch.setattr(network_bench, "step_of", failing)
    found = list(measure(small, "inference", "fp32", ["cuda", "torch"], bench(), ONCE))
    assert {one.provider: one.status for one in found} == {"cuda": FAILED, "torch": OK}


def test_training_changes_the_parameters_and_inference_does_not(small: str) -> None:
    network = NETWORKS[small]
    for mode, changes in (("training", True), ("inference", False)):
        model = network.make()
        before = model[0].weight.detach().clone()
        network_bench.step_of("torch", model, mode, "fp32", *network.inputs(2, 8, "cpu"))()
        assert torch.equal(before, model[0].weight) is not changes


def test_dropout_takes_no_part_in_the_comparison(small: str) -> None:
    truth = Truth(NETWORKS[small].make(), NETWORKS[small], "training", "fp32", "cpu")
    assert truth.judge("torch")[0] <= truth.judge("torch")[1]


def test_a_cut_run_goes_on(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_bench, "GROUPS", (("torch", "cuda"),))
    results = Results(tmp_path / "n.jsonl")
    instrument = replace(bench(), session=results.begin({"gpu": "G"}))
    looks = iter([False, True])
    measured, cut = network_bench.run_all([small], ["fp32"], instrument, results, lambda: next(looks))
    assert [one.mode for one in measured] == ["inference"] * 2 and cut == ["little training fp32: torch, cuda"]
    measured, cut = network_bench.run_all([small], ["fp32"], instrument, Results(results.path), lambda: False)
    assert [one.mode for one in measured] == ["training"] * 2 and not cut


def test_an_unknown_network_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(parsed("--whole", "--tiny", "--network", "alexnet")) == 2
    assert "not alexnet" in capsys.readouterr().err
