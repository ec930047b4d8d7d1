"""What a run found, in lines of text: speed beside the peers, the worst shapes, and whatever is not as it should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from .families import FAMILIES
from .providers import PROVIDERS
from .results import FAILED, LOST, MISSING, WRONG, Record

OURS = tuple(name for name, provider in PROVIDERS.items() if provider.ours)
PEERS = tuple(name for name in PROVIDERS if name not in OURS)
WORST = 5


@dataclass(frozen=True)
class Row:
    """A case with everyone who was timed on it."""

    records: dict[str, Record]

    @property
    def any(self) -> Record:
        return next(iter(self.records.values()))

    @property
    def key(self) -> str:
        return self.any.key

    def _quickest(self, names: Iterable[str]) -> Record | None:
        there = [self.records[name] for name in names if name in self.records]
        return min(there, key=lambda record: record.median or math.inf, default=None)

    @property
    def ours(self) -> Record | None:
        """The quicker of our backends."""
        return self._quickest(OURS)

    @property
    def peer(self) -> Record | None:
        """The quickest of the others."""
        return self._quickest(PEERS)

    def speed(self, mine: str, theirs: str) -> float | None:
        """How many times as fast `mine` is as `theirs`; "ours" and "peers" stand for the quickest of each."""
        quickest = {"ours": self.ours, "peers": self.peer}
        a, b = (quickest[name] if name in quickest else self.records.get(name) for name in (mine, theirs))
        return b.median / a.median if a and b and a.median and b.median else None


def rows(records: Iterable[Record]) -> list[Row]:
    """Timed records by case, in the order in which they were measured."""
    cases: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.median is not None:
            cases.setdefault(record.key, {})[record.provider] = record
    return [Row(by_provider) for by_provider in cases.values()]


def geometric_mean(values: Collection[float]) -> float:
    """exp of the mean of the logarithms: 2x and 0.5x make 1x."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def of_floor(record: Record) -> float:
    """The share of the physical floor that a time reaches; 1 is the best there is."""
    return record.floor / record.median if record.median else 0.0


def tflops(record: Record) -> float:
    return record.flops / record.median / 1e6 if record.median else 0.0


def gigabytes(record: Record) -> float:
    return record.bytes / record.median / 1e3 if record.median else 0.0


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, the first to the left and the rest to the right."""
    cells = [header, *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        first.ljust(widths[0]) + "".join("  " + cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        for first, *rest in cells
    ]


def one_line(row: Row) -> str:
    """A case as it is measured: its floor, then each provider's time and share of the floor."""
    times = " ".join(f"{name} {r.median:.1f} ({of_floor(r):.0%})" for name, r in row.records.items())
    return f"{row.key}: floor {row.any.floor:.1f} us: {times}"


PAIRS = tuple((ours, theirs) for ours in (*OURS, "ours") for theirs in ("torch", "peers"))


def means(found: Sequence[Row]) -> list[str]:
    """How many times as fast as each peer ours are, by family and direction."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for family in FAMILIES:
        members = [row for row in found if row.any.family == family and row.ours is not None]
        for direction in FAMILIES[family].directions:
            groups[family, direction] = [row for row in members if row.any.direction == direction]
        groups[family, "all"] = members
    lines = []
    for (family, direction), members in groups.items():
        if not members:
            continue
        shares = [of_floor(row.ours) for row in members if row.ours is not None]
        cells = [f"{family} {direction}", str(len(members)), f"{geometric_mean(shares):.0%}"]
        for pair in PAIRS:
            ratios = [ratio for row in members if (ratio := row.speed(*pair))]
            cells.append(f"{geometric_mean(ratios):.2f}" if ratios else "-")
        lines.append(cells)
    header = ["", "cases", "of floor", *(f"{ours}/{theirs}" for ours, theirs in PAIRS)]
    return table(header, lines) if lines else ["nothing was timed"]


def worst(found: Sequence[Row], measure: Callable[[Row], float | None], count: int = WORST) -> list[Row]:
    """The rows where ours do worst by a measure."""
    measured = [(value, row) for row in found if (value := measure(row)) is not None]
    return [row for _, row in sorted(measured, key=lambda pair: pair[0])[:count]]


def worst_lines(found: Sequence[Row]) -> list[str]:
    """The slowest beside the best peer, and the furthest from the floor."""
    by_peer = worst(found, lambda row: row.speed("ours", "peers"))
    by_floor = worst(found, lambda row: of_floor(row.ours) if row.ours else None)
    lines = ["slowest beside the best peer:"] if by_peer else []
    lines += [f"  {row.speed('ours', 'peers'):.2f}x  {one_line(row)}" for row in by_peer]
    lines += ["furthest from the floor:"] if by_floor else []
    return lines + [f"  {of_floor(row.ours):4.0%}   {one_line(row)}" for row in by_floor if row.ours]


def faults(records: Iterable[Record]) -> list[Record]:
    """What makes a run fail: wrong numbers of anybody, and kernels of ours that failed or do not reproduce."""
    return [
        r
        for r in records
        if r.status == WRONG or (r.provider in OURS and (r.status in (FAILED, LOST) or r.reproducible is False))
    ]


def _counted(lines: Iterable[str]) -> list[str]:
    """Each line once, and how often it came."""
    times: dict[str, int] = {}
    for line in lines:
        times[line] = times.get(line, 0) + 1
    return [line if count == 1 else f"{line} ({count} cases)" for line, count in times.items()]


def remarks(records: Sequence[Record]) -> list[str]:
    """What a reader must know beside the times."""
    lines = []
    for status, word in ((WRONG, "WRONG"), (LOST, "LOST THE GPU"), (FAILED, "FAILED")):
        lines += [f"{word} {r.provider}: {r.key}: {r.reason}" for r in records if r.status == status]
    ours = [r for r in records if r.provider in OURS]
    lines += [f"NOT REPRODUCIBLE {r.provider}: {r.key}" for r in ours if r.reproducible is False]
    uncaptured = [r for r in records if r.on_gpu and r.median is not None and not r.graph]
    lines += _counted(f"times of {r.provider} include the host's, as no graph could capture it" for r in uncaptured)
    return lines + _counted(f"not there yet: {r.provider}: {r.family}: {r.reason}" for r in ours if r.status == MISSING)


def summary(records: Sequence[Record]) -> list[str]:
    """The end of a run: means, the worst, remarks."""
    found = rows(records)
    head = "times as fast as others, geometric means (above 1: ours are faster; torch: as a user gets it, with cuDNN)"
    return [head, *means(found), *worst_lines(found), *remarks(records)]
