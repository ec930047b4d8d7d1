"""What `cnnkernels tune` measured: tables, one a GPU and the versions it was measured with.

    {"gpu": "NVIDIA H200", "date": "2026-01-31", "versions": {"torch": "2.11.0", ...},
     "rows": [{"backend": "cuda", "direction": "forward", "dtype": "bf16", "layout": "nhwc",
               "geometry": {"c": 64, "h": 56, ...}, "plan": {"engine": "mma", ...},
               "microseconds": 41.2, "selected_microseconds": 45.0}],
     "choices": [{"operator": "conv2d", "arguments": [{"size": [32, 64, 56, 56], ...}, ...],
                  "inference": "cuda", "training": "cuda/reference/cuda", "microseconds": {...}, ...}]}

Rows are plans of conv2d, which go before the cost models' choices. A row holds for exactly one problem on that GPU.
Forward and backward_input leave out the batch, which must not decide how a sample is summed. `selected_microseconds`
is what the cost model's choice took in the same run.

Choices (choice.py) say which backend serves a call under "auto", PyTorch's own operator among them. They hold for the
versions that they were measured with alone: another cuDNN is another rival.

Tables are read at the first call on a GPU: those in the package's folder `tuned`, those in the cache directory, and
those that CNNKERNELS_TUNED names (paths with the system's separator between them). Of two rows, or two choices, for the
same the newer holds, and of two of one date the later in this order.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..dtypes import PRODUCTS
from ..geometry import ConvGeometry, Layout
from . import cache
from .choice import Choice
from .left_out import readable, say

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
    date: str = ""  # the table's where it is empty

    @property
    def key(self) -> Key:
        return (self.direction, self.dtype, Layout[self.layout.upper()], tuple(sorted(self.geometry.items())))


@dataclass(frozen=True)
class Table:
    """A GPU's rows and choices, and what they were measured with."""

    gpu: str
    date: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    choices: tuple[Choice, ...] = ()


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
    choices = []
    for number, fields in enumerate(data.get("choices", ())):
        try:
            choices.append(Choice.decoded(fields))
        except (TypeError, KeyError, AttributeError) as error:
            raise wrong(f"choice {number}: {error}") from error
    return Table(data["gpu"], data["date"], data["versions"], tuple(rows), tuple(choices))


def save(table: Table, path: Path) -> None:
    """Writes a table, a row and a choice a line, in the place of an older one."""
    head = json.dumps({"gpu": table.gpu, "date": table.date, "versions": table.versions}, indent=1)
    lists = {"rows": [asdict(row) for row in table.rows], "choices": [choice.encoded() for choice in table.choices]}
    text = head.removesuffix("\n}")
    for name, lines in lists.items():
        text += f',\n "{name}": [\n' + ",\n".join(f"  {json.dumps(line)}" for line in lines) + "\n ]"
    cache.write(path, text + "\n}\n")


def merge(tables: Sequence[Table]) -> Table:
    """All rows and choices of several tables; of two for the same the newer, of one date the later table's.

    Raises:
        ValueError: there is none, or they were measured on different GPUs or with different versions.
    """
    if not tables:
        raise ValueError("there is no table to merge")
    for what in ("gpu", "versions"):
        first, *others = (getattr(table, what) for table in tables)
        if other := next((other for other in others if other != first), None):
            raise ValueError(f"only tables of the same {what} can be merged, but got {first} and {other}")
    rows = _newest(tables, "rows", lambda row: (row.backend, row.key))
    choices = _newest(tables, "choices", lambda choice: (choice.operator, choice.key))
    date = max(table.date for table in tables)
    return Table(tables[0].gpu, date, tables[0].versions, tuple(rows), tuple(choices))


def _newest(tables: Iterable[Table], what: str, key_of: Any) -> list[Any]:
    found: dict[Any, Any] = {}
    for table in tables:
        for one in getattr(table, what):
            dated = one if one.date else replace(one, date=table.date)
            before = found.get(key_of(one))
            if before is None or dated.date >= before.date:
                found[key_of(one)] = dated
    return list(found.values())


def add(table: Table, path: Path) -> Table:
    """Puts a table's rows and choices to those of a file, which other processes may write meanwhile.

    A file that is none, or of another GPU or other versions, gives way, with a warning.
    """
    with cache.locked(path):
        before = readable(load, path, "replaced") if path.exists() else None
        if before is not None and (before.gpu, before.versions) != (table.gpu, table.versions):
            say(f"{path} is replaced: it was measured on {before.gpu} with {before.versions}")
            before = None
        together = merge([before, table]) if before is not None else table
        save(together, path)
    return together


def versions() -> dict[str, str]:
    """What a measurement depends on."""
    names = "cnnkernels", "torch", "triton"
    found = {name: own.version for name in names for own in importlib.metadata.distributions(name=name)}
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return found | {"cuda": torch.version.cuda or "none", "cudnn": str(cudnn or "none")}


def gpu_name(device: torch.device) -> str:
    """A GPU as its driver names it; another device as PyTorch does."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cached_folders() -> list[Path]:
    return [folder / "tuned" for folder in cache.folders()]


def cached_path(gpu: str) -> Path:
    """Where a GPU's table is kept for the versions here."""
    digest = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode()).hexdigest()[:8]
    folders = cached_folders()
    mine = next(filter(cache.can_be_written, folders), folders[0])
    return mine / f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{digest}.json"


def _named() -> Iterable[Path]:
    for name in os.environ.get("CNNKERNELS_TUNED", "").split(os.pathsep):
        if name and not os.path.isfile(name):
            raise FileNotFoundError(f"CNNKERNELS_TUNED names {name}, and there is no such file")
        if name:
            yield Path(name)


_remembered: list[Any] = []
_used: list[Table] = []


def until_forgotten(cache: Any) -> Any:
    """Has a function's cache, which depends on tables, be emptied by `forget`."""
    _remembered.append(cache)
    return cache


@until_forgotten
@functools.cache
def _tables() -> tuple[Table, ...]:
    """All that can be read. A file of the cache directory that can not is left out, with a warning; one that somebody
    chose to name is an error."""
    own = [load(path) for path in sorted(FOLDER.glob("*.json"))]
    cached = [readable(load, path) for folder in cached_folders() for path in sorted(folder.glob("*.json"))]
    return *own, *filter(None, cached), *(load(path) for path in _named()), *_used


def gpus() -> tuple[str, ...]:
    """The GPUs that have a table, as their drivers name them."""
    return tuple(dict.fromkeys(table.gpu for table in _tables()))


@until_forgotten
@functools.cache
def plans(gpu: str, backend: str, wgmma: bool = True) -> dict[Key, dict[str, Any]]:
    """The tuned plans of a GPU, as its driver names it, by `key`; empty where none was measured.

    Without `wgmma`, those of that engine are left out: they were measured with a build that has it, and in one that has
    not the model chooses among all that is there.
    """
    tables = [table for table in _tables() if table.gpu == gpu]
    rows = _newest(tables, "rows", lambda row: (row.backend, row.key))
    found = {row.key: row.plan for row in rows if row.backend == backend}
    return {key: plan for key, plan in found.items() if wgmma or plan.get("engine") != "wgmma"}


def ignored(gpu: str) -> list[str]:
    """Why tables with choices do not hold on a GPU, a sentence each."""
    sentences, here = [], versions()
    for table in _tables():
        if not table.choices:
            continue
        other = {name: value for name, value in table.versions.items() if here.get(name) != value}
        measured = f"{len(table.choices)} choices measured on {table.gpu}"
        if table.gpu != gpu:
            sentences.append(f"{measured} are ignored on {gpu}")
        elif other or set(here) - set(table.versions):
            names = sorted({*other, *(set(here) - set(table.versions))})
            was, now = (
                ", ".join(f"{name} {known.get(name, 'unknown')}" for name in names) for known in (table.versions, here)
            )
            sentences.append(f"{measured} with {was} are ignored with {now}: run `cnnkernels tune` again")
    return sentences


@until_forgotten
@functools.cache
def choices(gpu: str) -> dict[str, tuple[Choice, ...]]:
    """The choices that hold on a GPU with the versions here, by operator. Where there are only some of other versions,
    a warning says so."""
    here = versions()
    tables = [table for table in _tables() if table.gpu == gpu and table.versions == here]
    found: dict[str, tuple[Choice, ...]] = {}
    for choice in _newest(tables, "choices", lambda choice: (choice.operator, choice.key)):
        found[choice.operator] = (*found.get(choice.operator, ()), choice)
    if not found:
        for sentence in ignored(gpu):
            if f"ignored on {gpu}" not in sentence:
                say(sentence)
    return found


def use(table: Table) -> None:
    """Has this process follow a table, wherever it is kept."""
    _used.append(table)
    forget()


def forget() -> None:
    """Has tables be read anew, and what was made of them be made anew."""
    for one in _remembered:
        one.cache_clear()
