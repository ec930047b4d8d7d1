"""`make gpu` on a machine that is not there: a python that only notes what it is asked to run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# Fails in what FAIL names, hangs in what SLOW does; prints what the real thing would.
PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
  *"${SLOW:-nothing}"*) exec sleep 100 ;;
  *"$FAIL"*) echo "FAILED tests/x.py::y - no"; exit 1 ;;
  *"cnnkernels bench"*) echo "times as fast as others"; echo "conv2d 1.00"; echo "results: r.jsonl" ;;
  *) echo "3 passed in 1s" ;;
esac
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return python


def gpu_sh(fake: Path, stages: str, fail: str = "nothing", **environment: str) -> tuple[int, str, list[str]]:
    calls = fake.with_name("calls")
    calls.write_text("")
    variables = {
        "PYTHON": str(fake),
        "STAGES": stages,
        "FAIL": fail,
        "CALLS": str(calls),
        "OUT": str(fake.parent / "out"),
    }
    done = subprocess.run(
        ["bash", "tests/gpu.sh"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("CNNKERNELS")} | variables | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, calls.read_text().splitlines()


def test_every_stage_runs_and_the_summary_is_last(fake: Path) -> None:
    stages = ("build", "conformance", "prove", "quick", "tune", "gpu", "tests")
    status, said, calls = gpu_sh(fake, " ".join(stages))
    assert status == 0, said
    words = (
        "setup.py",
        "cnnkernels info",
        "-m gpu tests/ptx -k tf32 or tma",
        "-m gpu tests/ptx -k not tf32 and not tma",
        "cnnkernels prove --again",
        "bench --seconds 402 --quick",
        "cnnkernels tune conv2d",
        "-m gpu --ignore=tests/ptx",
        "not gpu",
    )
    asked = [next(number for number, call in enumerate(calls) if word in call) for word in words]
    assert asked == sorted(asked)
    lines = said.splitlines()
    end = lines.index("== summary")
    assert [line.split()[:2] for line in lines[end + 1 :]] == [[stage, "ok"] for stage in stages]
    assert "conv2d 1.00" in lines[lines.index("== what matters") : end]
    log = (fake.parent / "out" / "gpu.log").read_text()
    assert "3 passed in 1s" in log and "== summary" in log
    assert [line[3:] for line in log.splitlines() if line.startswith("== ")][: len(stages)] == list(stages)


def test_a_stage_that_hangs_leaves_the_others_their_time(fake: Path) -> None:
    """Of five seconds each has a share, of which it may take what those before it left."""
    stages = "build", "conformance", "prove", "quick", "tune", "gpu"
    status, said, _ = gpu_sh(fake, " ".join(stages), SLOW="cnnkernels prove", LIMIT="5", LEAST="1")
    lines = said.splitlines()
    ended = [line.split()[1] for line in lines[lines.index("== summary") + 1 :]]
    assert status == 1 and ended == ["ok", "ok", "rc", "ok", "ok", "ok"]


def test_the_shares_are_the_whole(fake: Path) -> None:
    script = (ROOT / "tests/gpu.sh").read_text()
    shares = re.findall(r"\[(\w+)\]=(\d+)", script)
    assert sum(int(share) for _, share in shares) == 100
    assert {stage for stage, share in shares if share == "0"} == {"tests", "networks", "full"}


def test_a_failure_does_not_hide_the_next_stage(fake: Path) -> None:
    status, said, calls = gpu_sh(fake, "conformance gpu quick", fail="-m gpu tests/ptx")
    assert status == 1
    assert "FAILED tests/x.py::y - no" in said[said.index("== what matters") :]
    summary = said[said.index("== summary") :]
    assert "conformance  rc 1" in summary and "gpu          ok" in summary and "quick        ok" in summary
    assert any("cnnkernels bench" in call for call in calls)


def test_what_is_not_certified_matters(fake: Path) -> None:
    said_of = 'echo "H200: 1 of 2 families of kernels certified, proved 2026"; echo "  not cuda conv: it hangs"; exit 1'
    fake.write_text(PYTHON.replace('*"$FAIL"*)', f'*"cnnkernels prove"*) {said_of} ;;\n  *"$FAIL"*)'))
    status, said, _ = gpu_sh(fake, "prove tune")
    matters = said[said.index("== what matters") :]
    assert status == 1 and "not cuda conv: it hangs" in matters and "tune         ok" in matters


def test_tests_have_a_limit_of_their_own(fake: Path) -> None:
    _, said, _ = gpu_sh(fake, "gpu tests", LIMIT="0")
    assert "gpu          rc 124" in said and "tests        ok" in said


def test_nothing_runs_without_a_build(fake: Path) -> None:
    status, said, calls = gpu_sh(fake, "build quick", fail="setup.py")
    assert status == 1 and "build        rc 1" in said
    assert not any("cnnkernels bench" in call for call in calls)


def test_a_stage_that_does_not_end_is_stopped(fake: Path) -> None:
    fake.write_text(PYTHON.replace('echo "3 passed in 1s"', "exec sleep 60"))
    status, said, _ = gpu_sh(fake, "gpu quick", LIMIT="2", LEAST="1", CNNKERNELS_INTERPRET="1")
    assert status == 1
    assert "stopped: its time was up" in said and "no time left of the 2 seconds" in said


@pytest.mark.parametrize(("word", "how"), [("off", "--quick"), ("No", "--quick"), ("yes", "--tiny")])
def test_the_interpreters_are_switched_on_by_a_word(fake: Path, word: str, how: str) -> None:
    _, _, calls = gpu_sh(fake, "quick", CNNKERNELS_INTERPRET=word)
    assert [how in call for call in calls if "cnnkernels bench" in call] == [True]


@pytest.mark.parametrize(
    ("stages", "fail", "complaint"), [("dance", "nothing", "no stage dance"), ("quick", "import torch", "sees no GPU")]
)
def test_usage(fake: Path, stages: str, fail: str, complaint: str) -> None:
    status, said, _ = gpu_sh(fake, stages, fail)
    assert status == 2 and complaint in said
