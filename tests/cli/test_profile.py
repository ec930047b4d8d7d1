"""`cnnkernels profile`: every operator, both backends, anybody's PTX, what it writes and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnnkernels.cli import main as cli
from cnnkernels.cli.profile_calls import OPERATORS as PROFILED
from cnnkernels.operators import OPERATORS

CONVOLUTION = ["--input", "1,8,6,6", "--weight", "8,8,3,3", "--padding", "1"]
PER_CHANNEL = ["--input", "1,8,6,6", "--weight", "8,1,3,3", "--padding", "1"]
POOLING = ["--input", "1,8,6,6", "--kernel", "2"]
OF_ROWS = ["--input", "1,16,9", "--weight", "16,16,3", "--padding", "1"]
ROWS = ["--input", "1,8,6", "--kernel", "2"]
PRODUCT = ["--input", "16,32", "--weight", "24,32"]
GRADIENTS = ["--direction", "forward", "--direction", "backward_input"]
ALL = [*GRADIENTS, "--direction", "backward_weight"]
CALLS = {
    "conv2d": [*CONVOLUTION, *ALL],
    "conv1d": [*OF_ROWS, *ALL],
    "depthwise_conv2d": [*PER_CHANNEL, *ALL],
    "depthwise_separable_conv2d": [*PER_CHANNEL, "--filters", "16", *ALL],
    "conv_transpose2d": [*CONVOLUTION, *ALL],
    "conv_transpose1d": [*OF_ROWS, *ALL],
    "max_pool2d": [*POOLING, *GRADIENTS],
    "max_pool1d": [*ROWS, *GRADIENTS],
    "max_unpool2d": [*POOLING, *GRADIENTS],
    "avg_pool1d": [*ROWS, *GRADIENTS],
    "adaptive_avg_pool1d": ["--input", "1,8,6", "--bins", "2", *GRADIENTS],
    "avg_pool2d": [*POOLING, *GRADIENTS],
    "adaptive_avg_pool2d": ["--input", "1,8,6,6", "--bins", "2,3", *GRADIENTS],
    "batch_norm": ["--input", "2,8,3,2", *GRADIENTS],
    "int8_gemm": [*PRODUCT, "--requantize", "--activation", "relu"],
    "int8_conv2d": [*CONVOLUTION, "--requantize"],
    "int8_weight_only_linear": PRODUCT,
    "int8_max_pool2d": POOLING,
    "int8_avg_pool2d": POOLING,
    "quantize": ["--input", "8,32"],
    "dequantize": ["--input", "8,32", "--dtype", "int8"],
}
PTX = """.version 8.6
.target sm_80
.address_size 64
.visible .entry twice(.param .u64 x, .param .u32 n) {
  .reg .b32 %r<9>; .reg .b64 %d<9>; .reg .pred %p<3>;
  ld.param.u64 %d1, [x]; ld.param.u32 %r3, [n];
  mov.u32 %r1, %tid.x; mov.u32 %r4, %ctaid.x; mad.lo.u32 %r1, %r4, 32, %r1;
  setp.ge.u32 %p1, %r1, %r3; @%p1 bra END;
  mad.wide.u32 %d2, %r1, 8, %d1;
  ld.global.u32 %r2, [%d2]; add.u32 %r2, %r2, %r2; st.global.u32 [%d2], %r2;
END: ret;
}
"""
ALONE = {k: v for k, v in os.environ.items() if not k.startswith(("CNNKERNELS_", "TRITON_"))}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cnnkernels", "profile", *arguments]
    return subprocess.run(command, env=ALONE, capture_output=True, text=True)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["profile", *arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_every_operator_can_be_profiled() -> None:
    assert list(PROFILED) == list(OPERATORS) == list(CALLS)


ONE_AFTER_ANOTHER = """
import json, sys
from cnnkernels.cli import main
failed = {}
for operator, arguments in json.loads(sys.argv[1]).items():
    code = main.main(["profile", operator, *arguments, "--backend", sys.argv[2], "--json", f"{sys.argv[3]}/{operator}"])
    if code: failed[operator] = code
sys.exit(str(failed) if failed else 0)
"""


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_every_operator(tmp_path: Path, backend: str) -> None:
    """In each direction something is executed, and all that must be is written."""
    if backend == "cuda":
        pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")
    variables = {"CNNKERNELS_INTERPRET": "ptx", "TRITON_INTERPRET": "0", "CNNKERNELS_EMULATED_GPU": "h200"}
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(CALLS), backend, str(tmp_path)]
    done = subprocess.run(command, env={**ALONE, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for operator, arguments in CALLS.items():
        found = json.loads((tmp_path / operator).read_text())
        assert len(found) == max(arguments.count("--direction"), 1)
        for one in found:
            assert one["launches"], (operator, one["title"])
            written = sum(
                touched["written"] * launch["scale"] for launch in one["launches"] for touched in launch["unique"]
            )
            assert written >= one["outputs"], (operator, one["title"])
            assert all(launch["model"]["measured"] is False for launch in one["launches"])


def documented(tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    file = tmp_path / "counts.json"
    done = run(*arguments, "--json", str(file))
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(file.read_text())
    return done.stdout, found


def test_the_report_of_a_convolution(tmp_path: Path) -> None:
    """Every output of a 1x1 takes 64 multiply-adds on tensor cores, and no tile is partly empty."""
    pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")
    sizes = ["--input", "8,64,16,16", "--weight", "64,64,1,1", "--gpu", "a100"]
    text, found = documented(tmp_path, "conv2d", *sizes, "--lines", "--blocks", "0")
    (launch,) = found["launches"]
    assert launch["clusters"] == launch["sampled"] and launch["scale"] == 1
    assert found["operations"] == 2 * 8 * 16 * 16 * 64 * 64
    assert sum(launch["multiply_adds"].values()) == 8 * 16 * 16 * 64 * 64
    assert "100% of what the tensor cores did" in text
    unique = {touched["tensor"]: (touched["read"], touched["written"]) for touched in launch["unique"]}
    image = 2 * 8 * 16 * 16 * 64
    assert unique == {"input": (image, 0), "weight": (2 * 64 * 64, 0), "output": (0, image)}
    assert found["least_bytes"] == 2 * image + 2 * 64 * 64
    assert "a model's time" in text and "not by a measurement" in text and "no GPU took part" in text
    assert re.search(r"\w+\.cuh:\d+ +\d", text)  # a source line
    assert launch["model"]["bound"] in text
    longest = max(launch["model"][name] for name in ("issue", "tensor", "shared", "l2", "dram"))
    assert launch["model"]["seconds"] == longest + 3e-6


def test_a_kernel_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "twice.ptx").write_text(PTX)
    arguments = ["--ptx", str(tmp_path / "twice.ptx"), "--grid", "4", "--parameters", "int32[256]", "int32=128"]
    text, found = documented(tmp_path, *arguments, "--blocks", "0")
    (launch,) = found["launches"]
    assert (launch["grid"], launch["block"], launch["kernel"]) == ([4, 1, 1], [32, 1, 1], "twice")
    assert launch["counts"]["global_requests"] == 8 and launch["counts"]["sectors"] == 64
    assert "8.0 sectors a request, 50% of their bytes wanted" in text
    assert "parameter 0 1,024 read and 1,024 written of 1,024" in text


def test_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of bars for each launch: numbers, names and which unit is the bound."""
    matplotlib = pytest.importorskip("matplotlib")
    (tmp_path / "twice.ptx").write_text(PTX)
    arguments = [
        "profile",
        "--ptx",
        str(tmp_path / "twice.ptx"),
        "--grid",
        "4",
        "--parameters",
        "int32[256]",
        "int32=9",
    ]
    assert cli.main([*arguments, "--figure", str(tmp_path / "counts.png")]) == 0
    assert (tmp_path / "counts.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # letters, not their outlines
    assert cli.main([*arguments, "--figure", str(tmp_path / "counts.svg"), "--json", str(tmp_path / "counts")]) == 0
    words = re.findall(r">([^<>]+)</text>", (tmp_path / "counts.svg").read_text())
    ((launch,),) = (one["launches"] for one in json.loads((tmp_path / "counts").read_text()))
    kinds = launch["warp_instructions"]
    assert words[: 2 * len(kinds)] == [*kinds, *(str(count) for count in kinds.values())]
    assert {"warp instructions", "requests of memory", "least time by each unit", *launch["model"]} - set(words) == {
        "bound",
        "seconds",
        "measured",
    }
    assert any("nothing was measured on a GPU" in word for word in words)


def test_a_figure_that_cannot_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twice.ptx").write_text(PTX)
    arguments = ["--ptx", str(tmp_path / "twice.ptx"), "--parameters", "int32[256]", "int32=9", "--figure"]
    assert "must end in one of png, svg, pdf, but got" in refused(capsys, *arguments, str(tmp_path / "counts.bars"))
    monkeypatch.delitem(sys.modules, "cnnkernels.cli.profile_figure", raising=False)
    monkeypatch.delattr("cnnkernels.cli.profile_figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "--figure needs matplotlib: `pip install" in refused(capsys, *arguments, str(tmp_path / "counts.png"))


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "twice.ptx").write_text(PTX)
    ptx = ["--ptx", str(tmp_path / "twice.ptx")]
    assert "an operator or --ptx is needed, and not both" in refused(capsys)
    assert "an operator or --ptx is needed, and not both" in refused(capsys, "conv2d", *ptx)
    assert "h2000" in refused(capsys, *ptx, "--gpu", "h2000")
    assert "int8_gemm has no backward_input" in refused(capsys, "int8_gemm", *PRODUCT, "--direction", "backward_input")
    assert "twice has 2 parameters, but --parameters has 1" in refused(capsys, *ptx, "--parameters", "int32[8]")
    assert "number 1 has 4 bytes, not 8" in refused(capsys, *ptx, "--parameters", "int32[8]", "int64=1")
    assert "--parameters must be TYPE[N]" in refused(capsys, *ptx, "--parameters", "int32[8]", "int=1")
    assert "int32=x" in refused(capsys, *ptx, "--parameters", "int32[8]", "int32=x")
    assert "--entry must be one of twice, but got thrice" in refused(capsys, *ptx, "--entry", "thrice")
    assert "there is no file" in refused(capsys, "--ptx", str(tmp_path / "nothing.ptx"))


def test_a_call_that_cannot_be_made() -> None:
    done = run("max_pool2d", "--input", "1,8,6,6", "--gpu", "h200")
    assert done.returncode == 1
    assert "max_pool2d needs --kernel" in done.stderr
