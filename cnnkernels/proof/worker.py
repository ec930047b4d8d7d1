"""A process that proves one family after another, as it is told on standard input, and answers on standard output.

An error of CUDA poisons its process, so it is replaced after any failure (`run.py`).
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

import torch

from .. import backends
from ..certified.families import Family
from . import trials


def _why_not(backend: str, device: str) -> str:
    """Why no kernel of a backend can be tried here, as far as it is seen without a launch."""
    kind = torch.device(device).type
    if missing := backends.why_missing(backend, kind):
        return missing
    if kind == "cuda":
        capability = torch.cuda.get_device_capability()
        if too_old := backends.why_not(backend, backends.Problem("conv2d", kind, torch.float32, capability)):  # type: ignore[arg-type]
            return too_old
    try:
        kernels = backends.kernels(backend, kind)
        if backend == "cuda":
            kernels.module.this_gpu()
    except Exception as error:  # an old driver, a library that cannot be loaded
        return f"{type(error).__name__}: {error}"
    return ""


def _answer(to: TextIO, **what: Any) -> None:
    to.write(json.dumps(what) + "\n")
    to.flush()


def main(device: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print goes to the log
    if device != "cpu":
        torch.cuda.set_device(device)
    _answer(answers, why_not={backend: _why_not(backend, device) for backend in backends.KERNEL_BACKENDS})
    for line in sys.stdin:
        asked = json.loads(line)
        family = Family(*asked["family"])
        kernels = backends.kernels(family.backend, torch.device(device).type)
        try:
            verdict = trials.run(family, kernels, device, asked["only"])
        except Exception as error:
            verdict = trials.Verdict(f"its trials could not be listed: {type(error).__name__}: {error}")
        _answer(answers, **verdict._asdict())


if __name__ == "__main__":
    main(sys.argv[1])
