"""Our main loops beside those of peers whose machine code can be seen, without a GPU: `make peers`.

CUTLASS's kernels (benchmarks/peers, out of the headers of the package nvidia-cutlass) are compiled by the nvcc that
compiles ours, one after the other, and read as `make audit` reads ours; ours and Triton's are what the audit left in
instructions.json. The table goes to machine_code_peers.json, from which docs/performance.md is made.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import instruction_table
from audit import find_tool
from machine_code import main_loop, parse
from peers.table import ROWS, TABLE, Row, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "csrc"))
import toolkit

PEERS = Path(__file__).with_name("peers")


def compile_peer(row: Row, include: Path, nvcc: str, folder: Path) -> Path:
    """The cubin of a row's peer, alone."""
    cubin = folder / f"{row.arch}_{row.cutlass}.cubin"
    headers = [f"-I{include / name}" for name in ("include", "tools/util/include")]
    what = [f"-DCNN_PEER={row.cutlass}", "-cubin", f"-arch={row.arch}", "-o", str(cubin)]
    source = PEERS / f"{row.arch.rstrip('a').replace('_', '')}.cu"
    language = ["-std=c++20", "--expt-relaxed-constexpr"]
    subprocess.run([*nvcc.split(), *language, *headers, *what, str(source)], check=True)
    return cubin


def read(sass: str) -> float:
    """Instructions of the main loop for 1024 multiply-adds of a kernel's machine code."""
    loop = main_loop(parse(sass))
    if loop is None or loop.unit != "multiply-adds":
        raise ValueError("no main loop was found in the peer's machine code")
    return loop.per_1024


def measure(rows: Sequence[Row]) -> dict[str, float]:
    """What the main loops of the rows' peers take, by architecture and name. Each takes a minute to compile."""
    cutlass = importlib.util.find_spec("cutlass_library")
    found = toolkit.find()
    if cutlass is None or cutlass.origin is None or found is None:
        raise SystemExit("peers: the package nvidia-cutlass or nvcc is missing; `make peers` installs the former")
    cuobjdump = find_tool("cuobjdump")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            if row.cutlass:
                print(f"compiling {row.cutlass} for {row.arch}", flush=True)
                cubin = compile_peer(row, Path(cutlass.origin).parent / "source", found.nvcc, Path(folder))
                dump = [str(cuobjdump), "-sass", str(cubin)]
                sass = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
                figures[f"{row.arch} {row.cutlass}"] = read(sass)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="print the peers whose names hold this, and write nothing")
    only = parser.parse_args().only
    chosen = [row for row in ROWS if only is None or only in row.cutlass]
    figures = measure(chosen)
    if only is None:
        versions = {"cutlass": importlib.metadata.version("nvidia-cutlass"), "nvcc": instruction_table.compiler("cuda")}
        TABLE.write_text(json.dumps({"versions": versions, "kernels": figures}, indent=1) + "\n")
    print("\n".join(table(figures)))


if __name__ == "__main__":
    main()
