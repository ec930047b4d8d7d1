"""Operators on tensors in random orders of memory: permuted, expanded, with gaps, at offsets; every direction, backend.

    python tests/memory_orders.py --cases 20000 --seed 1            all of them, in turn
    python tests/memory_orders.py --operators conv2d --backends triton --cases 500
    python tests/memory_orders.py --case "conv2d backward triton 1 37"

A finding names its case, which the last form runs again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("CNNKERNELS_INTERPRET", "1")

from helpers.memory_orders.cases import BACKENDS, OPERATORS, Case, cases, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="others for another number (default: %(default)s)")
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS), metavar="NAME")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--case", help="run this one alone: operator, direction, backend, seed and number")
    arguments = parser.parse_args()
    if arguments.case is not None:
        *names, seed, number = arguments.case.split()
        run(Case(*names, int(seed), int(number)))
        return 0
    done: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    findings = 0
    for case in cases(arguments.operators, arguments.backends, arguments.seed, arguments.cases):
        began = time.perf_counter()
        try:
            run(case)
        except Exception as error:
            findings += 1
            first, *_ = str(error).splitlines() or [""]
            where = traceback.extract_tb(error.__traceback__)[-1]
            print(f'"{case}": {type(error).__name__}: {first} ({where.name}, line {where.lineno})', flush=True)
        kind = f"{case.operator} {case.direction} {case.backend}"
        done[kind] += 1
        seconds[kind] += time.perf_counter() - began
    for kind, count in done.items():
        print(f"{kind:<50} {count:>6} cases, {1000 * seconds[kind] / count:6.1f} ms each")
    print(f"{sum(done.values())} cases, {findings} findings")
    return findings > 0


if __name__ == "__main__":
    sys.exit(main())
