"""What a result file becomes: CSV, pictures, and one HTML page that opens from disk."""

from __future__ import annotations

import base64
import csv
import html
import io
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .families import FAMILIES
from .results import Record, Results
from .summary import OURS, PEERS, Row, gigabytes, of_floor, rows, summary, tflops

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Column:
    """One figure of a record beside its peers: how it is computed and written; text columns have no `write`."""

    name: str
    value: Callable[[Record, Row], Any]
    write: Callable[[Any], str] | None = None


def _ratio_to(peer: str) -> Callable[[Record, Row], float | None]:
    def ratio(record: Record, row: Row) -> float | None:
        theirs = row.records.get(peer)
        if theirs is None or theirs is record or not theirs.median or not record.median:
            return None
        return theirs.median / record.median

    return ratio


COLUMNS = (
    Column("direction", lambda r, row: r.direction),
    Column("type", lambda r, row: r.dtype),
    Column("layout", lambda r, row: r.layout),
    Column("shape", lambda r, row: r.shape),
    Column("in", lambda r, row: ", ".join(r.networks)),
    Column("by", lambda r, row: r.provider),
    Column("us", lambda r, row: r.median, "{:.1f}".format),
    Column("p20", lambda r, row: r.p20, "{:.1f}".format),
    Column("p80", lambda r, row: r.p80, "{:.1f}".format),
    Column("floor us", lambda r, row: r.floor, "{:.1f}".format),
    Column("of floor", lambda r, row: of_floor(r), "{:.0%}".format),
    Column("TFLOP/s", lambda r, row: tflops(r) or None, "{:.1f}".format),
    Column("GB/s", lambda r, row: gigabytes(r), "{:.0f}".format),
    *(Column(f"x {peer}", _ratio_to(peer), "{:.2f}".format) for peer in PEERS),
    Column("extra MB", lambda r, row: None if r.extra_bytes is None else r.extra_bytes / 1e6, "{:.1f}".format),
    Column("reproducible", lambda r, row: {True: "yes", False: "no", None: ""}[r.reproducible]),
)
SESSION = ("gpu", "driver", "sm_clock", "torch", "cuda", "cudnn", "triton", "commit", "sources", "date")


def _session(about: dict[str, Any]) -> dict[str, Any]:
    clocks = about.get("clocks") or {}
    return about | {"driver": clocks.get("driver_version"), "sm_clock": clocks.get("clocks.sm")}


def lines(found: Sequence[Row]) -> Iterator[tuple[Record, list[Any]]]:
    """Every timed record with its columns' values."""
    for row in found:
        for record in row.records.values():
            yield record, [column.value(record, row) for column in COLUMNS]


def to_csv(results: Results) -> str:
    """One line a case and provider, with the session it was measured in."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["operator", *(column.name for column in COLUMNS), "graph", "launches", "samples", *SESSION])
    for record, values in lines(rows(results.records.values())):
        about = _session(results.sessions[record.session])
        more = [record.graph, record.launches, record.samples, *(about.get(word) for word in SESSION)]
        writer.writerow([record.family, *values, *more])
    return buffer.getvalue()


def _cell(column: Column, value: Any) -> str:
    if column.write is None:
        return f'<td class="text">{html.escape(str(value))}</td>'
    if value is None:
        return '<td data-v=""></td>'
    shade = ""
    if column.name.startswith("x "):
        shade = ' class="good"' if value > 1.05 else ' class="bad"' if value < 0.95 else ""
    return f'<td data-v="{value:.6g}"{shade}>{column.write(value)}</td>'


def _table(family: str, found: Sequence[Row]) -> str:
    shown = list(lines(found))
    used = [
        place for place, column in enumerate(COLUMNS) if any(values[place] not in (None, "") for _, values in shown)
    ]
    heads = "".join(
        f"<th{' class=text' if COLUMNS[place].write is None else ''}>{html.escape(COLUMNS[place].name)}</th>"
        for place in used
    )
    body = "\n".join(
        f"<tr{' class=ours' if record.provider in OURS else ''}>"
        + "".join(_cell(COLUMNS[place], values[place]) for place in used)
        + "</tr>"
        for record, values in shown
    )
    table = f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f"<h2>{family}</h2>\n<div class=scroll>{table}</div>"


def to_html(results: Results, images: dict[str, bytes]) -> str:
    """The page: nothing in it is loaded from anywhere else."""
    about = _session(results.sessions[-1])
    facts = {word: about.get(word) for word in SESSION} | {
        f"clock {k}": v for k, v in (about.get("clocks") or {}).items()
    }
    ceilings = about.get("ceilings") or {"copy": 0.0, "rates": {}}
    facts["measured copy"] = f"{ceilings['copy'] / 1e12:.2f} TB/s"
    facts |= {f"measured {name} product": f"{rate / 1e12:.0f} TFLOP/s" for name, rate in ceilings["rates"].items()}
    found = rows(results.records.values())
    tables = [
        _table(family, members)
        for family in FAMILIES
        if (members := [row for row in found if row.any.family == family])
    ]
    pictures = "".join(
        f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        for name, data in images.items()
    )
    return string.Template(TEMPLATE.read_text()).substitute(
        title=html.escape(f"cnnkernels on {about['gpu']}"),
        subtitle="Median of interleaved launches on cold caches; a green ratio: this provider is the faster one.",
        facts="".join(
            f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in facts.items() if v is not None
        ),
        summary=html.escape("\n".join(summary(list(results.records.values())))),
        pictures=pictures,
        tables="\n".join(tables),
    )


def write(results: Results, tell: Callable[[str], None] = print) -> list[Path]:
    """Writes CSV, HTML and pictures beside the result file, named as it; returns what was written."""
    stem = results.path.with_suffix("")
    images: dict[str, bytes] = {}
    ceilings = results.sessions[-1].get("ceilings")
    try:
        from .plots import pictures

        images = pictures(results.measured(), ceilings) if ceilings else {}
    except ImportError as error:
        tell(f"no pictures: {error} (`pip install matplotlib`)")
    written = {
        stem.with_suffix(".csv"): to_csv(results).encode(),
        stem.with_suffix(".html"): to_html(results, images).encode(),
    }
    written |= {stem.with_name(f"{stem.name}-{name}.png"): data for name, data in images.items()}
    for path, data in written.items():
        path.write_bytes(data)
    return list(written)
