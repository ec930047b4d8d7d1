"""The path for learners: its programs run, one after the other, and print what the page says they print."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cnnkernels.operators import OPERATORS

ROOT = Path(__file__).resolve().parent.parent.parent
LEARN = ROOT / "docs/learn"
CHAPTERS = [name for name in re.findall(r"^\d\. \[.*?\]\((\w+\.md)\)", (LEARN / "README.md").read_text(), re.MULTILINE)]


def programs(page: Path) -> Iterator[tuple[str, str]]:
    """Each program of a page, and what it says that it prints."""
    found = re.findall(
        r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", page.read_text(), re.MULTILINE | re.DOTALL
    )
    yield from found


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What is printed of a training is to be the same with any number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_path_has_every_chapter() -> None:
    assert len(CHAPTERS) > 4
    assert {path.name for path in LEARN.glob("*.md")} == {*CHAPTERS, "README.md", "questions.md", "glossary.md"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_programs_print_what_the_page_says(chapter: str, one_thread: None) -> None:
    space: dict[str, object] = {}
    ran = 0
    for program, said in programs(LEARN / chapter):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, chapter, "exec"), space)
        assert printed.getvalue() == said, program
        ran += 1
    assert ran > 5


def test_every_chapter_has_a_figure() -> None:
    """Of its own: test_docs.py makes each anew."""
    for chapter in CHAPTERS:
        assert f"](../figures/learn_{Path(chapter).stem}.svg)" in (LEARN / chapter).read_text(), chapter


def test_kernels_stand_in_the_chapter_as_in_the_source() -> None:
    source = (ROOT / "tests/csrc/learn.cu").read_text()
    shown = re.findall(r"^```cpp\n(.*?)^```", (LEARN / "gpu.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(shown) > 7
    for kernel in shown:
        assert kernel in source, kernel.splitlines()[1]
        assert len(kernel.splitlines()) <= 21


def test_pages_of_kernels_lead_to_the_glossary() -> None:
    """And the glossary back to where a word is explained: test_docs.py follows its links."""
    words = {operator.word for operator in OPERATORS.values()} | {"interpreter", "emulator", "quantization"}
    for word in words:
        assert "(learn/glossary.md)" in (ROOT / f"docs/{word}.md").read_text(), word
    entries = re.findall(r"^\*\*.*?\*\*(?:.|\n(?!\n))*", (LEARN / "glossary.md").read_text(), re.MULTILINE)
    assert len(entries) > 35 and all("](" in entry for entry in entries)


def test_questions_have_short_answers() -> None:
    questions = re.findall(r"^\*\*(.*?\?)\*\*((?: .*\n|.+\n)*)", (LEARN / "questions.md").read_text(), re.MULTILINE)
    assert len(questions) > 60
    for question, answer in questions:
        assert 20 < len(answer) < 480, question
