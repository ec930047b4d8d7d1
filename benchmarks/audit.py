"""What the compilers made of every kernel, without a GPU: `make audit`.

For each kernel and architecture: registers, spills, shared memory, how many warps of it an SM can hold, and the
instructions that matter. A spill, local memory, a serialised wgmma (ptxas C75xx) or a Triton kernel of exact fp32 on
tensor cores fails the audit. The CUDA kernels are read from the objects and ptxas logs of the build, the Triton ones
are compiled here for sm_80, sm_90 and sm_100.

instructions.json holds, for each kernel, the instructions its main loop takes for 1024 multiply-adds (kernels without
any: for 1024 bytes of global memory), and of those that finish INT8 products what four outputs of a thread take
(epilogue_code.py). A kernel that takes more than is written there fails the audit; `--accept` writes
the figures found. counts.json does the same for what kernels execute on the workloads' shapes (counts.py).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import counts
import instruction_table
from epilogue_code import finish_int8
from machine_code import GROUPS, Loop, count, main_loop, parse

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "build" / "native" / "cuda" / "csrc"
WARPS_PER_SM = 64
REGISTERS_PER_SM = 65536
MOVERS = ("pool", "int8_pool", "quantize")  # operators whose kernels' work is to move data
FINISHERS = ("int8", "int8_conv")  # operators whose CUDA kernels end in the epilogue of INT8 products


@dataclass
class Kernel:
    """One compiled kernel for one architecture."""

    family: str
    name: str
    arch: str
    threads: int = 0
    registers: int = 0
    spill_bytes: int = 0
    stack_bytes: int = 0
    shared_bytes: int = 0
    instructions: Counter[str] = field(default_factory=Counter)
    loop: Loop | None = None
    finish: float | None = None  # instructions for a run of INT8 outputs

    def read(self, sass: str) -> None:
        """Takes the machine code's figures."""
        instructions, operator = parse(sass), self.family.partition(".")[0]
        self.instructions, self.loop = count(instructions), main_loop(instructions, operator in MOVERS)
        if self.family in FINISHERS:
            self.finish = finish_int8(instructions)

    @property
    def warps(self) -> int:
        """Warps an SM can hold by registers alone, allocated in groups of 8 a thread and in whole blocks."""
        if self.registers == 0:
            return WARPS_PER_SM
        held = min(WARPS_PER_SM, REGISTERS_PER_SM // (-(-self.registers // 8) * 8 * 32))
        per_block = max(1, -(-self.threads // 32))
        return held // per_block * per_block

    @property
    def fault(self) -> str:
        if self.spill_bytes:
            return f"spills {self.spill_bytes} bytes"
        if self.instructions["local"]:
            return f"{self.instructions['local']} local memory accesses"
        cores = self.instructions["GMMA"] + self.instructions["MMA"]
        if cores and " fp32 " in self.name:  # of Triton's: tf32 has that name
            return f"{cores} tensor-core instructions, which round fp32 to tf32"
        return ""


def find_tool(name: str) -> str | None:
    """A binary utility from the PATH, or the one Triton's wheel carries."""
    if found := shutil.which(name):
        return found
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return str(bundled) if bundled.exists() else None


def demangle(names: list[str]) -> list[str]:
    """Readable kernel names: without namespaces, argument lists and the casts of template arguments."""
    plain = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    readable = []
    for line in plain.splitlines():
        line = re.sub(r"^void ", "", line).replace("(anonymous namespace)::", "").replace("cnnkernels::", "")
        line = re.sub(r"\([\w: ]+\)(?=-?\d)", "", line)
        readable.append(re.sub(r"\(.*$", "", line))
    return readable


def read_log(log: str, family: str) -> tuple[dict[tuple[str, str], Kernel], list[str]]:
    """Registers, spills and shared memory from ptxas -v, and the messages that fail an audit."""
    kernels: dict[tuple[str, str], Kernel] = {}
    kernel = None
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            kernel = kernels.setdefault((match[1], match[2]), Kernel(family, match[1], match[2]))
        elif kernel is None:
            continue
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernel.stack_bytes, kernel.spill_bytes = int(match[1]), int(match[2]) + int(match[3])
        elif match := re.search(r"Used (\d+) registers", line):
            kernel.registers = int(match[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                kernel.shared_bytes = int(shared[1])
    return kernels, [line for line in log.splitlines() if re.search(r"\bC75\d\d\b", line)]


def read_object(path: Path, kernels: dict[tuple[str, str], Kernel], cuobjdump: str) -> None:
    """Adds the instruction mix and the launch bound from the object's machine code."""

    def dump(what: str) -> str:
        return subprocess.run([cuobjdump, what, str(path)], capture_output=True, text=True, check=True).stdout

    arch = ""
    for part in re.split(r"(?=^\s*Function : )|(?=^arch = )", dump("-sass"), flags=re.MULTILINE):
        if match := re.match(r"arch = (\w+)", part):
            arch = match[1]
        elif (match := re.match(r"\s*Function : (\w+)", part)) and (match[1], arch) in kernels:
            kernels[match[1], arch].read(part)
    for part in re.split(r"(?=^\.nv\.info\.)|(?=^arch = )", dump("-elf"), flags=re.MULTILINE):
        if match := re.match(r"arch = (\w+)", part):
            arch = match[1]
        elif (match := re.match(r"\.nv\.info\.(\w+)", part)) and (match[1], arch) in kernels:
            bound = re.search(r"EIATTR_MAX_THREADS\s.*?Value:\s+0x([0-9a-f]+)", part, re.DOTALL)
            kernels[match[1], arch].threads = int(bound[1], 16) if bound else 0


def audit_cuda() -> tuple[list[Kernel], list[str]]:
    objects = sorted(OBJECTS.rglob("*.cu.o"))
    if not objects:
        print("CUDA: no objects of nvcc in build/ (no nvcc when building?): auditing Triton's kernels alone\n")
        return [], []
    cuobjdump = find_tool("cuobjdump")
    if cuobjdump is None:
        return [], ["cuobjdump was not found: install the CUDA binary utilities or triton"]
    audited, faults = [], []
    for path in objects:
        family = path.relative_to(OBJECTS).parts[0]
        kernels, messages = read_log(path.with_name(path.name + ".log").read_text(), family)
        faults += [f"{family}: {message}" for message in messages]
        if kernels:
            read_object(path, kernels, cuobjdump)
        audited += kernels.values()
    for kernel, name in zip(audited, demangle([k.name for k in audited]), strict=True):
        kernel.name = name
        if not kernel.instructions["all"]:
            faults.append(f"{name} ({kernel.arch}): no machine code found in the object")
    return audited, faults


def audit_triton(everything: bool) -> tuple[list[Kernel], list[str]]:
    from cnnkernels.testing import triton_aot

    calls = triton_aot.calls()
    if not everything:  # a minute an architecture and type: the types differ little, so one architecture has them all
        everywhere = ("bf16", "int8")
        calls = [c for c in calls if "odd channels" not in c.specialization and (c.arch == 90 or c.dtype in everywhere)]
    found = []
    for result in triton_aot.compile_all(calls):
        kernel = Kernel(result.family, f"{result.name} {result.specialization}", f"sm_{result.arch}", result.threads)
        kernel.registers, kernel.spill_bytes = result.registers, result.spill_bytes
        kernel.shared_bytes = result.shared_bytes
        kernel.read(result.sass)
        found.append(kernel)
    return found, []


def as_json(kernel: Kernel) -> dict[str, Any]:
    return vars(kernel) | {"loop": kernel.loop and kernel.loop._asdict()}


def print_table(title: str, kernels: list[Kernel]) -> None:
    used = [name for name in GROUPS if any(k.instructions[name] for k in kernels)]
    width = min(96, max(len(k.name) for k in kernels))
    header = ["arch", "threads", "regs", "warps", "spill", "smem", "all", "loop", "/1024", "finish", *used]
    print(f"{title}: {len(kernels)} kernels")
    print(f"{'kernel':<{width}} " + " ".join(f"{name:>{max(6, len(name))}}" for name in header))
    for k in sorted(kernels, key=lambda k: (k.family, k.arch, k.name)):
        numbers = [k.arch, k.threads, k.registers, k.warps, k.spill_bytes, k.shared_bytes, k.instructions["all"]]
        numbers += [k.loop.instructions["all"], k.loop.per_1024] if k.loop else [".", "."]
        numbers.append(k.finish or ".")
        numbers += [k.instructions[name] or "." for name in used]
        cells = " ".join(f"{value!s:>{max(6, len(name))}}" for value, name in zip(numbers, header, strict=True))
        print(f"{k.name[:width]:<{width}} {cells}")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["cuda", "triton"], help="audit one language")
    parser.add_argument(
        "--all",
        action="store_true",
        help="every Triton kernel: also odd channels, and every type on every architecture",
    )
    parser.add_argument(
        "--accept", action="store_true", help="write what is found to instructions.json and counts.json"
    )
    parser.add_argument("--json", type=Path, help="write every kernel's figures to this file")
    options = parser.parse_args()

    kernels: list[Kernel] = []
    faults: list[str] = []
    notes: list[str] = []
    for language in ("cuda", "triton"):
        if options.only in (None, language):
            found, messages = audit_cuda() if language == "cuda" else audit_triton(options.all)
            if found:
                print_table("CUDA" if language == "cuda" else "Triton", found)
                if options.accept:
                    instruction_table.write(language, found)
                else:
                    grown, more = instruction_table.compare(language, found)
                    faults += grown
                    notes += more
            kernels += found
            faults += messages
            faults += [f"{k.name} ({k.arch}): {k.fault}" for k in found if k.fault]
    if options.only != "triton":
        if options.accept:
            counts.write(counts.in_a_process())
        else:
            grown, more = counts.compare()
            faults += grown
            notes += more
    if options.json:
        options.json.write_text(json.dumps([as_json(k) for k in kernels], indent=1) + "\n")
    if not kernels:
        faults.append("nothing was audited")
    for line in notes:
        print(f"note: {line}")
    for line in faults:
        print(f"FAULT {line}")
    print(f"audit: {len(kernels)} kernels, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
