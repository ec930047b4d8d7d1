"""What `cnnkernels bench --host` measures and says; its times are the machine's own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import host, run
from cnnkernels import backends, replace_layers
from cnnkernels.testing.cases import ConvCase
from helpers.bench import one_thread, parsed  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_layer_takes_both_ways() -> None:
    found = host.calls(calls=2, rounds=1)
    ways = {(one["layer"], one["path"], one["step"]) for one in found}
    assert len(found) == len(ways) == len(host.LAYERS) * 2 * 2
    assert all(one["us"] > 0 and one["torch_us"] > 0 for one in found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the kernels are not left out")
def test_no_kernel_runs_where_kernels_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    answer = host._Idle.__getattr__

    def noting(self: host._Idle, name: str):
        calls.append(name)
        return answer(self, name)

    monkeypatch.setattr(host._Idle, "__getattr__", noting)
    layer = replace_layers(nn.Conv2d(2, 2, 3).double()).model
    x = torch.ones(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    before = backends.kernels, backends.why_missing
    with host.kernels_left_out():
        layer(x).sum().backward()
    assert {"conv_forward", "conv_backward_input", "conv_backward_weight"} <= set(calls)
    assert (backends.kernels, backends.why_missing) == before
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, layer.weight, layer.bias))  # kernels are back


def test_an_idle_module_sizes_workspaces_and_runs_nothing() -> None:
    def kernel(*arguments: object) -> None:
        raise AssertionError("a kernel ran")

    module = SimpleNamespace(conv_forward=kernel, conv_backward_weight_workspace=lambda size: size, Geometry=int)
    idle = host._Idle(module)
    assert idle.conv_forward(1, 2) is None
    assert idle.conv_backward_weight_workspace(7) == 7 and idle.Geometry is int


def test_medians_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(host.time, "process_time", lambda: now[0])
    durations = iter([0, 0, 1e-6, 5e-6, 9e-6, 5e-6, 2e-6, 5e-6])  # warm-up of both, then in turns

    def call() -> None:
        now[0] += next(durations)

    assert host.microseconds(call, call, 1, 3) == (pytest.approx(2.0), pytest.approx(5.0))


def test_the_interpreters_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "THROUGHPUT", ConvCase("tiny", 1, 2, 3, 3, 2, 1, 1))
    monkeypatch.setattr(backends, "available_backends", lambda device: ("cuda", "reference"))
    assert set(host.throughput()) == {"cuda"} and host.throughput()["cuda"] > 0


def test_imports_are_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = iter(["1.0 0.1", "9.0 0.9", "2.0 0.2"])
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: SimpleNamespace(stdout=next(outputs)))
    assert host.import_seconds(3) == {"torch": 2.0, "cnnkernels": 0.2}


def test_the_recorded_build(tmp_path: Path) -> None:
    log = tmp_path / ".ninja_log"
    log.write_text("# ninja log v6\n0\t2000\t1\ta.o\tx\n500\t1500\t1\tb.o\ty\n2000\t5000\t2\ta.o\tz\n")
    assert host.recorded_build(log) == {"steps": 2, "seconds": 4.0, "slowest": {"a.o": 3.0, "b.o": 1.0}}
    assert host.recorded_build(tmp_path / "none") == {}


def test_the_command_says_whether_goals_are_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [
        {"layer": "L", "path": "auto, CPU", "step": "forward", "us": 10.0, "torch_us": 5.0},
        {"layer": "L", "path": "to a kernel", "step": "forward", "us": 10.0, "torch_us": 5.0},
    ]
    monkeypatch.setattr(host, "calls", lambda: calls)
    monkeypatch.setattr(host, "import_seconds", lambda: {"torch": 2.0, "cnnkernels": 0.4})
    monkeypatch.setattr(host, "interpreter_throughput", lambda: {"cuda": 3e6})
    monkeypatch.setattr(host, "recorded_build", lambda: {})
    monkeypatch.setattr(host.os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    assert run.run(parsed("--host", "--output", str(tmp_path / "h.json"))) == 0
    said = capsys.readouterr().out
    assert "shared, so an upper bound" in said
    auto, kernel = (next(line for line in said.splitlines() if path in line) for path in ("auto, CPU", "to a kernel"))
    assert "2.00  missed (at most 1.1)" in auto and "met (at most 25)" in kernel
    assert "cnnkernels 0.40 s more, missed (at most 0.3)" in said and "cuda 3.0" in said
    written = json.loads((tmp_path / "h.json").read_text())
    assert written["about"]["shared"] is True and written["calls"] == calls
