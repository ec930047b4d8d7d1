"""Runs every example with its defaults, one after the other, within a time; `make examples` is this.

Each is a process of its own, forked when PyTorch and the kernels have been imported, so that they are imported once.

python examples/all.py [NAME ...] [--seconds 90]
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = {"all.py", "common.py", "networks.py"}
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.name not in SHARED)


def run(name: str) -> tuple[int, float]:
    """The example's exit code, and the CPU-seconds that it took."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.argv = [str(HERE / f"{name}.py")]
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=90, help="that all may take together (default: 90)")
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))

    import common  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch._dynamo

    import cnnkernels  # noqa: F401

    torch.set_num_threads(1)  # networks this small are slower on two
    began, table = time.perf_counter(), []
    for name in given.names or NAMES:
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        code, cpu = run(name)
        table.append((name, code, time.perf_counter() - started, cpu))
    took = time.perf_counter() - began
    print()
    for name, code, seconds, cpu in table:
        print(f"{name:<16} {'ok' if code == 0 else f'rc {code}':<6} {seconds:5.1f} s, {cpu:4.1f} of a CPU")
    print(f"{'together':<16} {'ok' if took <= given.seconds else 'LATE':<6} {took:5.1f} s of {given.seconds:.0f}")
    return int(any(code for _, code, *_ in table) or took > given.seconds)


if __name__ == "__main__":
    sys.exit(main())
