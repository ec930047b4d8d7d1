"""GPUs made of software: what compilers made of kernels runs on the CPU, as PTX (csrc/emulator).

CUDA's kernels come with their host code in `cnnkernels._emulated`; here is the way of Triton's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

from .. import package
from ..native import load

GPU = "CNNKERNELS_EMULATED_GPU"


def word(variable: str, default: str, *words: str) -> str:
    """What a variable of the environment says, `default` where it is not set.

    Raises:
        ValueError: it is none of them.
    """
    said = os.environ.get(variable) or default
    if said not in words:
        raise ValueError(f"{variable} must be one of {', '.join(words)} for the emulator, but got {said!r}")
    return said


def number(variable: str) -> int:
    """What a variable of the environment counts, 0 where it is not set.

    Raises:
        ValueError: it is no number from 0 on.
    """
    said = os.environ.get(variable) or "0"
    if not said.isdecimal():
        raise ValueError(f"{variable} must be a number, but got {said!r}")
    return int(said)


@functools.cache
def serve_triton() -> None:
    """Has Triton compile for CNNKERNELS_EMULATED_GPU and launch in the emulator; once a process.

    Raises:
        ValueError: a variable of the environment that the emulator reads has no word of its.
        RuntimeError: Triton interprets in this process.
    """
    from . import triton_driver

    emulator: Any = package.load("_emulator")
    gpus = {gpu.name: gpu for gpu in load("interpreter").module.gpus()}
    gpu = gpus[word(GPU, "h200", *gpus)]
    order = word("CNNKERNELS_SCHEDULE", "ordered", "ordered", "reversed", "random")
    delivery = word("CNNKERNELS_DELIVERY", "late", "late", "random", "early")
    seed, threads = number("CNNKERNELS_SEED"), number("CNNKERNELS_THREADS")

    def mode(memory: Sequence[tuple[int, int]]) -> Any:
        return emulator.Mode(
            random=order == "random",
            reversed=order == "reversed",
            late=delivery != "early",
            unasked=delivery == "random",
            seed=seed,
            threads=threads,
            memory=memory,
        )

    triton_driver.install(emulator, gpu.architecture, gpu.block_bytes, mode)
