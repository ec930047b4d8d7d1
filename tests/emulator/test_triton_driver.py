"""CNNKERNELS_INTERPRET=ptx for backend triton: CPU tensors run what Triton's compiler made of the kernels."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.emulated.operators import OPERATORS
from helpers.processes import children

pytest.importorskip("triton")

PTX = {"CNNKERNELS_INTERPRET": "ptx", "CNNKERNELS_BACKEND": "triton"}


def test_operators() -> None:
    """In the order of the blocks; test_every_triton_kernel.py has the variables that say otherwise. Triton compiles
    nothing here that it does not there."""
    assert children(
        OPERATORS,
        {"CNNKERNELS_INTERPRET": "1", "TRITON_INTERPRET": "0", "CNNKERNELS_BACKEND": "triton"},
        {**PTX, "CNNKERNELS_EMULATED_GPU": "a100", "CNNKERNELS_DELIVERY": "early"},
    ) == ["sm_90, right", "sm_80, right"]


REFUSED = """
import torch, cnnkernels
try:
    print(cnnkernels.functional.max_pool2d(torch.arange(4.).view(1, 1, 2, 2), 2).item())
except Exception as error:
    print(error)
"""


def test_what_the_variables_say() -> None:
    gpu = "CNNKERNELS_EMULATED_GPU must be one of a100, rtx3090, rtx4090, h100, h200, rtx5090 for the emulator"
    assert children(
        REFUSED,
        {**PTX, "CNNKERNELS_EMULATED_GPU": "gtx"},
        {**PTX, "CNNKERNELS_SCHEDULE": "backwards"},
        {**PTX, "CNNKERNELS_DELIVERY": "never"},
        {**PTX, "CNNKERNELS_SEED": "-1"},
        PTX,
    ) == [
        f"{gpu}, but got 'gtx'",
        "CNNKERNELS_SCHEDULE must be one of ordered, reversed, random for the emulator, but got 'backwards'",
        "CNNKERNELS_DELIVERY must be one of late, random, early for the emulator, but got 'never'",
        "CNNKERNELS_SEED must be a number, but got '-1'",
        "3.0",
    ]


def test_a_kernel_stays_within_its_tensors() -> None:
    """It writes to the four elements of a tensor, and to a fifth."""
    command = [sys.executable, "-m", "helpers.emulated.beyond"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **PTX}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    first, second, *_ = said.splitlines()
    assert first == "[1, 1, 1, 1]"
    assert second.startswith("global address ") and "outside of what the launch may touch" in second
    assert "helpers/emulated/beyond.py:" in said and "block (0,0,0), warp 0, thread (4,0,0)" in said
