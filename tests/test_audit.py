"""The audit reads what the compilers print; a spill, local memory or a serialised wgmma must not pass it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import audit

SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;   /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0030*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0040*/                   LDL.64 R6, [R1] ;
        /*0050*/                   NOP ;
"""


def test_instructions_are_grouped() -> None:
    counts = audit.count_instructions(SASS)
    assert counts == {"all": 5, "LDG.128": 1, "GMMA": 1, "MMA": 1, "local": 1}


def test_a_log_gives_registers_spills_and_messages() -> None:
    log = (
        "ptxas info    : Compiling entry function '_Z1kv' for 'sm_90a'\n"
        "    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem\n"
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n"
    )
    kernels, messages = audit.read_log(log, "family")
    kernel = kernels["_Z1kv", "sm_90a"]
    assert (kernel.registers, kernel.spill_bytes, kernel.shared_bytes) == (40, 20, 1024)
    assert "spills 20 bytes" in kernel.fault
    assert len(messages) == 1


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc was not found")
def test_a_spilling_kernel_is_a_fault(tmp_path: Path) -> None:
    source = tmp_path / "spill.cu"
    source.write_text(
        "__global__ void __launch_bounds__(1024, 2) spill(float* x, int n) {\n"
        "  float v[64];\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) v[i] = x[i * n];\n"
        "  __syncthreads();\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 64; ++i) x[i * n + 1] = v[i] * v[63 - i] + v[(i * 7) % 64];\n"
        "}\n"
    )
    built = tmp_path / "spill.cu.o"
    command = ["nvcc", "-gencode=arch=compute_80,code=sm_80", "-Xptxas", "-v", "-c", str(source), "-o", str(built)]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    kernels, _ = audit.read_log(log, "planted")
    cuobjdump = audit.find_tool("cuobjdump")
    assert cuobjdump is not None
    audit.read_object(built, kernels, cuobjdump)
    (kernel,) = kernels.values()
    assert kernel.threads == 1024
    assert kernel.spill_bytes > 0 and kernel.instructions["local"] > 0
    assert "spills" in kernel.fault
