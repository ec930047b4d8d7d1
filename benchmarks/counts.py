"""What the kernels execute on the workloads' shapes, counted in the emulator without a GPU: counts.json.

A line a kernel and case, of the cases of `bench --quick` at a batch that is small: what a few blocks executed. One that
executes more of anything than the table says fails `make audit`; `make audit ACCEPT=1`, or
`python -m benchmarks.counts --accept`, writes what is found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_name("counts.json")
ACCEPT = "python -m benchmarks.counts --accept"
BLOCKS = 2  # of a launch: the first and the last
BATCH = 4
GPUS = ("a100", "h200")
# Counts of csrc/emulator/profile that should not grow.
COUNTED = ("warps", "issue_slots", "wavefronts", "streamed_wavefronts", "sectors", "l2_sectors", "multiply_adds")
# What says little that others do not, or takes long to emulate.
LEFT_OUT = ("vgg16, large", "dilated", "a convolution of unet", "a pyramid's finest", "replknet_31b, first stage")
LEFT_OUT_DIRECTIONS = ("training",)

CHOOSE = ("max_pool2d",)  # what the gradient executes depends on what the forward found: all of that runs

Table = dict[str, dict[str, int]]


def compiler() -> str:
    """The nvcc of a GPU's code, whose counts are compared with its own alone."""
    sys.path.insert(0, str(Path(__file__).parent))
    from instruction_table import compiler as of_language

    return of_language("cuda")


def _cases() -> Iterator[Any]:
    from .cases import quick

    for case in quick():
        if case.problem.reason not in LEFT_OUT and case.direction not in LEFT_OUT_DIRECTIONS and case.dtype != "tf32":
            yield case if case.family in ("int8_gemm", "int8_linear") else case.with_samples(BATCH)


def count() -> Table:
    """By kernel and case; in a process that runs PTX."""
    from cnnkernels.cli.profile_report import readable
    from cnnkernels.emulator.profile import counted
    from cnnkernels.native import load

    from .providers import Ours
    from .verify import make_inputs

    module, provider = load("emulated").module, Ours("cuda")
    found: Table = {}
    for gpu in GPUS:
        module.stand_for(gpu)
        for case in _cases():
            inputs = make_inputs(case, "cpu", seed=0)
            blocks = 0 if case.family in CHOOSE else 1
            work, _ = counted(lambda case=case, inputs=inputs: provider.setup(case, inputs), blocks)
            _, launches = counted(work, BLOCKS)
            for launch in launches:
                line = found.setdefault(f"{gpu}: {case.key}: {readable(launch.kernel)}", dict.fromkeys(COUNTED, 0))
                for name in COUNTED:
                    line[name] += launch.sum(name)
    return found


def grown(before: Table, now: Mapping[str, Mapping[str, int]]) -> tuple[list[str], list[str]]:
    """What executes more than it did, and what else differs."""
    faults, less, new = [], 0, [name for name in now if name not in before]
    for name, counts in before.items():
        for what, count in counts.items():
            found = now.get(name, {}).get(what)
            if found is None:
                continue
            if found > count:
                faults.append(f"{name}: {found} {what.replace('_', ' ')}, {count} before. If that is meant: `{ACCEPT}`")
            less += found < count
    gone = sum(name not in now for name in before)
    notes = []
    if less or new or gone:
        notes.append(
            f"{TABLE.name}: {less} counts are less, {len(new)} kernels are not in it, {gone} no longer run: `{ACCEPT}`"
        )
    return faults, notes


def in_a_process() -> Table:
    """As `count`, whatever this process has imported."""
    variables = {"CNNKERNELS_INTERPRET": "ptx", "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "benchmarks.counts", "--print"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"benchmarks.counts: {done.stderr[-2000:]}")
    table: Table = json.loads(done.stdout)
    return table


def write(table: Table) -> None:
    lines = [f"  {json.dumps(name)}: {json.dumps(counts)}" for name, counts in sorted(table.items())]
    TABLE.write_text(f'{{"compiler": {json.dumps(compiler())}, "counts": {{\n' + ",\n".join(lines) + "\n}}\n")


def built() -> bool:
    return any(ROOT.glob("cnnkernels/_emulated.*.so"))


def compare() -> tuple[list[str], list[str]]:
    """Faults and notes for the audit."""
    if not built():
        return [], [f"{TABLE.name}: cnnkernels._emulated is not built: not compared"]
    known: dict[str, Any] = json.loads(TABLE.read_text())
    if compiler() != known["compiler"]:
        return [], [f"{TABLE.name} is of nvcc {known['compiler']}, this is {compiler() or 'unknown'}: not compared"]
    return grown(known["counts"], in_a_process())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help=f"write what is found to {TABLE.name}")
    parser.add_argument("--print", action="store_true", help="print what is found as JSON, in this process")
    options = parser.parse_args()
    if options.print:
        print(json.dumps(count()))
        return 0
    if options.accept:
        write(in_a_process())
        return 0
    faults, notes = compare()
    print(*notes, *(f"FAULT {fault}" for fault in faults), sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
