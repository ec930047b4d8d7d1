"""Results as JSON lines: one for each session (the machine and the versions), one for each case and provider.

A file is appended to, never rewritten, so a run that is cut loses nothing: the next one with the same GPU and the same
sources continues it. Of two lines for the same case and provider the later counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

# How a provider fared. What is `missing` or `failed` (for want of memory, say) is tried again by the next run; what
# took the GPU down with it (`lost`) is not.
OK, WRONG, FAILED, MISSING, LOST = "ok", "wrong", "failed", "missing", "lost"
FINAL = {OK, WRONG, LOST}


@dataclass(frozen=True)
class Record:
    """One provider on one case. Times in microseconds, memory in bytes."""

    key: str
    provider: str
    status: str
    family: str
    direction: str
    dtype: str
    layout: str
    shape: str
    batch: int
    networks: tuple[str, ...]
    flops: float
    bytes: float
    floor: float
    reason: str = ""
    median: float | None = None
    p20: float | None = None
    p80: float | None = None
    samples: int = 0
    launches: int = 0
    graph: bool = False
    error: float | None = None
    allowed: float | None = None
    verified_samples: int = 0
    extra_bytes: int | None = None
    reproducible: bool | None = None
    session: int = 0

    @property
    def name(self) -> tuple[str, str]:
        return self.key, self.provider

    @property
    def on_gpu(self) -> bool:
        return self.extra_bytes is not None


class Results:
    """A result file: its sessions, and the latest record of each case and provider."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sessions: list[dict[str, Any]] = []
        self.records: dict[tuple[str, str], Record] = {}
        self.extras: list[dict[str, Any]] = []
        self._whole = False
        if path.exists():
            self._read()

    def _read(self) -> None:
        known = {field.name for field in fields(Record)}
        for number, line in enumerate(self.path.read_text().splitlines(keepends=True), 1):
            if not line.endswith("\n"):  # a run was cut while it wrote
                break
            try:
                entry = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{self.path}:{number} is no line of a result file: {error}") from None
            kind = entry.pop("kind", None)
            if kind == "session":
                self.sessions.append(entry)
            elif kind == "record":
                entry["networks"] = tuple(entry["networks"])
                record = Record(**{name: value for name, value in entry.items() if name in known})
                self.records[record.name] = record
            elif kind is not None:
                self.extras.append({"kind": kind, **entry})

    def _append(self, kind: str, entry: dict[str, Any]) -> None:
        if not self._whole:
            self._make_whole()
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, **entry}) + "\n")

    def _make_whole(self) -> None:
        """Takes away a last line that was cut, so that the next one stands alone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        self._whole = True

    def begin(self, session: dict[str, Any]) -> int:
        """Notes a session; the records that follow name it by its number."""
        self._append("session", session)
        self.sessions.append(session)
        return len(self.sessions) - 1

    def add(self, record: Record) -> None:
        self._append("record", asdict(record))
        self.records[record.name] = record

    def add_extra(self, kind: str, entry: dict[str, Any]) -> None:
        """A line of another kind: a whole network's."""
        self._append(kind, entry)
        self.extras.append({"kind": kind, **entry})

    def done(self, session: dict[str, Any]) -> set[tuple[str, str]]:
        """What need not be measured again on this GPU with these sources."""
        same = {
            number
            for number, earlier in enumerate(self.sessions)
            if all(earlier.get(word) == session.get(word) for word in ("gpu", "sources", "torch"))
        }
        return {r.name for r in self.records.values() if r.status in FINAL and r.session in same}

    def measured(self) -> list[Record]:
        return [record for record in self.records.values() if record.median is not None]


@dataclass(frozen=True)
class Change:
    """A case and provider in two files."""

    before: Record
    after: Record

    @property
    def ratio(self) -> float:
        """Above 1 where it became slower."""
        assert self.before.median and self.after.median
        return self.after.median / self.before.median

    def slower(self, tolerance: float) -> bool:
        """More than `tolerance` slower, and not by scatter: the quickest fifth now is slower than the slowest then."""
        assert self.before.p80 is not None and self.after.p20 is not None
        return self.ratio > 1 + tolerance and self.after.p20 > self.before.p80

    def __str__(self) -> str:
        return (
            f"{self.ratio:5.2f}x  {self.before.median:9.1f} -> {self.after.median:9.1f} us  "
            f"{self.after.provider:<8} {self.after.key}"
        )


def changes(before: Results, after: Iterable[Record]) -> Iterator[Change]:
    """The cases and providers that were timed in both."""
    for record in after:
        earlier = before.records.get(record.name)
        if earlier is not None and earlier.median and record.median:
            yield Change(earlier, record)


def regressions(
    before: Results, after: Iterable[Record], providers: Iterable[str], tolerance: float
) -> tuple[list[Change], list[Record]]:
    """What became slower, worst first, and what was right before and now is not; of these providers."""
    names = set(providers)
    mine = [record for record in after if record.provider in names]
    slower = [change for change in changes(before, mine) if change.slower(tolerance)]
    broken = [
        record
        for record in mine
        if record.status != OK and (earlier := before.records.get(record.name)) is not None and earlier.status == OK
    ]
    return sorted(slower, key=lambda change: -change.ratio), broken
