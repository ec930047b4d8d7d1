"""The table of main loops beside CUTLASS's: each name in it is a kernel that exists, each figure is of one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import machine_code_peers
from peers.table import OURS_TABLE, ROWS, read_table, table

ROOT = Path(__file__).resolve().parents[2]
PEERS = {row.arch: ROOT / f"benchmarks/peers/{row.arch.rstrip('a').replace('_', '')}.cu" for row in ROWS}
LOOP = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDSM.16.M88.4 R8, [R2] ;
        /*0020*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0030*/                   HMMA.16816.F32 R4, R8, R12, R4 ;
        /*0040*/               @P0 BRA 0x10 ;
        /*0050*/                   EXIT ;
"""


def test_ours_are_in_the_audits_table() -> None:
    ours = json.loads(OURS_TABLE.read_text())
    for row in ROWS:
        assert row.cuda or row.triton or row.cutlass
        for language, arch in (("cuda", row.arch), ("triton", row.arch.rstrip("a"))):
            if name := getattr(row, language):
                assert arch in ours[language]["kernels"][name]


def test_every_peer_is_declared_and_was_read() -> None:
    for arch, source in PEERS.items():
        declared = re.findall(r"^using (\w+_\d+x\d+) =", source.read_text(), re.MULTILINE)
        assert sorted(declared) == sorted(row.cutlass for row in ROWS if row.arch == arch and row.cutlass)
    found = read_table()
    assert set(found["kernels"]) == {f"{row.arch} {row.cutlass}" for row in ROWS if row.cutlass}
    assert set(found["versions"]) == {"cutlass", "nvcc"}


def test_a_main_loop_is_read() -> None:
    assert machine_code_peers.read(LOOP) == 1024 * 4 / (2 * 16 * 8 * 16)
    with pytest.raises(ValueError, match="no main loop"):
        machine_code_peers.read("        /*0000*/                   EXIT ;\n")


def test_the_table_has_a_cell_for_each() -> None:
    lines = table({"sm_80 forward_bf16_128x128": 1.5})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in cells] == [[row.product, row.arch] for row in ROWS]
    assert [row[4] for row in cells if row[4] != "-"] == ["1.500"]
    assert all((row[2] == "-") == (not given.cuda) for row, given in zip(cells, ROWS, strict=True))
