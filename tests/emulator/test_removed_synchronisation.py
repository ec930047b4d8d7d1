"""Kernels without one of their barriers, waits or fences: the emulator notices. Of the places in the table a few are
tried here; tests/removed_synchronisation.py goes through all, and docs/emulator.md says what came of it."""

from __future__ import annotations

import pytest

pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")

from helpers.every_kernel import sources
from helpers.every_kernel.removed import Place, Row, go_through, most, read, sites, spread

pytestmark = pytest.mark.long

# Sources whose problems are small, and of how many places.
FEW = {"int8/all.cu": 8, "int8/sm90_product.cu": 7, "depthwise_separable_conv/sm90/all.cu": 8, "norm/all.cu": 4}


@pytest.fixture(scope="module")
def table() -> dict[Place, Row]:
    return read()


def test_the_table_has_every_place_of_every_source(table: dict[Place, Row]) -> None:
    """`python tests/removed_synchronisation.py --new` goes through what is missing."""
    there = {(source, place) for source in sources(others=True) for place in sites(source)}
    assert len(there) > 300
    assert {(source, place) for place, row in table.items() for source in row.found} == there


def test_all_are_executed_and_what_nobody_notices_has_a_reason(table: dict[Place, Row]) -> None:
    found = [each for row in table.values() for each in row.found.values()]
    assert all(each.copies == each.executed for each in found)
    assert [str(row.place) for row in table.values() if row.noticed == bool(row.why)] == []


@pytest.mark.parametrize("source", FEW)
def test_what_the_table_says_is_noticed(table: dict[Place, Row], source: str) -> None:
    places = spread([place for place, row in table.items() if source in row.found and not row.why], FEW[source])
    found = {place: most(each) for place, each in go_through(source, places)}
    assert [str(place) for place, each in found.items() if each != table[place].found[source]] == []
    assert len(found) == FEW[source]
