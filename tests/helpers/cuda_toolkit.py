"""The compiler and the binary utility of a CUDA toolkit that tests run."""

from __future__ import annotations

import os
import shlex
import shutil
from functools import cache
from pathlib import Path


@cache
def nvcc() -> list[str]:
    """The words of the command, before which a launcher may stand; none where there is no nvcc."""
    if given := os.environ.get("NVCC"):
        return shlex.split(given)
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    found = shutil.which("nvcc") or shutil.which(f"{home}/bin/nvcc")
    return [found] if found else []


def cuobjdump() -> Path | None:
    """From the CUDA toolkit, or out of triton's wheel."""
    found = shutil.which("cuobjdump")
    if found:
        return Path(found)
    try:
        import triton
    except ImportError:
        return None
    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return bundled if bundled.exists() else None
