"""Where a test's kernels run: on a GPU where there is one, else in the interpreters or the emulator."""

from __future__ import annotations

import os
from typing import Literal

import torch

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
PTX = os.environ.get("CNNKERNELS_INTERPRET", "").lower() == "ptx"  # make test-ptx
MODULE: Literal["cuda", "emulated", "interpreter"] = "cuda" if HAS_GPU else "emulated" if PTX else "interpreter"
