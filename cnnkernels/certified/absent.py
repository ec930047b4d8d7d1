"""Why PyTorch sees no GPU: each cause has a remedy of its own."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def why_no_gpu(devices: Path = Path("/dev")) -> str:
    """The first thing in the way. `devices`: the folder where the driver has a file for each GPU."""
    if torch.version.cuda is None:
        return "it is built without CUDA"
    files = sorted(devices.glob("nvidia[0-9]*"))
    if not files:
        return f"there is none, or its driver is not loaded: {devices / 'nvidia0'} does not exist"
    if not any(os.access(file, os.R_OK | os.W_OK) for file in files):
        return f"no permission to open {files[0]}: it is for other users or groups, or not given to this container"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={hidden!r} hides all of them"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # a driver that is older than PyTorch's CUDA, among others
        return str(error).strip().splitlines()[0]
    return "the driver shows it none: CUDA_VISIBLE_DEVICES names others, or a GPU in MIG mode has no instance yet"
