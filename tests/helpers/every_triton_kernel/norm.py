"""Batch normalization in Triton: trials by which a GPU is proved, in a type for each GPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from cnnkernels import triton_kernels
from cnnkernels.certified.families import NORMS, Family
from cnnkernels.proof import norms
from cnnkernels.proof.trial import Trial as Proof
from cnnkernels.proof.trial import difference
from helpers.every_triton_kernel import Trial


def is_right(trial: Proof) -> bool:
    return not any(difference(found, expected) for found, expected in trial.call(triton_kernels, "cpu"))


def trials(turn: int) -> Iterator[Trial]:
    element = ("bf16", "fp32")[turn]
    for direction in NORMS:
        by_elements, _, by_rows, *_ = norms.trials(Family("triton", "norm", direction, "plain", element))
        for trial in (by_elements, by_rows):
            yield Trial(f"batch_norm {direction} {element} {trial.name}", partial(is_right, trial))
