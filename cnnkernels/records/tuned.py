"""Measured plans of conv2d: tables, one a GPU, that go before the cost models' choices.

`cnnkernels tune` writes such a table; those in the package's folder `tuned` and those that CNNKERNELS_TUNED names
(paths with the system's separator between them, later ones first) are read at the first call on a GPU:

    {"gpu": "NVIDIA H200", "date": "2026-01-31", "versions": {"torch": "2.11.0", ...},
     "rows": [{"backend": "cuda", "direction": "forward", "dtype": "bf16", "layout": "nhwc",
               "geometry": {"c": 64, "h": 56, ...}, "plan": {"engine": "mma", ...},
               "microseconds": 41.2, "selected_microseconds": 45.0}]}

A row holds for exactly one problem on that GPU. Forward and backward_input leave out the batch, which must not decide
how a sample is summed. `selected_microseconds` is what the cost model's choice took in the same run.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..dtypes import PRODUCTS
from ..geometry import ConvGeometry, Layout

DIRECTIONS = ("forward", "backward_input", "backward_weight")
FOLDER = Path(__file__).with_name("tuned")

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Row:
    """One problem's best plan; the fields are the table's."""

    backend: str
    direction: str
    dtype: str
    layout: str
    geometry: dict[str, int]
    plan: dict[str, Any]
    microseconds: float
    selected_microseconds: float

    @property
    def key(self) -> Key:
        return (self.direction, self.dtype, Layout[self.layout.upper()], tuple(sorted(self.geometry.items())))


@dataclass(frozen=True)
class Table:
    """A GPU's rows, and what they were measured with."""

    gpu: str
    date: str
    versions: dict[str, str]
    rows: tuple[Row, ...]


def geometry_fields(direction: str, geometry: ConvGeometry) -> dict[str, int]:
    """The numbers that a row names: all, but the batch only where it is summed over. Padding is of zeros."""
    fields = geometry._asdict()
    del fields["padding_mode"]
    if direction != "backward_weight":
        del fields["n"]
    return fields


@functools.lru_cache(maxsize=4096)
def key(direction: str, dtype: str, layout: Layout, geometry: ConvGeometry) -> Key:
    """What a problem is looked up by."""
    return (direction, dtype, layout, tuple(sorted(geometry_fields(direction, geometry).items())))


def load(path: Path) -> Table:
    """Reads a table.

    Raises:
        ValueError: naming the file and what is wrong in it.
        OSError: the file cannot be read.
    """

    def wrong(what: str) -> ValueError:
        return ValueError(f"{path} is no table of tuned plans: {what}")

    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise wrong(str(error)) from error
    if not isinstance(data, dict):
        raise wrong("it holds no object")
    missing = [name for name in ("gpu", "date", "versions", "rows") if name not in data]
    if missing:
        raise wrong(f"it has no {missing[0]!r}")
    rows = []
    for number, fields in enumerate(data["rows"]):
        try:
            row = Row(**fields)
        except TypeError as error:
            raise wrong(f"row {number}: {error}") from error
        allowed = (
            ("backend", ("cuda", "triton")),
            ("direction", DIRECTIONS),
            ("dtype", PRODUCTS),
            ("layout", ("nchw", "nhwc")),
        )
        for name, values in allowed:
            if getattr(row, name) not in values:
                raise wrong(f"row {number}: {name} is {getattr(row, name)!r}, none of {', '.join(values)}")
        names = set(ConvGeometry._fields) - {"padding_mode"}
        names -= set() if row.direction == "backward_weight" else {"n"}
        if set(row.geometry) != names:
            raise wrong(f"row {number}: its geometry has not the fields {', '.join(sorted(names))}")
        rows.append(row)
    return Table(data["gpu"], data["date"], data["versions"], tuple(rows))


def save(table: Table, path: Path) -> None:
    """Writes a table, a row a line."""
    fields = asdict(table)
    rows = ",\n".join("  " + json.dumps(row) for row in fields.pop("rows"))
    head = json.dumps(fields, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "rows": [\n{rows}\n ]\n}}\n')


def _files() -> Iterable[Path]:
    yield from sorted(FOLDER.glob("*.json"))
    for name in os.environ.get("CNNKERNELS_TUNED", "").split(os.pathsep):
        if name and not os.path.isfile(name):
            raise FileNotFoundError(f"CNNKERNELS_TUNED names {name}, and there is no such file")
        if name:
            yield Path(name)


@functools.cache
def _tables() -> tuple[Table, ...]:
    return tuple(load(path) for path in _files())


def gpus() -> tuple[str, ...]:
    """The GPUs that have a table, as their drivers name them."""
    return tuple(dict.fromkeys(table.gpu for table in _tables()))


@functools.cache
def plans(gpu: str, backend: str, wgmma: bool = True) -> dict[Key, dict[str, Any]]:
    """The tuned plans of a GPU, as its driver names it, by `key`; empty where none was measured.

    Without `wgmma`, those of that engine are left out: they were measured with a build that has it, and in one that has
    not the model chooses among all that is there.
    """
    found: dict[Key, dict[str, Any]] = {}
    for table in _tables():
        if table.gpu == gpu:
            found |= {row.key: row.plan for row in table.rows if row.backend == backend}
    return {key: plan for key, plan in found.items() if wgmma or plan.get("engine") != "wgmma"}
