"""`cnnkernels bench`: measures cases one after the other until all are done or the time is up, and can go on later.

A kernel that takes the GPU down, or that never ends, must not take the run with it: the run notes it and starts itself
again, where the file says what is left to do.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from cnnkernels.geometry import Layout
from cnnkernels.tuning.timing import ONCE, QUICK, Patience

from . import cases as all_cases
from . import host, network_bench, performance, prewarm, report
from .cases import Case
from .machine import RESULTS, Machine, ceilings, session, this_machine
from .measure import Bench, DeviceLost
from .networks import NETWORKS
from .providers import PROVIDERS, QUICK_PROVIDERS, Provider
from .results import LOST, OK, WRONG, Record, Results, regressions
from .summary import OURS, Row, faults, one_line, remarks, summary

QUICK_SECONDS = 225.0
LONGEST_CASE = {False: 120.0, True: 900.0}  # seconds until a case counts as hung; whether torch.compile takes part
DEADLINE = "CNNKERNELS_BENCH_DEADLINE"  # of a run that started itself again
say = functools.partial(print, flush=True)


def select(options: argparse.Namespace) -> list[Case]:
    """The cases that the options ask for."""
    if options.quick:
        found = all_cases.quick()
        found = [
            case
            for case in found
            if (not options.op or case.family in options.op) and (not options.dtype or case.dtype in options.dtype)
        ]
    else:
        found = all_cases.full(
            options.op or (),
            options.network or (),
            options.dtype or (),
            options.batch or (),
            [Layout[name.upper()] for name in options.layout or ()],
            options.direction or (),
        )
    return all_cases.smoke(found) if options.tiny else found


def chosen_providers(options: argparse.Namespace) -> list[Provider]:
    names = options.provider or (QUICK_PROVIDERS if options.quick or options.tiny else tuple(PROVIDERS))
    return [PROVIDERS[name] for name in names]


def default_output(machine: Machine, options: argparse.Namespace) -> Path:
    """One file a GPU; what is no measurement of a GPU goes where nobody takes it for one."""
    name = "tiny" if options.tiny else machine.slug + ("-quick" if options.quick else "")
    return _folder() / f"{name}.jsonl"


def _folder() -> Path:
    return Path(os.environ.get("OUT") or RESULTS)


class Watch:
    """Calls `hung` when a case takes longer than it may."""

    def __init__(self, seconds: float, hung: Callable[[], None]) -> None:
        self.timer = threading.Timer(seconds, hung)
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()


def again(deadline: float) -> NoReturn:
    """The same command in a process of its own, with what is left of the time."""
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, DEADLINE: str(deadline)})


def measure_all(
    cases: Sequence[Case],
    providers: Sequence[Provider],
    bench: Bench,
    results: Results,
    done: Collection[tuple[str, str]],
    deadline: float,
    tell: Callable[[str], None] = say,
    restart: Callable[[float], object] = again,
    clock: Callable[[], float] = time.time,
) -> list[Case]:
    """Measures what is not done; returns the cases for which there was no time."""
    cut = []
    timed = bench.patience is not ONCE  # else times mean nothing
    limit = LONGEST_CASE[any(provider.name not in QUICK_PROVIDERS for provider in providers)]
    for number, case in enumerate(cases, 1):
        left = [provider for provider in providers if (case.key, provider.name) not in done]
        if not left:
            continue
        if clock() >= deadline:
            cut.append(case)
            continue

        def hung(case: Case = case) -> None:
            for name in bench.at_work:
                results.add(bench.blank(case, name, LOST, f"no answer for {limit:.0f} s"))
            tell(f"HUNG {' '.join(bench.at_work)}: {case.key}: starting again")
            restart(deadline)

        found = {}
        try:
            with Watch(limit, hung):
                for record in bench.measure(case, left):
                    results.add(record)
                    if record.median is not None:
                        found[record.provider] = record
        except KeyboardInterrupt:  # enough is enough: what there is deserves its summary
            return [*cut, *cases[number - 1 :]]
        except DeviceLost as error:
            tell(f"the GPU is lost ({error}): starting again")
            restart(deadline)
        if found:
            line = one_line(Row(found)) if timed else f"{case.key}: {' '.join(found)} are right"
            tell(f"[{number}/{len(cases)}] {line}")
    return cut


def cut_lines(cut: Sequence[Case]) -> list[str]:
    """What there was no time for."""
    if not cut:
        return []
    families: dict[str, int] = {}
    for case in cut:
        families[case.family] = families.get(case.family, 0) + 1
    told = ", ".join(f"{count} of {family}" for family, count in families.items())
    lines = [f"the time was up before {len(cut)} cases: {told}; the same command goes on with them"]
    return lines + [f"  cut: {case.key}" for case in cut[:10]] + (["  ..."] if len(cut) > 10 else [])


def tiny_summary(records: Sequence[Record]) -> list[str]:
    """What a run in small tells: who is right. Its times tell nothing."""
    right = sum(record.status == OK for record in records)
    return [f"{right} results are right; in small no time means anything", *remarks(records)]


def against(path: Path, results: Results, keys: Collection[str], tolerance: float) -> tuple[list[str], bool]:
    """How this compares with an earlier file, and whether something is worse."""
    earlier = Results(path)
    mine = [record for record in results.records.values() if record.key in keys]
    slower, broken = regressions(earlier, mine, OURS, tolerance)
    both = sum(record.name in earlier.records for record in mine if record.median is not None)
    lines = [f"against {path}: {both} results in both, {len(slower)} slower by more than {tolerance:.0%}"]
    lines += [f"  REGRESSION {change}" for change in slower]
    lines += [f"  REGRESSION {record.status}: {record.provider} {record.key}: {record.reason}" for record in broken]
    if not both:
        lines.append(f"  nothing in {path} is comparable")
    return lines, bool(slower or broken) or not both


def _types(cases: Iterable[Case]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(case.dtype for case in cases))


def render(output: Path | None) -> int:
    """CSV, pictures and page of one result file, or of all of them and then docs/performance.md."""
    files = [output] if output is not None else performance.result_files()
    for path in files:
        if not path.is_file() or not (results := Results(path)).sessions:
            print(f"cnnkernels bench: {path} holds no results", file=sys.stderr)
            return 2
        for written in report.write(results):
            print(f"wrote {written}")
    if output is None:
        performance.DOCUMENT.write_text(performance.page(files))
        print(f"wrote {performance.DOCUMENT}")
    return 0


def start(options: argparse.Namespace, machine: Machine, output: Path, types: Sequence[str]) -> tuple[Bench, Results]:
    """The ceilings of the machine, and a session in the result file."""
    ceiling = ceilings(machine, tuple(types))
    say(f"{machine.name}, in small" if options.tiny else f"{machine.name}: {ceiling}")
    results = Results(output)
    patience = ONCE if options.tiny else QUICK if options.quick else Patience()
    number = results.begin(session(machine, ceiling))
    return Bench(machine, ceiling, patience, number, say), results


def run_networks(options: argparse.Namespace, machine: Machine) -> int:
    """Whole networks instead of their layers."""
    names = options.network or list(NETWORKS)
    if unknown := [name for name in names if name not in NETWORKS]:
        print(f"cnnkernels bench: --whole has {', '.join(NETWORKS)}, not {', '.join(unknown)}", file=sys.stderr)
        return 2
    output = options.output or _folder() / f"{machine.slug}-networks.jsonl"
    dtypes = options.dtype or ["bf16"]
    bench, results = start(options, machine, output, dtypes)
    deadline = time.time() + (options.seconds or float("inf"))
    measured, cut = network_bench.run_all(names, dtypes, bench, results, lambda: time.time() >= deadline)
    networks = [extra for extra in results.extras if extra["kind"] == "network"]
    lines = ["whole networks, times as fast as PyTorch's own layers, eager:", *network_bench.table_of(networks)]
    lines += [f"{one.status.upper()} {' '.join(one.name)}: {one.reason}" for one in measured if one.status != OK]
    lines += [f"  cut: {what}" for what in cut]
    print("\n".join(["", *lines, f"results: {output}"]), flush=True)
    # PyTorch failing is worth a line, and no fault of the kernels
    return int(any(one.status == WRONG or (one.status != OK and "torch" not in one.provider) for one in measured))


def run(options: argparse.Namespace) -> int:
    """Measures, prints the summary, compares; the exit code says whether all is well."""
    if options.report:
        return render(options.output)
    if options.host:
        return host.run(options)
    machine = this_machine()
    if machine.device != "cuda" and not (options.tiny or options.list):
        print(
            "cnnkernels bench: needs a CUDA device. Without one: --tiny runs every case on a handful of elements, "
            "--host measures what a CPU can tell, --list names the cases",
            file=sys.stderr,
        )
        return 2
    if options.whole:
        return run_networks(options, machine)
    selected = select(options)
    if not selected:
        print("cnnkernels bench: no case passes these filters", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(case.key for case in selected))
        return 0
    return run_cases(options, machine, selected)


def run_cases(options: argparse.Namespace, machine: Machine, selected: Sequence[Case]) -> int:
    output = options.output or default_output(machine, options)
    if options.tiny and options.output is None and output.exists():
        output.unlink()  # no measurement, nothing to go on with
    seconds = options.seconds or (QUICK_SECONDS if options.quick else float("inf"))
    first = DEADLINE not in os.environ
    deadline = float(os.environ.pop(DEADLINE, time.time() + seconds))
    providers = chosen_providers(options)
    if first and options.quick and not options.tiny and PROVIDERS["triton"] in providers:
        say(f"compiled Triton's kernels in {prewarm.prewarm(selected):.0f} s")
    bench, results = start(options, machine, output, _types(selected))
    done = results.done(results.sessions[-1])
    if machine.device == "cuda":
        gc.collect()
        gc.freeze()  # each capture of a graph collects garbage: not what is there to stay
    cut = measure_all(selected, providers, bench, results, done, deadline)
    keys = {case.key for case in selected}
    records = [record for record in results.records.values() if record.key in keys]
    lines = [*(tiny_summary(records) if options.tiny else summary(records)), *cut_lines(cut)]
    failed = bool(faults(records))
    if options.against is not None:
        more, worse = against(options.against, results, keys, options.tolerance)
        lines += more
        failed = failed or worse
    written = [] if options.tiny else report.write(results)
    print("\n".join(["", *lines, *(f"wrote {path}" for path in written), f"results: {output}"]), flush=True)
    return int(failed)
