"""The audit reads what the compilers print; a spill, local memory or a serialised wgmma must not pass it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "benchmarks"))
import audit
import instruction_table
from epilogue_code import finish_int8
from machine_code import Loop, count_instructions, main_loop, multiply_adds, parse

SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;   /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0030*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0040*/                   LDL.64 R6, [R1] ;
        /*0050*/                   NOP ;
"""


def test_instructions_are_grouped() -> None:
    counts = count_instructions(SASS)
    assert counts == {"all": 5, "LDG.128": 1, "GMMA": 1, "MMA": 1, "local": 1}


def machine_code(text: str) -> str:
    """What cuobjdump would print of instructions, one a line, 16 bytes each."""
    return "\n".join(f"        /*{16 * i:04x}*/  {line} ;  /* 0x0 */" for i, line in enumerate(text.split("\n")))


def test_the_main_loop_is_the_innermost_around_the_work() -> None:
    """Tiles (from 0010) of steps (from 0020) that wait for their data: once in place and once out of the way."""
    loop = main_loop(
        parse(
            machine_code(
                "MOV R1, R2\n"
                "FFMA R3, R3, R3, R3\n"
                "@!P0 BRA 0xa0\n"
                "WARPGROUP.ARRIVE\n"
                "HGMMA.64x256x16.F32.BF16 R24, gdesc[UR4], R24\n"
                "SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [R4]\n"
                "@!P1 BRA 0x50\n"
                "@P2 BRA 0x20\n"
                "@P3 BRA 0x10\n"
                "EXIT\n"
                "SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [R5]\n"
                "@!P1 BRA 0xa0\n"
                "BRA 0x30\n"
                "NOP"
            )
        )
    )
    assert loop is not None
    assert loop.work == 16 * 256 * 16 and loop.unit == "multiply-adds"
    assert loop.instructions == {"all": 9, "GMMA": 1, "BAR": 2}
    assert loop.per_1024 == round(9 / 64, 3)


@pytest.mark.parametrize(
    ("mnemonic", "work"),
    [("HMMA.16816.F32.BF16", 2048), ("HMMA.1688.F32.TF32", 1024), ("IMMA.16832.S8.S8", 4096), ("DMMA.884", 256),
     ("DMMA.16x8x16", 2048), ("HGMMA.64x8x16.F32", 2048), ("IGMMA.64x256x32.S8.S8", 131072), ("FFMA.FTZ", 32),
     ("FFMA2", 64), ("HFMA2.BF16_V2", 64), ("IDP.4A.S8.S8", 128), ("FADD", 0), ("IMAD.WIDE", 0)],
)  # fmt: skip
def test_multiply_adds_of_an_instruction(mnemonic: str, work: int) -> None:
    assert multiply_adds(mnemonic) == work


def test_work_outside_of_loops_is_not_passed_over() -> None:
    written_out = "\n".join(["FFMA R3, R3, R3, R3"] * 5)
    loop = main_loop(parse(machine_code(f"FFMA R1, R1, R1, R1\n@P0 BRA 0x0\n{written_out}\nEXIT")))
    assert loop is not None and (loop.work, loop.instructions["all"]) == (6 * 32, 8)


def test_the_cheapest_of_several_ways_is_the_main_one() -> None:
    """Of two large loops; a third takes still less for its work, but does little of it."""

    def loop(start: int, works: int, others: int) -> str:
        return "FFMA R3, R3, R3, R3\n" * works + "IADD R1, R1, R2\n" * others + f"@P1 BRA 0x{16 * start:x}\n"

    found = main_loop(parse(machine_code(f"@P0 BRA 0x120\n{loop(1, 8, 8)}{loop(18, 10, 12)}{loop(41, 1, 0)}EXIT")))
    assert found is not None and (found.work, found.instructions["all"]) == (8 * 32, 17)


def test_a_kernel_that_only_moves_data_is_measured_by_bytes() -> None:
    """Also where it multiplies on the way, and where a constant looks as if it did."""
    copies = "LDG.E.128 R4, [R2]\nSTG.E.U16 [R4], R6\n"
    code = parse(machine_code(f"{copies}FFMA R1, R1, R1, R1\n@P0 BRA 0x0"))
    work = 32 * (16 + 2)
    for loop in (
        main_loop(code, moves_data=True),
        main_loop(parse(machine_code(f"{copies}HFMA2.MMA R1, -RZ, RZ, 0, 0\n@P0 BRA 0x0"))),
    ):
        assert loop is not None and (loop.work, loop.unit) == (work, "bytes")
    multiplies = main_loop(code)
    assert multiplies is not None and (multiplies.work, multiplies.unit) == (32, "multiply-adds")
    assert main_loop(parse(machine_code("IADD R1, R1, R2\nEXIT"))) is None


@pytest.mark.parametrize(
    ("family", "unit"),
    [("pool", "bytes"), ("pool.max_pool", "bytes"), ("quantize.quantize", "bytes"), ("conv.direct", "multiply-adds")],
)
def test_the_operator_says_what_work_is(family: str, unit: str) -> None:
    """Of Triton's kernels, a family is the operator's with its module's name."""
    kernel = audit.Kernel(family, "kernel", "sm_90")
    kernel.read(machine_code("LDG.E.128 R4, [R2]\nFFMA R1, R1, R1, R1\n@P0 BRA 0x0"))
    assert kernel.loop is not None and kernel.loop.unit == unit


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(instruction_table, "TABLE", tmp_path / "instructions.json")
    monkeypatch.setattr(instruction_table, "compiler", lambda language: "13.0")
    return tmp_path / "instructions.json"


def kernels(**instructions: int) -> list[audit.Kernel]:
    return [
        audit.Kernel("conv2d", name, "sm_90a", loop=Loop(audit.Counter(all=number, MMA=4), 4096, "multiply-adds"))
        for name, number in instructions.items()
    ]


def test_a_main_loop_that_grew_is_a_fault(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instruction_table.write("cuda", kernels(tile=40, other=20, same=10))
    assert json.loads(table.read_text())["cuda"]["kernels"]["conv2d: tile"] == {"sm_90a": 10.0}
    assert instruction_table.compare("cuda", kernels(tile=40, other=20, same=10)) == ([], [])

    faults, notes = instruction_table.compare("cuda", kernels(tile=41, other=19, same=10, new=1))
    (fault,) = faults
    assert "conv2d: tile (sm_90a)" in fault and "takes 10.25 instructions for 1024 multiply-adds, 10.0 before" in fault
    assert "now 41, of them 4 MMA" in fault and "ACCEPT=1" in fault
    (note,) = notes
    assert "1 main loops and epilogues take fewer" in note and "1 are not in it" in note

    instruction_table.write("triton", kernels(tile=1))  # the other language's part stays
    assert len(instruction_table.compare("cuda", kernels(tile=41))[0]) == 1
    monkeypatch.setattr(instruction_table, "compiler", lambda language: "13.1")
    faults, (note,) = instruction_table.compare("cuda", kernels(tile=41))
    assert not faults and "not compared" in note


def test_the_shortest_way_to_finish_outputs_is_counted() -> None:
    """Of a loop with a way for other types, a jump by table, and one output at a time at the end."""
    ways = ["LDS.128 R4, [R2]", "@P0 BRA 0x40", "BRX R8 -0x20", "STG.E.128 [R2], R4"]  # no integers go there
    ways += ["F2I.NTZ R4, R4", "F2I.NTZ R5, R5", "STG.E [R2], R4", "STG.E [R2], R5", "@P1 BRA 0x0"]
    ways += ["F2I.NTZ R4, R4", "STG.E.U8 [R2], R4", "@P1 BRA 0x90", "EXIT"]
    assert finish_int8(parse(machine_code("\n".join(ways)))) == 3.5  # seven instructions, two stores
    by_table = [*ways[:1], "BRX R8 -0x20", "STG.E.128 [R2], R4", "BRA 0x0", *ways[4:8], "BRA 0x0"]
    assert finish_int8(parse(machine_code("\n".join(by_table)))) == 3.5
    assert finish_int8(parse(machine_code("LDS.128 R4, [R2]\nSTG.E [R2], R4\n@P0 BRA 0x0\nEXIT"))) is None


def test_an_epilogue_that_grew_is_a_fault(table: Path) -> None:
    finishing = [audit.Kernel("int8", "product", "sm_90a", finish=50.0)]
    instruction_table.write("cuda", finishing)
    assert instruction_table.compare("cuda", finishing) == ([], [])
    finishing[0].finish = 51.0
    (fault,), _ = instruction_table.compare("cuda", finishing)
    assert "int8: product: four INT8 outputs (sm_90a): take 51.0 instructions, 50.0 before" in fault


def test_of_two_kernels_of_one_name_the_larger_stands(table: Path) -> None:
    instruction_table.write("cuda", kernels(tile=40) + kernels(tile=20))
    assert instruction_table.compare("cuda", kernels(tile=20)) == (
        [], ["cuda: 1 main loops and epilogues take fewer instructions than instructions.json says, 0 are not in"
             " it: `make audit ACCEPT=1`"]
    )  # fmt: skip


def test_the_committed_table_holds_the_kernel_for_hopper() -> None:
    table = json.loads(instruction_table.TABLE.read_text())
    hopper = [by_arch for name, by_arch in table["cuda"]["kernels"].items() if "sm90::convolution" in name]
    assert hopper and all(0 < figure < 2 for by_arch in hopper for figure in by_arch.values())
    assert table["triton"]["kernels"]


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


def test_exact_fp32_on_tensor_cores_is_a_fault() -> None:
    for name, cores, faulty in (("fp32", "UTCHMMA", True), ("fp32", "HMMA.1688", True), ("tf32", "UTCHMMA", False)):
        kernel = audit.Kernel("conv2d", f"forward_kernel {name} nhwc 3x3", "sm_100")
        kernel.read(machine_code(f"{cores} R1, R2\nFFMA R3, R3, R3, R3\nEXIT"))
        assert ("1 tensor-core instructions" in kernel.fault) == faulty == bool(kernel.fault)


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
