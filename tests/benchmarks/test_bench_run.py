"""The benchmark run: cut and continued, compared with an earlier one, restarted when the GPU is gone; the command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import machine, run
from benchmarks.measure import DeviceLost
from benchmarks.providers import PROVIDERS
from benchmarks.results import FAILED, LOST, MISSING, OK, WRONG, Record, Results, changes, regressions
from benchmarks.summary import OURS, geometric_mean, rows, summary, worst
from cnnkernels.cli import bench as command
from cnnkernels.cli import main as cli
from helpers.bench import CEILINGS, CPU, ROOT, Planted, bench, conv_case, one_thread, parsed, pool_case, record  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")
SESSION = {"gpu": "G", "sources": "abc", "torch": "2"}
CASES = [conv_case(), conv_case("backward_input"), pool_case()]


def write(path: Path, *records: Record, session: dict[str, str] = SESSION) -> Results:
    results = Results(path)
    number = results.begin(dict(session))
    for one in records:
        results.add(replace(one, session=number))
    return results


# --- result files


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.jsonl"
    first, second = record(CASES[0], "cuda", 3.0), record(CASES[0], "torch", 4.0, reproducible=False)
    write(path, first, second)
    again = Results(path)
    assert again.sessions == [SESSION]
    assert list(again.records.values()) == [first, second]
    later = record(CASES[0], "cuda", 2.0)
    write(path, later)
    assert Results(path).records[later.name].median == 2.0  # the later line counts


def test_a_line_that_was_cut_is_no_harm_but_a_broken_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write(path, record(CASES[0], "cuda", 3.0), record(CASES[1], "cuda", 3.0))
    path.write_text(path.read_text()[:-40])
    assert len(Results(path).records) == 1
    write(path, record(CASES[2], "cuda", 5.0))
    assert [record.key for record in Results(path).records.values()] == [CASES[0].key, CASES[2].key]
    path.write_text(path.read_text().replace('"cuda"', "cuda", 1))
    with pytest.raises(ValueError, match=r"r\.jsonl:2 is no line"):
        Results(path)


def test_what_is_done(tmp_path: Path) -> None:
    some = [record(CASES[0], "cuda", 1.0)]
    some += [replace(record(CASES[0], name, None), status=status) for name, status in (
        ("triton", WRONG), ("torch", FAILED), ("aten", MISSING), ("compile", LOST),
    )]  # fmt: skip
    results = write(tmp_path / "r.jsonl", *some)
    assert {provider for _, provider in results.done(SESSION)} == {"cuda", "triton", "compile"}
    for word in SESSION:
        assert results.done(SESSION | {word: "another"}) == set()


# --- a run, cut and continued


def measured_by(results: Results, seconds: float, cases=CASES) -> tuple[list[str], list[str]]:
    """(measured, cut) by a run whose clock moves one second a look."""
    ticks: Iterator[int] = iter(range(10**6))
    before = set(results.records)
    done = results.done(SESSION)
    instrument = replace(bench(), session=results.begin(dict(SESSION)))
    providers = [PROVIDERS["torch"]]
    cut = run.measure_all(
        cases,
        providers,
        instrument,
        results,
        done,
        seconds,
        lambda line: None,
        lambda deadline: None,
        lambda: next(ticks),
    )
    return [key for key, _ in results.records if (key, "torch") not in before], [case.key for case in cut]


def test_a_cut_run_says_what_is_left_and_the_next_one_does_it(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    keys = [case.key for case in CASES]
    assert measured_by(Results(path), 2) == (keys[:2], keys[2:])
    assert measured_by(Results(path), 99) == (keys[2:], [])
    assert measured_by(Results(path), 99) == ([], [])
    lines = path.read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "record" for line in lines) == 3
    assert run.cut_lines(CASES)[0].startswith("the time was up before 3 cases: 2 of conv2d, 1 of max_pool2d;")
    assert run.cut_lines([]) == []


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    def impatient(y):
        if len(results.records) == 1:
            raise KeyboardInterrupt
        return y

    results = Results(tmp_path / "r.jsonl")
    results.begin(dict(SESSION))
    planted = [Planted("torch", impatient, ours=False)]
    cut = run.measure_all(CASES, planted, bench(), results, set(), 1e12, lambda line: None, lambda deadline: None)
    assert [case.key for case in cut] == [case.key for case in CASES[1:]]
    assert [record.key for record in results.records.values()] == [CASES[0].key]


def test_other_sources_are_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write(path, record(CASES[0], "torch", 1.0), session=SESSION | {"sources": "older"})
    measured_by(Results(path), 99)
    assert Results(path).records[CASES[0].key, "torch"].median != 1.0


class Restarted(Exception):
    pass


def restart(deadline: float) -> None:
    raise Restarted


def test_a_lost_gpu_restarts_the_run_which_passes_by_what_lost_it(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.jsonl")
    instrument = replace(bench(), session=results.begin(dict(SESSION)))

    class Losing(type(instrument)):
        def measure(self, case, providers):
            yield self.blank(case, "cuda", LOST, "illegal access")
            raise DeviceLost("illegal access")

    losing = Losing(CPU, CEILINGS, instrument.patience, 0, instrument.tell)
    providers = [PROVIDERS["cuda"], PROVIDERS["torch"]]
    with pytest.raises(Restarted):
        run.measure_all(CASES, providers, losing, results, set(), 1e12, lambda line: None, restart)
    assert results.done(SESSION) == {(CASES[0].key, "cuda")}
    # the run that was started again
    run.measure_all(CASES[:1], providers, instrument, results, results.done(SESSION), 1e12, lambda line: None, restart)
    assert {name: r.status for (_, name), r in results.records.items()} == {"cuda": LOST, "torch": OK}


def test_a_kernel_that_never_ends_is_noted_and_the_run_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LONGEST_CASE", {False: 0.05, True: 9.0})
    results = Results(tmp_path / "r.jsonl")
    results.begin(dict(SESSION))
    restarts = []
    sleeping = Planted("cuda", lambda y: time.sleep(0.2) or y)
    run.measure_all(CASES[:1], [sleeping], bench(), results, set(), 1e12, lambda line: None, restarts.append)
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert restarts == [1e12]
    first = next(line for line in lines if line["kind"] == "record")
    assert (first["provider"], first["status"]) == ("cuda", LOST)


# --- against an earlier run


def test_regressions_are_named_worst_first(tmp_path: Path) -> None:
    before = write(
        tmp_path / "before.jsonl",
        record(CASES[0], "cuda", 10.0),
        record(CASES[1], "cuda", 10.0),
        record(CASES[2], "cuda", 10.0),
        record(CASES[2], "triton", 10.0),
        record(CASES[0], "torch", 10.0),
    )
    after = [
        record(CASES[0], "cuda", 11.0),
        record(CASES[1], "cuda", 20.0),
        record(CASES[2], "cuda", 10.3),  # within the tolerance
        record(CASES[2], "triton", 12.0, p20=10.0),  # within its own scatter
        record(CASES[0], "torch", 90.0),  # not ours
    ]
    slower, broken = regressions(before, after, OURS, 0.05)
    assert [(change.after.key, round(change.ratio, 2)) for change in slower] == [
        (CASES[1].key, 2.0),
        (CASES[0].key, 1.1),
    ]
    assert broken == []
    assert len(list(changes(before, after))) == 5


def test_what_was_right_and_is_not_is_a_regression(tmp_path: Path) -> None:
    before = write(tmp_path / "before.jsonl", record(CASES[0], "cuda", 10.0))
    wrong = replace(record(CASES[0], "cuda", None), status=WRONG, reason="error 1")
    assert regressions(before, [wrong], OURS, 0.05) == ([], [wrong])
    results = write(tmp_path / "now.jsonl", wrong, record(CASES[1], "cuda", 10.0))
    write(before.path, record(CASES[1], "cuda", 10.0))  # and one that is as it was
    lines, failed = run.against(before.path, results, {case.key for case in CASES}, 0.05)
    assert failed and any(f"REGRESSION wrong: cuda {CASES[0].key}: error 1" in line for line in lines)


@pytest.mark.parametrize(("now", "worse"), [(10.2, False), (10.8, True)])
def test_against_says_whether_it_is_worse(tmp_path: Path, now: float, worse: bool) -> None:
    write(tmp_path / "before.jsonl", record(CASES[0], "cuda", 10.0))
    results = write(tmp_path / "now.jsonl", record(CASES[0], "cuda", now))
    lines, failed = run.against(tmp_path / "before.jsonl", results, {CASES[0].key}, 0.05)
    assert failed is worse
    assert any("REGRESSION" in line and CASES[0].key in line for line in lines) is worse


def test_against_a_file_of_other_cases_is_no_success(tmp_path: Path) -> None:
    write(tmp_path / "before.jsonl", record(CASES[1], "cuda", 10.0))
    results = write(tmp_path / "now.jsonl", record(CASES[0], "cuda", 1.0))
    assert run.against(tmp_path / "before.jsonl", results, {CASES[0].key}, 0.05)[1]


# --- the summary


def test_speed_beside_the_best_peer() -> None:
    some = [
        record(CASES[0], "cuda", 10.0),
        record(CASES[0], "triton", 20.0),
        record(CASES[0], "torch", 30.0),
        record(CASES[0], "aten", 5.0),
        record(CASES[1], "cuda", 10.0),
        record(CASES[1], "torch", 10.0),
    ]
    first, second = rows(some)
    assert first.speed("ours", "peers") == 0.5
    assert first.speed("triton", "torch") == 1.5
    assert second.speed("triton", "torch") is None
    assert worst([second, first], lambda row: row.speed("ours", "peers"), 1) == [first]
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    text = "\n".join(summary(some))
    assert "conv2d forward" in text and "0.50" in text and "conv2d all" in text


# --- the machine


def test_the_machine_is_named() -> None:
    assert replace(CPU, name="NVIDIA H200").slug == "nvidia-h200"
    about = machine.session(machine.this_machine(), CEILINGS)
    assert about["torch"] == torch.__version__ and len(about["sources"]) == 12 and about["date"].endswith("Z")
    assert {"gpu", "commit", "clocks", "ceilings", "cuda", "cudnn", "triton", "python"} <= set(about)
    json.dumps(about)


def test_sources_change_with_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "k.cu").write_text("a")
    first = machine.sources()
    (tmp_path / "csrc" / "k.cu").write_text("b")
    assert machine.sources() != first


def test_no_nvidia_smi_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_output", lambda *command: None)
    assert machine.clocks() == {}
    assert machine.commit() == "unknown"
    monkeypatch.setattr(machine, "_output", lambda *command: "1980, 1980, 3201, 3201, 700.00, 40, 580.1")
    assert machine.clocks()["clocks.sm"] == "1980" and machine.clocks()["driver_version"] == "580.1"


# --- the command


def cnnkernels(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cnnkernels", "bench", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_the_command_measures_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--tiny", "--op", "max_pool2d", "--network", "resnet50", "--dtype", "fp32"]
    arguments += ["--output", str(tmp_path / "r.jsonl"), "--provider", "cuda", "--provider", "torch"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "6 results are right; in small no time means anything" in said
    assert {r.provider for r in Results(tmp_path / "r.jsonl").records.values()} == {"cuda", "torch"}


def test_wrong_numbers_are_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(PROVIDERS, "torch", Planted("torch", lambda y: y + 1, ours=False))
    some = parsed("--tiny", "--op", "max_pool2d", "--network", "resnet50", "--output", str(tmp_path / "r.jsonl"))
    some.provider = ["cuda", "torch"]
    assert run.run(some) == 1
    said = capsys.readouterr().out
    assert "WRONG torch: max_pool2d forward" in said and "results are right" in said


def test_list_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(parsed("--list", "--op", "conv2d", "--network", "resnet50", "--batch", "1", "--layout", "nhwc")) == 0
    assert len(capsys.readouterr().out.splitlines()) == 23 * 4 * 4
    assert run.run(parsed("--network", "nothing", "--tiny")) == 2
    assert "no case passes" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(parsed("--quick")) == 2
    assert "--tiny" in capsys.readouterr().err


def test_without_a_checkout_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(command, "__file__", str(tmp_path / "cnnkernels" / "cli" / "bench.py"))
    monkeypatch.chdir(tmp_path)
    assert command.run(parsed("--quick")) == 2
    assert "source checkout" in capsys.readouterr().err


def test_from_another_folder(tmp_path: Path) -> None:
    """Found beside the package; a package that is not in its checkout, as `make gpu` has it, finds it in no other."""
    done = cnnkernels("--list", "--quick", "--op", "int8_gemm", cwd=tmp_path)
    if (Path(command.__file__).parent.parent.parent / "benchmarks").is_dir():
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "int8_gemm forward int8 m4096 n4096 k4096"
    else:
        assert done.returncode == 2 and "source checkout" in done.stderr


@pytest.mark.parametrize("name", ["file/results.jsonl", "file/below/it/results.jsonl", "."])
def test_an_output_that_cannot_be_written_is_usage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Said before anything runs. A folder that is not there is made."""
    (tmp_path / "file").touch()
    ran: list[object] = []
    monkeypatch.setattr(run, "run", lambda options: ran.append(options) or 0)
    assert command.run(parsed("--tiny", "--output", str(tmp_path / name))) == 2
    assert f"--output: {tmp_path / name} cannot be written" in capsys.readouterr().err and not ran
    assert command.run(parsed("--tiny", "--output", str(tmp_path / "new/folder/results.jsonl"))) == 0 and len(ran) == 1


def test_against_a_missing_file_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(parsed("--against", "/nothing.jsonl")) == 2
    assert "there is no file /nothing.jsonl" in capsys.readouterr().err
