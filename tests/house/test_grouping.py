"""What csrc/grouping.py compiles as one: every source once, and only sources that are compiled alike."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "csrc"))
import grouping  # noqa: E402
import toolkit  # noqa: E402

SOURCES = sorted(p.relative_to(ROOT) for pattern in ("*.cu", "*.cpp") for p in (ROOT / "csrc").rglob(pattern))
GROUPS = grouping.group(SOURCES)
ROOMS = {"emulator", "runtime", "interpreter"}  # what setup.py asks of a path, whose flags and modules differ


def test_each_source_is_compiled_once() -> None:
    assert sorted(part for parts in GROUPS.values() for part in parts) == SOURCES
    assert all(parts == [made] if len(parts) == 1 else made not in SOURCES for made, parts in GROUPS.items())


def test_what_is_compiled_as_one_is_compiled_alike() -> None:
    archs = toolkit.architectures(toolkit.DEFAULT_ARCHS)
    for made, parts in GROUPS.items():
        for part in parts:
            assert part.suffix == made.suffix
            assert toolkit.gencode(part, archs) == toolkit.gencode(made, archs)
            assert ROOMS & set(part.parts) == ROOMS & set(made.parts)
            if made.suffix == ".cu":  # the audit calls kernels by the folder of their object
                assert part.parts[1] == made.parts[1]


def test_no_name_of_a_source_that_there_is_not() -> None:
    for pattern in grouping.ALONE:
        assert list(ROOT.glob(pattern)), pattern
