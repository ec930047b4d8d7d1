"""What becomes of results, from results that the tests make up: CSV, page, pictures, docs/performance.md."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks import performance, report, run
from benchmarks.cases import Case
from benchmarks.results import WRONG, Record, Results
from benchmarks.summary import OURS
from cnnkernels.certified import certificates
from cnnkernels.certified.families import FAMILIES
from helpers.bench import CEILINGS, conv_case, parsed, pool_case, record
from helpers.proving import certificate

SESSION = {"gpu": "Made Up <GPU>", "torch": "2.11", "commit": "abc123", "date": "2026-01-02", "sources": "s"}
SESSION |= {"clocks": {"clocks.sm": "1980", "driver_version": "580.1"}, "ceilings": asdict(CEILINGS)}
TIMES = {"cuda": 20.0, "triton": 30.0, "torch": 25.0, "aten": 100.0}


def at_batch(case: Case, n: int) -> list[Record]:
    case = case.with_samples(n)
    return [record(case, name, median * n, reproducible=name != "aten") for name, median in TIMES.items()]


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = Results(tmp_path / "made-up.jsonl")
    found.begin(SESSION)
    for case in (conv_case(dtype="bf16"), conv_case("backward_weight", "bf16"), pool_case()):
        for n in (1, 32):
            for one in at_batch(case, n):
                found.add(one)
    return found


def test_csv(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(report.to_csv(results))))
    assert len(rows) == 3 * 2 * 4
    first = rows[0]
    case = conv_case(dtype="bf16").with_samples(1)
    assert (first["operator"], first["direction"], first["shape"], first["by"]) == (
        "conv2d",
        "forward",
        case.shape,
        "cuda",
    )
    assert float(first["us"]) == 20.0
    assert float(first["TFLOP/s"]) == pytest.approx(case.flops / 20e-6 / 1e12)
    assert float(first["GB/s"]) == pytest.approx(case.bytes / 20e-6 / 1e9)
    floor = CEILINGS.floor(case.flops, case.bytes, "bf16")
    assert float(first["of floor"]) == pytest.approx(floor / 20)
    assert (float(first["x torch"]), float(first["x aten"]), first["x compile"]) == (1.25, 5.0, "")
    assert {row["reproducible"] for row in rows if row["by"] == "aten"} == {"no"}
    assert (first["gpu"], first["driver"], first["sm_clock"], first["commit"]) == (
        "Made Up <GPU>",
        "580.1",
        "1980",
        "abc123",
    )


class Page(HTMLParser):
    """The cells of the page's tables, row by row, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.images: list[str] = []
        self.loads: list[str] = []
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.cell:
            self.rows[-1].append("")
        named = dict(attributes)
        if tag == "img":
            self.images.append(named["src"] or "")
        self.loads += [named[word] or "" for word in ("src", "href") if word in named]

    def handle_endtag(self, tag: str) -> None:
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.rows[-1][-1] += data


def test_the_page_has_every_result_and_loads_nothing(results: Results) -> None:
    page = Page(report.to_html(results, {"roofline": b"x"}))
    assert len([row for row in page.rows if row[0] in ("forward", "backward_weight")]) == 3 * 2 * 4
    head = page.rows[0]
    row = next(row for row in page.rows if "cuda" in row)
    assert (row[head.index("us")], row[head.index("x torch")], row[head.index("reproducible")]) == (
        "20.0",
        "1.25",
        "yes",
    )
    assert page.images == ["data:image/png;base64,eA=="] == page.loads
    text = report.to_html(results, {})
    assert "Made Up &lt;GPU&gt;" in text and "Made Up <GPU>" not in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_pictures_and_files(results: Results) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    written = report.write(results)
    assert [path.name for path in written] == [
        "made-up.csv", "made-up.html", "made-up-roofline.png", "made-up-ratios.png", "made-up-batches.png",
    ]  # fmt: skip
    for path in written[2:]:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 8000


def test_pictures_show_the_results(results: Results) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    from benchmarks import plots

    records = results.measured()
    (axis,) = plots.roofline(records, asdict(CEILINGS)).axes
    points = {c.get_label(): c.get_offsets() for c in axis.collections}
    assert set(points) == set(TIMES) and all(len(xy) == 4 for xy in points.values())  # pooling has no operations
    case = conv_case(dtype="bf16").with_samples(1)
    assert list(points["cuda"][0]) == pytest.approx([case.flops / case.bytes, case.flops / 20e6])
    (axis,) = plots.ratios(records).axes
    assert {text.get_text() for text in axis.texts} == {"1.25", "0.83"}
    assert len(axis.get_yticklabels()) == 3
    panels = plots.batches(records).axes
    assert [panel.get_title() for panel in panels] == ["conv2d", "max_pool2d"]
    assert all(list(line.get_xdata()) == [1, 32] for panel in panels for line in panel.lines)
    one_batch = [one for one in records if one.batch == 32]
    assert (
        plots.batches(one_batch) is None and plots.ratios([]) is None and plots.roofline([], asdict(CEILINGS)) is None
    )


def test_without_matplotlib_it_says_so_and_goes_on(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    told: list[str] = []
    assert [path.suffix for path in report.write(results, told.append)] == [".csv", ".html"]
    assert told and "pip install matplotlib" in told[0]


def test_the_report_command(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(parsed("--report", "--output", str(results.path))) == 0
    assert f"wrote {tmp_path / 'made-up.html'}" in capsys.readouterr().out
    assert run.run(parsed("--report", "--output", str(tmp_path / "nothing.jsonl"))) == 2


def test_performance_of_results(results: Results) -> None:
    results.add(replace(record(conv_case(dtype="fp16"), OURS[0], None), status=WRONG, reason="error 3"))
    results.add_extra("network", {"network": "resnet50", "mode": "training", "dtype": "bf16", "provider": "torch",
                                  "batch": 8, "status": "ok", "median": 1e5, "session": 0})  # fmt: skip
    text = performance.page([results.path])
    assert "## Made Up <GPU>: 6 cases (made-up.jsonl)" in text
    assert "driver 580.1, 1980 MHz, torch 2.11, commit abc123, 2026-01-02" in text
    assert "conv2d backward_weight" in text and "slowest beside the best peer" in text
    assert "wrong: error 3" in text
    assert re.search(r"resnet50 +training +bf16 +torch +8 +100\.00 +80 ", text)
    assert re.search(r"^Not measured yet: .*\bdepthwise_conv2d, ", text, re.MULTILINE)
    assert "Nothing has been measured" not in text


def test_performance_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "tiny.jsonl").write_text("")
    assert performance.result_files(tmp_path) == []
    assert "Nothing has been measured on a GPU yet" in performance.page([])


def test_performance_says_where_the_kernels_are_certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKERNELS_CACHE", str(tmp_path))
    assert "None yet: no GPU has proved the kernels." in performance.page([], tmp_path)
    certificates.save(certificate(cuda_conv_forward_wgmma_bf16="it took more than 30 s"))
    text = performance.page([], tmp_path)
    count = len(FAMILIES)
    assert f"| {count - 1} of {count} | cuda conv forward wgmma bf16 |" in text and "None yet" not in text


def test_the_document_is_the_results() -> None:
    """`cnnkernels bench --report` was called after the last change."""
    assert performance.DOCUMENT.read_text() == performance.page(performance.result_files())
