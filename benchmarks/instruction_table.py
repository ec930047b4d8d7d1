"""The committed table of what main loops take, and epilogues of INT8: instructions.json, a line a kernel, its figures
by architecture.

A figure is of one compiler: another one's figures are not compared. Where two kernels of a call have one name, the
larger figure stands for both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from machine_code import Loop

TABLE = Path(__file__).with_name("instructions.json")
ACCEPT = "make audit ACCEPT=1"
FINISH = "four INT8 outputs"  # what a name ends in whose figure is an epilogue's


class Audited(Protocol):
    """What is needed of a kernel: audit.Kernel."""

    family: str
    name: str
    arch: str
    loop: Loop | None
    finish: float | None


def compiler(language: str) -> str:
    """The version of the compiler that makes a language's machine code; nothing where it is not found."""
    if language == "triton":
        import triton

        return triton.__version__
    nvcc = (
        os.environ.get("NVCC") or shutil.which("nvcc") or f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin/nvcc"
    )
    try:
        said = subprocess.run([*nvcc.split(), "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    found = re.search(r"V(\d+\.\d+\.\d+)", said)
    return found[1] if found else ""


def figures(kernels: Iterable[Audited]) -> dict[str, dict[str, float]]:
    """Instructions of a main loop for 1024 multiply-adds (or bytes), and of an epilogue for four INT8 outputs, by name
    and architecture."""
    found: dict[str, dict[str, float]] = {}
    for kernel in kernels:
        name = f"{kernel.family}: {kernel.name}"
        for called, figure in ((name, kernel.loop and kernel.loop.per_1024), (f"{name}: {FINISH}", kernel.finish)):
            if figure is not None:
                by_arch = found.setdefault(called, {})
                by_arch[kernel.arch] = max(by_arch.get(kernel.arch, 0.0), figure)
    return found


def _read() -> dict[str, Any]:
    return json.loads(TABLE.read_text()) if TABLE.exists() else {}


def write(language: str, kernels: Iterable[Audited]) -> None:
    """Replaces a language's part of the table."""
    table = _read() | {language: {"compiler": compiler(language), "kernels": figures(kernels)}}
    parts = []
    for name, part in sorted(table.items()):
        lines = [
            f"  {json.dumps(kernel)}: {json.dumps(by_arch)}" for kernel, by_arch in sorted(part["kernels"].items())
        ]
        head = f'"{name}": {{"compiler": {json.dumps(part["compiler"])}, "kernels": {{'
        parts.append("\n".join([head, ",\n".join(lines), "}}"]))
    TABLE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def compare(language: str, kernels: Iterable[Audited]) -> tuple[list[str], list[str]]:
    """The kernels whose main loop takes more than the table says, and what else differs from it."""
    kernels = list(kernels)
    part = _read().get(language)
    if part is None:
        return [], [f"{TABLE.name} has no {language} kernels: `{ACCEPT}` writes it"]
    if (here := compiler(language)) != part["compiler"]:
        return [], [f"{TABLE.name} is of {language} {part['compiler']}, this is {here or 'unknown'}: not compared"]
    known, found = part["kernels"], figures(kernels)
    loops = {(f"{k.family}: {k.name}", k.arch, k.loop.per_1024): k.loop for k in kernels if k.loop}
    grown, smaller, new = [], 0, 0
    for name, by_arch in found.items():
        for arch, now in by_arch.items():
            before = known.get(name, {}).get(arch)
            if before is None:
                new += 1
            elif now > before and name.endswith(FINISH):
                grown.append(f"{name} ({arch}): take {now} instructions, {before} before. If that is meant: `{ACCEPT}`")
            elif now > before:
                loop = loops[name, arch, now]
                mix = ", ".join(f"{number} {kind}" for kind, number in loop.instructions.most_common() if kind != "all")
                grown.append(
                    f"{name} ({arch}): its main loop takes {now} instructions for 1024 {loop.unit}, {before} before;"
                    f" now {loop.instructions['all']}, of them {mix}. If that is meant: `{ACCEPT}`"
                )
            else:
                smaller += now < before
    notes = []
    if smaller or new:
        notes.append(
            f"{language}: {smaller} main loops and epilogues take fewer instructions than {TABLE.name} says, {new} are"
            f" not in it: `{ACCEPT}`"
        )
    return grown, notes
