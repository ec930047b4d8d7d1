"""Which trials of operators in random orders of memory there are, and one of them."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch

from helpers.device import DEVICE
from helpers.memory_orders import floats, int8, norms, pools, transposed
from helpers.memory_orders.trial import InexactError, Trial

BACKENDS = ("cuda", "triton", "reference")
FLOATING = floats.OPERATORS | transposed.OPERATORS | pools.OPERATORS | norms.OPERATORS
DIRECTIONS = {name: floats.DIRECTIONS for name in FLOATING} | {
    name: ("forward", "backward") if name == "int8_weight_only_linear" else ("forward",) for name in int8.OPERATORS
}


OPERATORS = FLOATING | int8.OPERATORS
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
    return backend != "reference" or operator in int8.OPERATORS


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
