"""Compiles cases to PTX, without ptxas and without a GPU: `python -m helpers.triton_cases.compiled FOLDER [NAME ...]`.

A process of its own, as Triton decides at its import whether it interprets; the results are one JSON file in FOLDER.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
from triton.runtime.driver import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from helpers.triton_cases import kernels
from helpers.triton_cases.cases import CASES, Box, Case


class NoDevice:
    """What Triton asks a GPU for."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0


def argument(value: Any) -> Any:
    if not isinstance(value, Box):
        return value
    if value.swizzle is None:
        return TensorDescriptor.from_tensor(value.tensor, value.block, padding=value.padding)
    ways = [[1, 0]] if value.split else [[0, 0]] if value.multicast else []
    layout = gl.NVMMASharedLayout(value.swizzle, value.tensor.element_size() * 8, 2, cga_layout=ways)
    return GluonDescriptor.from_tensor(value.tensor, value.block, layout, value.padding)


def constant(value: Any, case: Case) -> Any:
    """Types and layouts by name, since cases know nothing of Triton."""
    import triton.language as tl

    if isinstance(value, str):
        return getattr(tl, value)
    if not isinstance(value, tuple):
        return value
    kind, *rest = value
    if kind == "mma":
        columns, bits, split = rest
        shape = [16, columns, 256 // bits]
        return gl.NVMMADistributedLayout([3, 0], [case.warps, 1], shape, cga_layout=[[1, 0]] if split else [])
    if kind == "shared":
        swizzle, bits, _ = rest
        return gl.NVMMASharedLayout(swizzle, bits, 2)
    return gl.BlockedLayout([1, 4], [4, 8], [case.warps, 1], [1, 0])


def compiled(case: Case) -> dict[str, Any]:
    driver.set_active(NoDevice(case.arch))
    arguments = {name: argument(value) for name, value in case.arguments().items()}
    constants = {name: constant(value, case) for name, value in case.constants.items()}
    options = {"num_warps": case.warps, "num_stages": case.stages, "num_ctas": case.blocks}
    kernel = getattr(kernels, case.kernel).warmup(*arguments.values(), grid=case.grid, **constants, **options)
    found, ptx = kernel.metadata, kernel.asm["ptx"]
    threads = re.search(r"\.reqntid\s+(\d+)", ptx)
    return {
        "ptx": ptx,
        "entry": found.name,
        "threads": int(threads.group(1)) if threads else found.num_warps * 32,
        "shared": found.shared,
        "scratch": getattr(found, "global_scratch_size", 0),
        "types": {name: str(kernel.src.signature[name]) for name in arguments},
        "swizzles": [meta["swizzle"] for meta in getattr(found, "tensordesc_meta", None) or []],
        "blocks": [list(meta["block_size"]) for meta in getattr(found, "tensordesc_meta", None) or []],
    }


def main(folder: str, *names: str) -> None:
    CUDABackend.make_cubin = lambda self, src, metadata, options, capability: b"none"  # the PTX is all that is wanted
    results = {case.name: compiled(case) for case in CASES if not names or case.name in names}
    Path(folder, "compiled.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
