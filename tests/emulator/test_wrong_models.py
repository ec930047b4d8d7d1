"""Models of the hardware that are wrong on purpose: which kernel of others' compilers notices each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnkernels import _emulator
from helpers.emulated.launches import run_case
from helpers.emulated.wrong_models import FACTS
from helpers.triton_cases.cases import CASES

BY_NAME = {case.name: case for case in CASES}
QUICK = [case.name for case in CASES if case.grid == (1, 1, 1)]
PAGE = Path(__file__).parents[2] / "docs" / "emulator.md"


@pytest.fixture
def wrong() -> Iterator[None]:
    yield
    _emulator.set_wrong_model("")


def test_every_wrong_model_is_listed():
    assert list(FACTS) == _emulator.wrong_models()


def test_the_page_has_the_table():
    """A row for each fact in its order, with whose kernel proves it, and the sums above."""
    text = PAGE.read_text()
    rows = [
        f"| {fact.says} | `{name}` | {fact.triton or ''} | {fact.cutlass or ''} |".replace("  ", " ")
        for name, fact in FACTS.items()
    ]
    assert re.findall(r"^\| .* \| `\w+` \| .*\|$", text, re.MULTILINE) == rows
    triton = sum(fact.triton is not None for fact in FACTS.values())
    cutlass = sum(fact.cutlass is not None for fact in FACTS.values())
    nobody = sum(fact.triton is None and fact.cutlass is None for fact in FACTS.values())
    assert f"{len(FACTS)} facts" in text and f"{triton} by Triton" in text
    assert f"{cutlass} by CUTLASS" in text and f"{nobody} by nobody" in text


def notices(name: str) -> bool:
    try:
        return run_case(BY_NAME[name], races=False) != []
    except _emulator.EmulatorFault:
        return True


@pytest.mark.parametrize("model", [name for name, fact in FACTS.items() if fact.triton])
@pytest.mark.usefixtures("wrong")
def test_wrong_model_is_noticed(model):
    case = FACTS[model].triton
    assert not notices(case)
    _emulator.set_wrong_model(model)
    assert notices(case)


@pytest.mark.parametrize("model", [name for name, fact in FACTS.items() if not fact.triton])
@pytest.mark.usefixtures("wrong")
def test_what_triton_does_not_prove_is_said(model):
    """Should a case notice one, it belongs into the table. Cases of many blocks were tried once, by hand."""
    _emulator.set_wrong_model(model)
    assert not [name for name in QUICK if notices(name)]
