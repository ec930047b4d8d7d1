"""Operators on tensors in random orders of memory: permuted, expanded, with gaps, at offsets; every direction, backend.

    python tests/memory_orders.py --cases 20000 --seed 1            all of them, in turn
    python tests/memory_orders.py --operators conv2d --backends triton --cases 500
    python tests/memory_orders.py --case "conv2d backward triton 1 37"

A finding names its case, which the last form runs again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import traceback
from collections import Counter
from typing import NamedTuple

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("CNNKERNELS_INTERPRET", "1")

import helpers.orders_float as orders_float  # noqa: E402
import helpers.orders_int8 as orders_int8  # noqa: E402
from helpers.orders_trial import InexactError, Trial  # noqa: E402

BACKENDS = ("cuda", "triton", "reference")
DIRECTIONS = {name: orders_float.DIRECTIONS for name in orders_float.OPERATORS} | {
    name: ("forward", "backward") if name == "int8_weight_only_linear" else ("forward",)
    for name in orders_int8.OPERATORS
}
OPERATORS = orders_float.OPERATORS | orders_int8.OPERATORS
DRAWS = 50


class Case(NamedTuple):
    """One trial, which this names wholly."""

    operator: str
    direction: str
    backend: str
    seed: int
    number: int

    def __str__(self) -> str:
        return " ".join(map(str, self))


def run(case: Case) -> None:
    """Raises AssertionError where a result is wrong; draws anew where the dtype can not hold it.

    PyTorch has one thread: of several, any might be the last to write where indices of max_unpool2d repeat.
    """
    convolutions = torch.backends.cudnn.conv
    threads, precision = torch.get_num_threads(), convolutions.fp32_precision
    torch.set_num_threads(1)
    try:
        for attempt in range(DRAWS):
            trial = Trial(f"{case} {attempt}", case.backend, DEVICE)
            trial.direction = case.direction
            convolutions.fp32_precision = trial.choose("tf32", "ieee")
            with contextlib.suppress(InexactError):
                OPERATORS[case.operator](trial)
                trial.leaves_operands()
                return
    finally:
        torch.set_num_threads(threads)
        convolutions.fp32_precision = precision
    raise AssertionError(f"{DRAWS} draws without a result that the dtype holds")


def takes(operator: str, backend: str) -> bool:
    """The reference of the floating operators is PyTorch itself."""
    return backend != "reference" or operator in orders_int8.OPERATORS


def cases(operators: list[str], backends: list[str], seed: int, count: int) -> list[Case]:
    """So many, the same number of every operator, direction and backend."""
    kinds = [
        (name, way, backend)
        for backend in backends
        for name in operators
        for way in DIRECTIONS[name]
        if takes(name, backend)
    ]
    return [Case(*kinds[i % len(kinds)], seed, i // len(kinds)) for i in range(count)]


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
