"""`cnnkernels tune` with a stopwatch of the test's own: which rows a table gets, and that it refuses without a GPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnkernels.cli import explain, tune
from cnnkernels.cli import main as cli
from cnnkernels.geometry import Layout
from cnnkernels.records import tuned
from cnnkernels.testing.cases import ConvCase
from cnnkernels.tuning import plans
from cnnkernels.tuning.plans import best_plans
from cnnkernels.tuning.problem import Problem

CASE = ConvCase("", 4, 64, 14, 14, 64, 3, 3, padding=(1, 1, 1, 1))
POINTWISE = ConvCase("", 4, 64, 14, 14, 64, 1, 1)
WORKLOADS = Path(__file__).parent.parent.parent / "benchmarks" / "workloads.json"


def problem(direction: str = "forward", case: ConvCase = CASE) -> Problem:
    return Problem(direction, "bf16", Layout.NHWC, case.geometry)


class Watch:
    """Times by the plan's place: `times[i]` for the i-th plan that is asked about, 100 for the rest."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.asked: list[dict[str, Any]] = []

    def __call__(self, problem: Problem, backend: str, plan: dict[str, Any]) -> float:
        self.asked.append(plan)
        return self.times.pop(0) if self.times else 100.0


def rows(watch: Watch, *names: str, of: Problem | None = None, gpu: str = "a100") -> list[tuned.Row]:
    lines: list[str] = []
    found = best_plans([of or problem()], names, explain.machine(gpu), watch, lines.append)
    assert len(lines) == len(names)
    return found


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_the_fastest_plan_gets_a_row(name: str) -> None:
    watch = Watch(50.0, 60.0, 40.0)
    (row,) = rows(watch, name)
    assert (row.backend, row.microseconds, row.selected_microseconds) == (name, 40.0, 50.0)
    assert row.plan == watch.asked[2]
    assert row.key == tuned.key(*problem())


@pytest.mark.parametrize("times", [(40.0, 50.0, 60.0), (40.0, 39.5, 39.0), (math.inf,) * 9, (40.0, math.inf, math.inf)])
def test_no_row_where_the_models_choice_is_as_good_or_nothing_runs(times: tuple[float, ...]) -> None:
    assert rows(Watch(*times), "cuda") == []


def test_a_choice_that_fails_is_beaten_by_one_that_runs() -> None:
    (row,) = rows(Watch(math.inf, 70.0), "cuda")
    assert row.microseconds == 70.0


@pytest.mark.parametrize("direction", tuned.DIRECTIONS)
@pytest.mark.parametrize("gpu", ["a100", "h200"])
def test_every_plan_that_can_serve_is_timed_the_models_choice_first(direction: str, gpu: str) -> None:
    watch = Watch()
    best_plans([problem(direction)], ["cuda"], explain.machine(gpu), watch, lambda line: None)
    assert [plan["engine"] for plan in watch.asked].count("mma") == 3
    assert [plan["engine"] for plan in watch.asked].count("wgmma") == (10 if gpu == "h200" else 0)
    lines = list(explain.explain_cuda(problem(direction), explain.machine(gpu)))
    first = watch.asked[0]
    assert lines[0].startswith("cuda: {} {}x{}".format(first["engine"], *first["tile"]))


def test_a_row_of_triton_is_found_by_its_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pointwise convolution is launched as one of a single row: the row's geometry is that one's."""
    from cnnkernels.triton_kernels.conv import launch as conv2d
    from cnnkernels.triton_kernels.conv import select as conv_select

    (row,) = rows(Watch(50.0, 40.0), "triton", of=problem(case=POINTWISE))
    monkeypatch.setattr(tuned, "plans", lambda gpu, backend, wgmma=True: {row.key: row.plan})
    geometry = conv2d.plain(POINTWISE.geometry)._replace(n=1)
    asked = conv_select.Problem("forward", "bf16", Layout.NHWC, geometry, "NVIDIA A100", 80)
    chosen = conv_select.choose.__wrapped__(asked)
    assert [chosen.block_m, chosen.block_n, chosen.block_k] == row.plan["block"]


@pytest.mark.parametrize("direction", tuned.DIRECTIONS)
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_a_timed_launch_is_the_plans(name: str, direction: str, device: str) -> None:
    """It runs, here in the interpreter, and writes its result."""
    small = Problem(direction, "fp32", Layout.NHWC, ConvCase("", 1, 8, 4, 4, 8, 3, 3).geometry)
    plan = list(plans.PLANS[name](small, explain.machine("a100")))[-1]
    plans.launch_of(small, name, plan, device)()


def test_layers_of_a_file_come_once() -> None:
    found = tune.layers(WORKLOADS, 8, ["forward", "backward_weight"], "bf16", Layout.NHWC)
    assert len(found) == len(set(found)) == 2 * 222
    assert {p.geometry.n for p in found} == {8} and {p.direction for p in found} == {"forward", "backward_weight"}


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (ConvCase("", 2, 16, 9, 9, 16, 3, 3, groups=16), "depthwise_conv2d's kernels serve it"),
        (ConvCase("", 0, 16, 9, 9, 16, 3, 3), "input or output has no element"),
    ],
)
def test_what_has_no_plans_to_choose_from_is_named_and_not_timed(case: ConvCase, why: str) -> None:
    watch, lines = Watch(50.0, 40.0), list[str]()
    assert best_plans([problem(case=case)], ("cuda", "triton"), explain.machine("a100"), watch, lines.append) == []
    assert len(lines) == 1 and why in lines[0] and watch.asked == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to tune for")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "conv2d", "--input", "4,64,14,14", "--weight", "64,64,3,3"]) == 2
    assert "it times kernels on a GPU, and PyTorch finds none here" in capsys.readouterr().err


def test_what_must_be_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cli.main(["tune", "conv2d"]) == 2
    assert "name a convolution (--input, --weight) or a file of them (--shapes)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["tune", "conv2d", "--input", "4,64,14,14"])
    assert "--input and --weight come together" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_table_from_this_gpu(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    arguments = ["--input", "4,64,14,14", "--weight", "64,64,3,3", "--padding", "1", "--output", str(path)]
    assert cli.main(["tune", "conv2d", *arguments]) == 0
    assert tuned.load(path).gpu == torch.cuda.get_device_name()
