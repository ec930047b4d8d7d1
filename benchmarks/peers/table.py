"""Which of our kernels stand beside which of CUTLASS's, and the table of their main loops (machine_code_peers.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).parents[1] / "machine_code_peers.json"
OURS_TABLE = Path(__file__).parents[1] / "instructions.json"


class Row(NamedTuple):
    """One product, by whom it is made: names in instructions.json, and of a kernel in benchmarks/peers."""

    product: str
    arch: str
    cuda: str
    triton: str
    cutlass: str


SM90 = "conv: conv::sm90::convolution<conv::sm90::Config<bfloat16, {}, {}, 128> >"
MMA = "conv: conv::implicit_gemm<conv::Config<bfloat16, 0, {}> >"
TRITON = "conv.{0}: {0}_kernel bf16 nhwc 3x3 {1}"
DIRECTIONS = ("forward", "backward_input", "backward_weight")
LARGE, MIDDLE = 0, 7  # of kSm90Tiles (csrc/conv/plan.h): 128x256, and 128x128 that alternate
LOADERS = ("0, 0", "0, 1", "1, 1")  # of a direction's operands: memory along depth, or along a side
OURS = [("sm_90a", SM90.format(number, MIDDLE), number) for number in range(3)]
OURS += [("sm_80", MMA.format(loaders), number) for number, loaders in enumerate(LOADERS)]
ROWS = [
    Row("forward, bf16, tiles 128x256", "sm_90a", SM90.format(0, LARGE), TRITON.format("forward", "128x256x64"), ""),
    *(
        Row(f"{DIRECTIONS[number]}, bf16, tiles 128x128", arch, cuda, TRITON.format(DIRECTIONS[number], "128x128x64"),
            f"{DIRECTIONS[number]}_bf16_128x128")
        for arch, cuda, number in OURS
    ),
    Row("matrix product, bf16, tiles 128x256", "sm_90a", "", "", "gemm_bf16_128x256"),
    Row("matrix product, INT8, tiles 128x256", "sm_90a", "int8: int8::sm90::int8_product<int8::sm90::Config<1, 128> >",
        "", "gemm_s8_128x256"),
    Row("matrix product, INT8, tiles 128x128", "sm_80", "int8: int8::int8_product<int8::Config<0, true, false> >", "",
        "gemm_s8_128x128"),
]  # fmt: skip


def read_table() -> Any:
    """The peers' figures as they were found last, and with which versions."""
    return json.loads(TABLE.read_text())


def table(peers: dict[str, float]) -> list[str]:
    """The rows in Markdown. Ours are from instructions.json."""
    ours = {language: part["kernels"] for language, part in json.loads(OURS_TABLE.read_text()).items()}

    def cell(language: str, row: Row) -> str:
        if language == "cutlass":
            figure = peers.get(f"{row.arch} {row.cutlass}")
        else:
            name = getattr(row, language)
            figure = ours[language][name][row.arch if language == "cuda" else row.arch.rstrip("a")] if name else None
        return "-" if figure is None else f"{figure:.3f}"

    lines = ["| product | for | ours, CUDA | ours, Triton | CUTLASS |", "|" + " --- |" * 5]
    for row in ROWS:
        lines.append(
            f"| {row.product} | {row.arch} | {' | '.join(cell(by, row) for by in ('cuda', 'triton', 'cutlass'))} |"
        )
    return lines
