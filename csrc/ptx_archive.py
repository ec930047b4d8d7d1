"""The PTX of the CUDA sources, kept for the emulator: what ptxas got, by no second compilation.

nvcc's --keep leaves it in a folder. `sections` is the assembler that takes it from there into the object, so that a
compiler cache has it too, in sections that no link takes along. Run as a script, this gathers those of many objects:

    python csrc/ptx_archive.py ARCHIVE OBJECT...

In the archive index.json says of each text what it was compiled to, which kernels it has, and the registers and the
shared memory that ptxas gave each. csrc/emulator/runtime/images.h reads it as a driver reads what a program registers.
"""

from __future__ import annotations

import json
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".ptx."
PASS = re.compile(r"-gencode=arch=(\w+),code=\[([\w,]+)\]")
ENTRY = re.compile(r"^(?:\.visible |\.weak )?\.entry (\w+)", re.MULTILINE)
COMPILED = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
MADE = (1980, 1, 1, 0, 0, 0)  # the same archive of the same objects


def sections(source: Path, gencode: list[str], kept: Path) -> str:
    """Assembler with a section for each PTX that nvcc leaves in `kept`, named by what it is and what becomes of it."""
    passes = [match.groups() for flag in gencode if (match := PASS.fullmatch(flag))]
    lines = []
    for virtual, codes in passes:
        file = f"{source.stem}.{virtual}.ptx" if len(passes) > 1 else f"{source.stem}.ptx"
        name = PREFIX + ".".join([virtual, *codes.split(",")])
        lines += [f'.section {name},"e",@progbits', f'.incbin "{kept / file}"']
    return "\n".join([*lines, ".text", ""])


def kept(elf: bytes) -> Iterator[tuple[list[str], str]]:
    """The architectures in a section's name, and its text."""
    (table,), (size, count, names) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<3H", elf, 0x3A)
    headers = [struct.unpack_from("<II4Q", elf, table + size * i) for i in range(count)]
    strings = headers[names][4]
    for header in headers:
        name = elf[strings + header[0] : elf.index(b"\0", strings + header[0])].decode()
        if name.startswith(PREFIX):
            yield name[len(PREFIX) :].split("."), elf[header[4] : header[4] + header[5]].decode()


def usage(log: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Registers and static shared memory of kernel and architecture, as `ptxas -v` says."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for part in log.split("ptxas info")[1:]:
        if match := COMPILED.search(part):
            kernel = match[1], match[2]
        elif match := re.search(r"Used (\d+) registers", part):
            shared = re.search(r"(\d+) bytes smem", part)
            found[kernel] = int(match[1]), int(shared[1]) if shared else 0
    return found


def main(out: Path, objects: list[Path]) -> None:
    images = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, text: str) -> None:
            archive.writestr(zipfile.ZipInfo(name, MADE), text, zipfile.ZIP_DEFLATED)

        for path in objects:
            used = usage(path.with_name(path.name + ".log").read_text())
            source = path.with_suffix("").as_posix().partition("/cuda/")[2]
            for (virtual, *codes), text in kept(path.read_bytes()):
                file = f"{source}/{virtual}.ptx"
                kernels = {
                    name: {code: used[name, code] for code in codes if (name, code) in used}
                    for name in ENTRY.findall(text)
                }
                if kernels:
                    add(file, text)
                images.append({"file": file, "codes": codes, "kernels": kernels})
        add("index.json", json.dumps(images, separators=(",", ":")))
        size = sum(member.file_size for member in archive.infolist())
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, of {size / 2**20:.1f} MiB of PTX")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
