"""What launches execute, counted in the emulator on a sample of their blocks.

`counted` runs a function and returns a Profile for each launch of its, by either language's way into the emulator.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import package

SECTOR = 32  # bytes
# What csrc/emulator/profile/python.cpp counts of an instruction.
COUNTS = (
    "issue_slots", "warps", "threads", "shared_requests", "least_wavefronts", "wavefronts", "streamed_wavefronts",
    "global_requests", "sectors", "wanted_bytes", "l2_sectors", "bulk_read", "bulk_written", "bulk_filled",
    "multiply_adds",
)  # fmt: skip


class Touched(NamedTuple):
    """A storage: where it is, and the bytes in whole sectors that the sample read and wrote of it."""

    address: int
    bytes: int
    read: int
    written: int


class Line(NamedTuple):
    """A place in a source, or of the PTX where that names none."""

    file: str
    number: int


@dataclass(frozen=True)
class Profile:
    """A launch: of its clusters of blocks, `sampled` were run and counted. Counts by kind and by line are the sample's
    own; `of_launch` scales them."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int]
    shared_bytes: int
    registers: int  # 0: not known
    clusters: int
    sampled: int
    rows: tuple[dict[str, Any], ...]
    touched: tuple[Touched, ...]

    @property
    def blocks(self) -> int:
        return math.prod(self.grid)

    @property
    def scale(self) -> float:
        return self.clusters / self.sampled

    def sum(self, count: str) -> int:
        """Of the sample."""
        return sum(row[count] for row in self.rows)

    def of_launch(self, count: str) -> float:
        return self.sum(count) * self.scale

    def by(self, key: Callable[[dict[str, Any]], Any], count: str = "warps") -> Counter[Any]:
        """A count of the sample, by what `key` says of an instruction; the largest first."""
        found: Counter[Any] = Counter()
        for row in self.rows:
            found[key(row)] += row[count]
        return Counter(dict(found.most_common()))

    def kinds(self) -> Counter[str]:
        return self.by(lambda row: row["kind"])

    def waits(self) -> Counter[str]:
        """Instructions that wait or order, by their names."""
        found = self.by(lambda row: ".".join(row["opcode"].split(".")[:3]) if row["kind"] == "wait" else "")
        del found[""]
        return found

    def products(self) -> Counter[str]:
        """Multiply-adds of tensor cores, by the instruction."""
        return +self.by(lambda row: row["opcode"], "multiply_adds")

    def lines(self) -> dict[Line, Counter[str]]:
        """All counts of the sample by source line, those that issue most first."""
        found: dict[Line, Counter[str]] = {}
        for row in self.rows:
            line = Line(row["source_file"], row["source_line"]) if row["source_line"] else Line("", row["line"])
            counts = found.setdefault(line, Counter())
            for count in COUNTS:
                counts[count] += row[count]
        return dict(sorted(found.items(), key=lambda item: -item[1]["issue_slots"]))

    def unique(self, touched: Touched) -> tuple[float, float]:
        """Bytes read and written of a storage by the whole launch, each once: the sample's in proportion, but no more
        than there are."""
        most = -(-touched.bytes // SECTOR) * SECTOR
        return min(touched.read * self.scale, most), min(touched.written * self.scale, most)


def of_dict(found: dict[str, Any]) -> Profile:
    """From what a native module returned."""
    touched = [
        Touched(address, size, read * SECTOR, written * SECTOR) for address, size, read, written in found["touched"]
    ]
    return Profile(
        kernel=found["kernel"],
        grid=tuple(found["grid"]),
        block=tuple(found["block"]),
        cluster=tuple(found["cluster"]),
        shared_bytes=found["shared_bytes"],
        registers=found["registers"],
        clusters=found["clusters"],
        sampled=found["sampled"],
        rows=tuple(found["rows"]),
        touched=tuple(touched),
    )


UNFILLED: list[tuple[Any, str]] = [(torch, name) for name in ("empty", "empty_like", "empty_strided")]
UNFILLED += [(Tensor, name) for name in ("new_empty", "new_empty_strided")]


@contextlib.contextmanager
def zeros() -> Iterator[None]:
    """Memory that nobody fills is zero within it: what a sample leaves unwritten is then the same in every run, and
    kernels that look at it, as the one at the border of a convolution's gradient does, do as they mostly do. The words
    themselves are replaced: no mode of PyTorch holds within a backward pass, which asks for memory of its own."""

    def filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **kwargs: make(*args, **kwargs).zero_()

    before = [getattr(owner, name) for owner, name in UNFILLED]
    try:
        for (owner, name), make in zip(UNFILLED, before, strict=True):
            setattr(owner, name, filled(make))
        yield
    finally:
        for (owner, name), make in zip(UNFILLED, before, strict=True):
            setattr(owner, name, make)


def counted(call: Callable[[], Any], blocks: int) -> tuple[Any, list[Profile]]:
    """What `call` returns, and a profile of each launch in the emulator that it made, in order.

    Args:
        call: makes launches under CNNKERNELS_INTERPRET=ptx. Of each only a sample runs, so its results are worthless.
        blocks: at most so many of a launch, in whole clusters but at least one: the first, the last and others at equal
            distances; 0 runs all.
    """
    from ..native import load

    launches: list[dict[str, Any]] = []
    built = package.has("_emulated")
    module = load("emulated").module if built else None
    before = {} if module is None else module.schedule()
    triton = package.load("emulator.triton_driver") if importlib.util.find_spec("triton") else None
    try:
        if module is not None:
            module.set_schedule("ordered", 0, "early", starve=False, warps_meet=True, races=False)
            module.set_profiling(blocks)
        if triton is not None:
            triton.set_profiling(blocks, launches.append)
        with zeros():
            result = call()
    finally:
        if module is not None:
            launches += module.set_profiling(None)
            del before["threads"]
            module.set_schedule(**before)
        if triton is not None:
            triton.set_profiling(None, None)
    return result, [of_dict(launch) for launch in launches]


def of_ptx(
    program: Any,
    entry: str,
    *,
    grid: Sequence[int],
    block: Sequence[int],
    cluster: Sequence[int] = (1, 1, 1),
    shared_bytes: int = 0,
    parameters: bytes,
    memory: Iterable[tuple[int, int]],
    blocks: int = 0,
) -> Profile:
    """A launch of anybody's kernel, parsed by cnnkernels._emulator. `memory`: addresses and bytes that it may touch."""
    emulator: Any = package.load("_emulator")
    found = emulator.profile(
        program,
        entry,
        grid=tuple(grid),
        block=tuple(block),
        cluster=tuple(cluster),
        shared_bytes=shared_bytes,
        parameters=parameters,
        mode=emulator.Mode(late=False, races=False, memory=list(memory)),
        blocks=blocks,
    )
    about = {"kernel": entry, "grid": grid, "block": block, "cluster": cluster, "shared_bytes": shared_bytes}
    return of_dict({**found, **about, "registers": 0})
