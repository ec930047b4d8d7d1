"""The command `cnnkernels`: what it prints, writes and returns; and that check and demo can fail."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnnkernels import backends, quantize
from cnnkernels.cli import check, demo, demo_int8
from cnnkernels.cli import main as cli
from cnnkernels.native import NativeKernels
from cnnkernels.proof import check_int8

pytestmark = pytest.mark.long

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# A machine that only runs kernels may have no more than PyTorch.
needs_demo = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("sklearn", "matplotlib", "rich")),
    reason="the demo needs scikit-learn, matplotlib and rich: `pip install cnnkernels[demo]`",
)


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m cnnkernels` as a user starts it: no interpreter asked for."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CNNKERNELS_", "TRITON_"))}
    return subprocess.run(
        [sys.executable, "-m", "cnnkernels", *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help_names_the_commands() -> None:
    result = command("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("info", "check", "demo", "bench", "explain", "tune"))


@pytest.mark.parametrize("name", ["info", "check", "demo", "bench", "explain", "tune"])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: cnnkernels {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["trian"], ["check", "--backend", "cudnn"], ["demo", "--epochs", "0"], ["demo", "--epochs", "x"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: cnnkernels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["demo", "--epochs", "x"], "must be a whole number of at least 1, but got x"),
        (["tune", "conv2d", "--batch", "-1"], "must be a whole number of at least 1, but got -1"),
        (["demo", "--output", "/no/such/folder.png"], "/no/such/folder.png cannot be written"),
        (["tune", "conv2d", "--output", "/"], "/ cannot be written"),
        (["tune", "conv2d", "--shapes", "/no/such/file"], "there is no file /no/such/file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


def test_info() -> None:
    result = command("info", CNNKERNELS_BACKEND="auto", CNNKERNELS_INTERPRET="1")
    assert result.returncode == 0, result.stderr
    assert f"torch {torch.__version__}" in result.stdout
    assert "interpreter  built for" in result.stdout
    assert re.search(r"emulated     (built for .* MiB of PTX; stands for h200|not built: .*needs nvcc)", result.stdout)
    assert "CNNKERNELS_INTERPRET=1" in result.stdout
    assert 'torch.backends.cudnn.conv.fp32_precision is "tf32", "ieee" switches that off' in result.stdout
    # conv2d in a type the kernels take, and in one they do not
    assert "cuda: the first of cuda, triton, reference that can" in result.stdout
    assert "reference: PyTorch's own operator, as no kernel can" in result.stdout


@pytest.fixture
def few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "DEPTHWISE_CONV2D", check.DEPTHWISE_CONV2D[7:9])
    monkeypatch.setattr(check, "CONV2D", check.CONV2D[7:8])
    monkeypatch.setattr(check, "DEPTHWISE_SEPARABLE_CONV2D", check.DEPTHWISE_SEPARABLE_CONV2D[1:2])
    monkeypatch.setattr(check, "MAX_POOL2D", check.MAX_POOL2D[3:4])
    monkeypatch.setattr(check, "AVG_POOL2D", [check.AVG_POOL2D[2], check.AVG_POOL2D[-2]])
    monkeypatch.setattr(check, "NORM_SIZES", check.NORM_SIZES[1:2])
    monkeypatch.setattr(check_int8, "INT8_GEMM", check_int8.INT8_GEMM[4:5])
    monkeypatch.setattr(check_int8, "INT8_CONV2D", check_int8.INT8_CONV2D[6:7])
    monkeypatch.setattr(check_int8, "INT8_POOL2D", check_int8.INT8_POOL2D[:1])


class Planted:
    """A backend's kernels, with one that leaves a mistake in its result."""

    def __init__(self, kernels: NativeKernels, name: str, output: int, size: float) -> None:
        self.kernels = kernels
        self.name = name
        self.output = output
        self.size = size

    def __getattr__(self, name: str):
        kernel = getattr(self.kernels, name)
        if name != self.name:
            return kernel

        def wrong(*arguments: object, **named: object) -> None:
            kernel(*arguments, **named)
            result = arguments[self.output]
            assert isinstance(result, torch.Tensor)
            place = torch.unravel_index(result.abs().argmax(), result.shape)
            result[place] = result[place] * (1 + self.size) if result.is_floating_point() else result[place] + 1

        return wrong


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch):
    """plant(name, output, size): from now on the kernel errs by a factor 1 + size in its largest element."""
    kernels = backends.kernels("cuda", DEVICE)

    def plant(name: str, output: int, size: float) -> None:
        monkeypatch.setattr(backends, "kernels", lambda backend, device: Planted(kernels, name, output, size))

    return plant


@pytest.mark.usefixtures("few_cases")
def test_check_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.run(["cuda"], DEVICE) == 0
    out = capsys.readouterr().out
    # four conv2d kernels and its transpose in five types but no tf32 bias, three of depthwise_conv2d in four, two of
    # the fused pair in five, ten of pooling in four, three of batch_norm in four, two of INT8 products, the weight-only
    # one in three, quantize and dequantize in four, two of INT8 pooling in two
    assert "119 of 119 right" in out and "WRONG" not in out


@pytest.mark.usefixtures("few_cases")
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("conv_forward", 3),
        ("conv_backward_input", 2),
        ("conv_backward_weight", 2),
        ("conv_backward_bias", 1),
        ("depthwise_conv_forward", 3),
        ("depthwise_conv_backward_input", 2),
        ("depthwise_conv_backward_weight", 2),
        ("depthwise_separable_conv_forward", 5),
        ("depthwise_separable_conv_intermediate", 3),
        ("max_pool_forward", 1),
        ("max_pool_indices", 1),
        ("max_pool_backward", 2),
        ("max_pool_gather", 2),
        ("max_unpool_backward", 2),
        ("avg_pool_forward", 1),
        ("avg_pool_backward", 1),
        ("adaptive_avg_pool_forward", 1),
        ("adaptive_avg_pool_backward", 1),
        ("batch_norm_statistics", 1),
        ("batch_norm_normalize", 2),
    ],
)
def test_check_finds_a_wrong_kernel(plant, capsys: pytest.CaptureFixture[str], name: str, output: int) -> None:
    plant(name, output, 0.5)
    assert check.run(["cuda"], DEVICE) == 1
    wrong = {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.endswith("WRONG")}
    with_it = {
        "conv_backward_input": {"conv_transpose_forward"},  # the same kernel
        "batch_norm_statistics": {"batch_norm_normalize", "batch_norm_backward"},  # which take the mean
    }
    assert wrong == {name} | with_it.get(name, set())


@pytest.mark.usefixtures("few_cases")
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("int8_gemm", 2),
        ("int8_conv", 2),
        ("int8_weight_only_linear", 2),
        ("quantize", 1),
        ("dequantize", 1),
        ("int8_max_pool", 1),
        ("int8_avg_pool", 1),
    ],
)
def test_check_finds_one_wrong_integer(
    plant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, output: int
) -> None:
    plant(name, output, 2**-10)
    monkeypatch.setattr(check, "measurements", check.int8_measurements)
    assert check.run(["cuda"], DEVICE) == 1
    wrong = {line.split()[1] for line in capsys.readouterr().out.splitlines() if line.endswith("WRONG")}
    assert wrong == {name}


def test_check_says_nan_is_wrong() -> None:
    truth = torch.ones(3)
    assert check.measure("k", "fp32", torch.tensor([1.0, torch.nan, 1.0]), truth, truth).ratio == torch.inf
    assert check.measure("k", "fp32", truth, truth).ratio == 0


@needs_demo
@pytest.mark.skipif(DEVICE == "cuda", reason="on a GPU no backend refuses")
def test_a_backend_that_cannot_run_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(backends, "why_not", lambda backend, problem: None if backend == "reference" else "it is away")
    assert check.run(["cuda"], DEVICE) == 2
    assert demo.run(["triton"], DEVICE, 1, 0, str(tmp_path / "demo.png")) == 2
    assert check.run(None, DEVICE) == 2
    err = capsys.readouterr().err
    assert err.count("cannot run here: it is away") == 2 and "no backend has kernels here" in err


@needs_demo
def test_demo_writes_its_picture_and_fails_below_95_percent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One epoch of a fifth of the digits is too little to learn them, but enough to compare with torch.nn."""
    few = demo.Digits(*(tensor[:256] for tensor in demo.load_digits(0, DEVICE)))
    monkeypatch.setattr(demo, "load_digits", lambda seed, device: few)
    picture = tmp_path / "demo.png"
    assert cli.main(["demo", "--epochs", "1", "--backend", "cuda", "--output", str(picture)]) == 1
    said = capsys.readouterr().out
    assert "below 95%" in said and "strays" not in said
    assert picture.read_bytes().startswith(b"\x89PNG")


@needs_demo
@pytest.mark.parametrize("size", [1e-9, float("nan")])
def test_demo_fails_where_a_backend_strays(
    plant, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: float
) -> None:
    """One tap's gradient off by a billionth, in one filter, for four steps."""
    few = demo.Digits(*(tensor[:128] for tensor in demo.load_digits(0, DEVICE)))
    monkeypatch.setattr(demo, "load_digits", lambda seed, device: few)
    monkeypatch.setattr(demo, "ENOUGH", 0.0)
    assert demo.run(["cuda"], DEVICE, 1, 0, str(tmp_path / "demo.png")) == 0
    plant("conv_backward_weight", 2, size)
    assert demo.run(["cuda"], DEVICE, 1, 0, str(tmp_path / "demo.png")) == 1
    assert "strays" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "said", "triton"),
    [("demo", None, "0"), ("demo", "1", "1"), ("demo --int8", None, "0"), ("check", None, "1")],
)
def test_without_a_gpu_the_demo_has_tritons_kernels_compiled(
    monkeypatch: pytest.MonkeyPatch, command: str, said: str | None, triton: str
) -> None:
    """It launches few of them often; `check` many of them once, which their interpreter is faster at."""
    started: list[dict[str, str]] = []

    def start(program: str, arguments: list[str], environment: dict[str, str]) -> None:
        started.append(environment)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "INTERPRETING", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "execve", start)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if said is not None:
        monkeypatch.setenv("TRITON_INTERPRET", said)
    assert cli.main(command.split()) == 130
    assert [(each["CNNKERNELS_INTERPRET"], each["TRITON_INTERPRET"]) for each in started] == [("1", triton)]


@pytest.fixture
def one_observer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_int8, "OBSERVERS", ("minmax",))


@needs_demo
@pytest.mark.usefixtures("one_observer")
def test_int8_demo_writes_its_picture_and_fails_at_a_wrong_bit(
    plant, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One score off by a millionth is seen, if not by the accuracy."""
    picture = tmp_path / "demo_int8.png"
    assert demo_int8.run(["cuda"], DEVICE, 4, 0, str(picture)) == 0
    out = capsys.readouterr().out
    assert "quantized 3, kept 0, 3.56 times smaller" in out and out.count("ok") >= 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    plant("int8_gemm", 2, 1e-6)
    assert demo_int8.run(["cuda"], DEVICE, 4, 0, str(picture)) == 1
    assert "differs" in capsys.readouterr().out


@needs_demo
@pytest.mark.usefixtures("one_observer")
def test_int8_demo_fails_where_accuracy_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(
        demo_int8, "quantize", lambda model, data, observer: quantize(model, 1e-3 * data, observer=observer)
    )
    assert cli.main(["demo", "--int8", "--backend", "cuda", "--output", str(tmp_path / "d.png")]) == 1
    assert "inaccurate" in capsys.readouterr().out


@needs_demo
@pytest.mark.gpu
def test_check_and_demo_on_the_gpu(tmp_path: Path) -> None:
    result = command("check")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "on the GPU" in result.stdout
    for switch in ([], ["--int8"]):
        result = command("demo", *switch, "--output", str(tmp_path / "demo.png"))
        assert result.returncode == 0, result.stdout + result.stderr
