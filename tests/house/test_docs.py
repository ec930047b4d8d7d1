"""The pages tell the truth: their programs run, their commands exist, tables and figures are what scripts make."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cnnkernels import environment
from cnnkernels.cli import main as cli
from helpers.sources import tracked

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

# What a page's programs, one after the other, find already there: the reader's own network and data.
GIVEN = """
import torch, cnnkernels
from torch import nn
torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
model = model.to(device).eval()
images = calibration_images = held_images = torch.randn(4, 3, 8, 8, device=device)
"""


def programs(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


# add_an_operator.md's are files of a new operator: test_add_an_operator.py puts them where they belong. What those of
# docs/learn print stands behind them: test_learn.py.
ELSEWHERE = "add_an_operator.md", "learn"
WITH_PROGRAMS = [page for page in PAGES if programs(page) and not {page.name, page.parent.name} & {*ELSEWHERE}]


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=lambda page: page.name)
def test_the_programs_run(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the interpreters, or on a GPU. What is marked as Python is a program, whatever stands around it."""
    monkeypatch.chdir(tmp_path)  # for what they write
    exec("\n".join([GIVEN, *programs(page)]), {})
    assert "kept" in capsys.readouterr().out


def test_the_readme_runs_where_it_is_read_first() -> None:
    """Without a variable set: no GPU and no interpreter is needed. Its first program needs nothing given, not even that
    PyTorch is imported."""
    first, *others = programs(ROOT / "README.md")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("CNNKERNELS_", "TRITON_"))}
    code = "\n".join([first, "images = calibration_images = torch.randn(4, 3, 8, 8, device=device)", *others])
    done = subprocess.run([sys.executable, "-c", code], env=clean, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "swapped 2, kept 0" in done.stdout and "quantized 1, kept" in done.stdout


def test_every_command_is_one() -> None:
    """Lines that begin with `cnnkernels` or `make`: the arguments are taken, the target is there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    parsed = 0
    for page in PAGES:
        for line in re.findall(r"^    ((?:cnnkernels|make) .*)$", page.read_text(), re.MULTILINE):
            name, *words = line.partition("#")[0].replace("...", "").split()
            if name == "make":
                assert words[0] in targets, line
            else:
                cli._parser().parse_args(words)
            parsed += 1
    assert parsed > 10


def test_the_tests_and_files_that_pages_name_exist() -> None:
    """A claim names the test that proves it; what stands without its folder is looked for in all of them."""
    sources = tracked("*.py", "*.cu", "*.cuh", "*.h", "*.cpp", "*.json", "*.md", "*.sh", "*.ninja")
    files = {path.name for path in sources}
    tests = {path.stem for path in sources if path.name.startswith("test_")}
    for path in tracked("tests/*.py"):
        tests |= set(re.findall(r"^ *def (test_\w+)", path.read_text(), re.MULTILINE))
    named = 0
    for page in PAGES:
        text = re.sub(r"^```.*?^```|\w*global_avg_pool\S*", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for name in re.findall(r"\btest_\w+(?![\w*])", text):
            named += 1
            assert name in tests, f"{page.name}: {name}"
        for name in re.findall(r"`([\w-]+\.(?:cuh?|cpp|h|py|json|sh|ninja))(?::\d+)?`", text):
            named += 1
            assert name in files, f"{page.name}: {name}"
    assert named > 200


def prose(page: Path) -> str:
    """A page without what stands in it as code."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a forge calls a page's headings in a link."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    """The file is there, and the heading in it."""
    followed = 0
    for page in (*PAGES, ROOT / "CHANGELOG.md"):
        for path, _, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#([^)\s]+))?\)", prose(page)):
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {path}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {path}#{anchor}"
            followed += 1
    assert followed > 150


def test_the_variables_are_all_in_the_docs() -> None:
    tables = [environment.table(part) for part in (environment.RUNNING, environment.BUILDING, environment.MEASURING)]
    page = (ROOT / "docs/environment.md").read_text()
    assert re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE) == tables


CHAPTERS = ("backpropagation", "convolution", "gpu", "normalization", "pooling", "smaller")
FIGURES = ("architecture", "conv", "pool", "quantization", *(f"learn_{chapter}" for chapter in CHAPTERS))
TABLES = {
    "conv_paper_check": "conv",
    "depthwise_conv": "depthwise_conv",
    "features": "features",
    "depthwise_separable_conv_paper_check": "depthwise_separable_conv",
}
COMMITTED = {
    **{f"figures/{name}.py": f"figures/{name}.svg" for name in FIGURES},
    **{f"figures/{name}.py": f"{page}.md" for name, page in TABLES.items()},
}


def script(monkeypatch: pytest.MonkeyPatch, path: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs/figures"))  # where it finds output.py
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_script", ROOT / "docs" / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def matplotlib_is_the_pinned_one() -> bool:
    (pin,) = re.findall(r"^matplotlib==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return importlib.util.find_spec("matplotlib") is not None and importlib.metadata.version("matplotlib") == pin


def test_every_script_is_here() -> None:
    scripts = {f"figures/{path.name}" for path in (ROOT / "docs/figures").glob("*.py")}
    assert scripts == {*COMMITTED, "figures/output.py"}
    assert {path.name for path in (ROOT / "docs/figures").glob("*.svg")} == {f"{name}.svg" for name in FIGURES}


@pytest.mark.parametrize("name", sorted(COMMITTED))
def test_what_is_committed_is_what_the_script_makes(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """To the byte, and nothing else is written: `--write` leaves a clean checkout clean."""
    if COMMITTED[name].endswith(".svg") and not matplotlib_is_the_pinned_one():
        pytest.skip("the figures are those of the matplotlib in constraints.txt")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the figures are the same with any number, but two cores are shared by more
    made = script(monkeypatch, name).made()
    torch.set_num_threads(threads)
    assert made == (ROOT / "docs" / COMMITTED[name]).read_text()


def test_a_script_writes_only_where_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = script(monkeypatch, "figures/output.py")
    committed, other = tmp_path / "committed", tmp_path / "other"
    monkeypatch.setattr(output, "ROOT", tmp_path)
    committed.write_text("old")
    for options, texts in (
        ([], ("old", None)),
        (["--output", str(other)], ("old", "new")),
        (["--write"], ("new", "new")),
    ):
        monkeypatch.setattr(sys, "argv", ["script", *options])
        output.run("", committed, lambda: "a table\n", lambda: "new")
        assert (committed.read_text(), other.read_text() if other.exists() else None) == texts
        assert capsys.readouterr().out.startswith("a table\n")


def test_nothing_in_the_paper_checks_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their last two columns stay empty until somebody has measured them."""
    rows = script(monkeypatch, "figures/conv_paper_check.py").table().splitlines()[2:]
    assert len(rows) == 10 and all(row.endswith("|  |  |") for row in rows)
