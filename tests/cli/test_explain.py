"""`cnnkernels explain`: sizes, work, floor, candidates, choice and reasons of several problems."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from cnnkernels.triton_kernels.depthwise_conv import select

from cnnkernels.cli import explain
from cnnkernels.cli import main as cli
from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.records import tuned
from cnnkernels.testing.cases import ConvCase
from cnnkernels.tuning.problem import Problem, depthwise_problem, floor, host_module

CASE = ConvCase("", 32, 64, 56, 56, 64, 3, 3, padding=(1, 1, 1, 1))


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["explain", "conv2d", *arguments]) == 0
    return capsys.readouterr().out


def test_the_documented_call(capsys: pytest.CaptureFixture[str]) -> None:
    text = explained(
        capsys, "--input", "32,64,56,56", "--weight", "64,64,3,3", "--padding", "1", "--dtype", "bf16", "--gpu", "h200"
    )
    assert "conv2d forward, bf16, nhwc, on h200 (compute capability 9.0, 132 SMs)" in text
    assert "output [32, 64, 56, 56]" in text
    assert "7.40 GFLOP on 25.8 MB" in text  # 2 32 56 56 64 64 9; 2 (32 56 56 (64 + 64) + 64 64 9)
    assert "floor 9.4 us: arithmetic 9.4 us at 791.2 TFLOP/s, memory 6.0 us at 4.32 TB/s (assumed: 80% and 90%" in text
    (chosen,) = [line for line in text.splitlines() if line.startswith("  * wgmma")]
    assert "cuda: " + chosen.split()[1] in text and "the least time by the model" in text
    assert chosen.endswith("  L2")  # the bound: the same rows are brought once for each of nine taps
    assert "implicit GEMM 0: 100352 x 64 outputs, depth 576, groups 1 (wgmma goes before it)" in text
    assert "not fma 128x128, fma 64x64, fma 128x32: fma is for float64 and exact float32" in text
    assert text.count("triton: dot ") == 1 and text.count("  * dot ") == 1


def test_phases_loaders_and_another_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    text = explained(
        capsys, "--input", "8,3,224,224", "--weight", "64,3,7,7", "--padding", "3", "--stride", "2", "--layout", "nchw",
        "--direction", "backward_input", "--gpu", "a100", "--backend", "cuda", "--dtype", "fp32",
    )  # fmt: skip
    assert "stride (2, 2), padding before (3, 3)" in text
    assert "not wgmma: wgmma and TMA's im2col are of compute capability 9.0 alone" in text
    assert "in 4 launches" in text and "implicit GEMM 2: as 1" in text
    assert "A is loaded one element at a time; not along depth: no 16 bytes run along the reduction" in text
    assert "not mma 128x128, mma 64x64, mma 128x32: mma is for float16, bfloat16 and tf32" in text
    assert "triton" not in text


def test_the_bound_is_what_takes_longest() -> None:
    def bound(limit: str, *seconds: float) -> str:
        names = ("arithmetic", "operands", "filling", "writing", "memory")
        return explain.bound(SimpleNamespace(limit=limit, **dict(zip(names, seconds, strict=True))))

    assert bound("tensor", 5, 4, 2, 2, 4) == "tensor" and bound("shared", 5, 4, 2, 2, 4) == "shared"
    assert bound("issue", 5, 6, 2, 2, 4) == "L2" and bound("issue", 5, 4, 2, 2, 6) == "DRAM"
    assert bound("tensor", 3, 3, 2, 2, 3) == "latency"


def test_why_hoppers_kernel_does_not_serve(capsys: pytest.CaptureFixture[str]) -> None:
    text = explained(capsys, "--input", "8,3,16,16", "--weight", "64,3,3,3", "--gpu", "h200", "--backend", "cuda")
    assert "not wgmma: a group's 3 input and 64 output channels are not both multiples of 16 bytes" in text


@pytest.mark.parametrize(
    ("filters", "gpu", "line"),
    [
        (64, "h200", "cuda: the border is read through the index\ncuda: mma"),
        (
            256,
            "h200",
            "cuda: the border is copied first: Hopper's kernel, whose TMA pads with zeros alone, makes",
        ),
        (256, "a100", "cuda: the border is read through the index\ncuda: mma"),
    ],
)
def test_a_border(capsys: pytest.CaptureFixture[str], filters: int, gpu: str, line: str) -> None:
    case = ("--input", "32,64,56,56", "--weight", f"{filters},64,3,3", "--padding", "1", "--gpu", gpu)
    text = explained(capsys, *case, "--padding-mode", "reflect")
    assert "padding before (1, 1) (reflect), dilation" in text
    assert line in text and ("cuda: wgmma" in text) == ("copied" in line)
    assert "triton: the border is read through the index\ntriton: dot" in text
    back = explained(capsys, *case, "--padding-mode", "circular", "--direction", "backward_input")
    assert back.count("its border is folded back after the gradient of the padded image") == 2


@pytest.mark.parametrize("direction", tuned.DIRECTIONS)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_a_depthwise_convolution_shows_the_plan_that_serves(
    capsys: pytest.CaptureFixture[str], direction: str, layout: str
) -> None:
    """Both backends' own, and nothing of conv2d's engines, which serve no such layer."""
    case = ConvCase("", 2, 16, 9, 8, 32, 5, 5, padding=(2, 2, 2, 2), groups=16)
    sizes = ("--input", "2,16,9,8", "--weight", "32,1,5,5", "--padding", "2", "--groups", "16", "--gpu", "h200")
    text = explained(capsys, *sizes, "--direction", direction, "--layout", layout)
    module = host_module()
    numbers = 3, int(Layout[layout.upper()]), module.ConvGeometry(*case.geometry)
    plan = module.depthwise_conv_plan(getattr(module.DepthwiseConvDirection, direction), *numbers)
    assert f"cuda: depthwise_conv2d's kernels serve a filter a channel, with the plan '{plan!r}'" in text
    problem = Problem(direction, "bf16", Layout[layout.upper()], case.geometry)
    configuration, _ = select.choose(depthwise_problem(problem, 90))
    assert f"triton: depthwise_conv2d's kernels serve a filter a channel, with the plan '{configuration}'" in text
    assert "*" not in text and "mma" not in text and "implicit GEMM" not in text


def test_a_depthwise_convolution_that_tritons_own_kernels_do_not_serve(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--input", "2,16,30,30", "--weight", "16,1,3,3", "--stride", "7", "--groups", "16", "--gpu", "h200")
    text = explained(capsys, *sizes, "--direction", "backward_input", "--backend", "triton")
    assert "triton: no patch of depthwise_conv2d's kernels can serve, so conv2d's do\ntriton: elementwise" in text


@pytest.mark.parametrize("direction", tuned.DIRECTIONS)
def test_an_empty_batch_has_no_kernel(capsys: pytest.CaptureFixture[str], direction: str) -> None:
    text = explained(capsys, "--input", "0,8,9,9", "--weight", "8,8,3,3", "--direction", direction, "--gpu", "h200")
    assert "no kernel: input or output has no element" in text and "nan" not in text
    assert "cuda" not in text and "triton" not in text


@pytest.mark.parametrize(
    ("word", "padding", "output"), [("same", (0, 2), [2, 8, 9, 7]), ("valid", (0, 0), [2, 8, 8, 3])]
)
def test_paddings_words(
    capsys: pytest.CaptureFixture[str], word: str, padding: tuple[int, int], output: list[int]
) -> None:
    """As the function's: of an even filter `same` pads less before than after."""
    sizes = ("--input", "2,8,9,7", "--weight", "8,8,2,3", "--dilation", "1,2", "--gpu", "h200")
    text = explained(capsys, *sizes, "--padding", word)
    assert f"output {output}" in text and f"padding before {padding}" in text


@pytest.mark.parametrize("name", ["RTX4090", "RTX 4090", "rtx-4090", "Rtx_4090"])
def test_a_gpus_name_in_any_spelling(name: str) -> None:
    assert explain.machine(name).name == "rtx4090"


def test_several_directions(capsys: pytest.CaptureFixture[str]) -> None:
    directions = [argument for name in tuned.DIRECTIONS for argument in ("--direction", name)]
    text = explained(capsys, "--input", "2,8,9,9", "--weight", "8,8,3,3", "--stride", "2,1", *directions)
    for name in tuned.DIRECTIONS:
        assert text.count(f"conv2d {name}, bf16") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "2,8,9", "--weight", "8,8,3,3"], "must be 4 numbers, but got 2,8,9"),
        (["--input", "2,8,9,9", "--weight", "8,4,3,3"], r"expected input\[2, 8, 9, 9\] to have 4 channels"),
        (["--input", "2,8,2,9", "--weight", "8,8,3,3"], "Kernel size can't be greater than actual input size"),
        (["--input", "2,8,9,9", "--weight", "8,8,3,3", "--gpu", "V100"], "no GPU is called 'V100' here, only a100"),
        (["--input", "2,8,9,9", "--weight", "8,8,3,3", "--padding", "some"], "argument --padding: invalid"),
        (
            ["--input", "2,8,9,9", "--weight", "8,8,3,3", "--padding", "same", "--stride", "2"],
            r"padding='same' is not supported for strided convolutions, but got stride=\(2, 2\)",
        ),
        (["--input", "2,8,9,9", "--weight", "8,8,3,3", "--pading", "1"], "unrecognized arguments: --pading 1"),
        (["--input", "2,8,9,9", "--weight", "8,8,3,3", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["--weight", "8,8,3,3"], "required: --input"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["explain", "conv2d", *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.startswith("usage: cnnkernels explain ")


@pytest.mark.parametrize("dtype", PRODUCTS)
def test_the_floor_is_the_longer_of_arithmetic_and_memory(dtype: str) -> None:
    problem = Problem("forward", dtype, Layout.NHWC, CASE.geometry)
    gpu = explain.machine("h200")
    found = floor(problem, gpu)
    size = {"fp64": 8, "fp32": 4, "tf32": 4}.get(dtype, 2)
    rate = {"fp64": 34e12, "fp32": 67e12, "tf32": 495e12}.get(dtype, 989e12)
    assert found.arithmetic == pytest.approx(2 * 32 * 56 * 56 * 64 * 64 * 9 / (0.8 * rate))
    assert found.memory == pytest.approx(size * (2 * 32 * 56 * 56 * 64 + 64 * 64 * 9) / (0.9 * 4.8e12))
    assert found.seconds == max(found.arithmetic, found.memory)


def test_a_tuned_plan_is_shown_as_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("forward", "bf16", Layout.NHWC, CASE.geometry)
    key = tuned.key(*problem)
    plans = {
        "cuda": {key: {"engine": "mma", "tile": [128, 32], "a": "along_depth", "b": "along_depth", "splits": 1}},
        "triton": {key: {"block": [32, 32, 32], "warps": 1, "stages": 2}},
    }
    monkeypatch.setattr(tuned, "gpus", lambda: ("NVIDIA A100-SXM4-80GB",))
    monkeypatch.setattr(tuned, "plans", lambda gpu, backend, wgmma=True: plans[backend] if "A100" in gpu else {})
    text = "\n".join(explain.explain(problem, explain.machine("a100")))
    assert "cuda: mma 128x32, A along depth, B along depth, splits 1, measured to be the fastest" in text
    assert "triton: dot 32x32x32, 1 warps, 2 stages, measured to be the fastest" in text
    other = "\n".join(explain.explain(problem, explain.machine("rtx3090")))
    assert "measured" not in other
