"""The pools' kernels: the trials of a proof reach every one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cnnkernels.certified.families import FAMILIES
from cnnkernels.proof import pools, trial
from helpers.every_kernel import GPUS, Trial, emulated

DIRECTIONS = {
    "pool/forward.cu": ("max_forward",),
    "pool/backward.cu": ("max_backward",),
    "pool/gather.cu": ("max_backward",),
    "pool/unpool.cu": ("unpool_forward", "unpool_backward"),
    "pool/avg_forward.cu": ("avg_forward",),
    "pool/avg_backward.cu": ("avg_backward",),
    "pool/global.cu": ("avg_forward",),
}


def is_right(of: trial.Trial) -> None:
    for found, expected in of.call(emulated(), "cpu"):
        assert not trial.difference(found, expected), of.name


def trials(source: str) -> Iterator[Trial]:
    gpus = GPUS.values() if source == "pool/forward.cu" else ("h200",)  # which looks at the architecture
    for family in FAMILIES:
        if family.backend == "cuda" and family.word == "pool" and family.direction in DIRECTIONS.get(source, ()):
            for of in pools.trials(family):
                yield from (Trial(f"{family}, {of.name}", partial(is_right, of), gpu) for gpu in gpus)
