"""A table of measured plans for one case of conv2d."""

from __future__ import annotations

from dataclasses import replace

from cnnkernels.records import tuned
from cnnkernels.testing.cases import ConvCase

CASE = ConvCase("", 2, 8, 6, 6, 16, 3, 3, padding=(1, 1, 1, 1))
PLAN = {"engine": "mma", "tile": [128, 32], "a": "along_depth", "b": "along_depth", "splits": 1}
ROW = tuned.Row(
    "cuda", "forward", "bf16", "nhwc", tuned.geometry_fields("forward", CASE.geometry), PLAN, 41.2, 45.0
)  # fmt: skip


TABLE = tuned.Table("NVIDIA H200", "2026-01-31", {"torch": "2.11.0"}, (ROW, replace(ROW, dtype="fp16")))


def forget() -> None:
    tuned.plans.cache_clear()
    tuned._tables.cache_clear()
