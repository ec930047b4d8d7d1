"""Where a test's kernels run: on a GPU where there is one, else in the interpreters."""

from __future__ import annotations

import torch

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
