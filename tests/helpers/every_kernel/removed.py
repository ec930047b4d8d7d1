"""Kernels without one of their synchronising instructions: whether some mode of the emulator notices.

Kernels of one source are instances of the same lines, so what is gone through is each place of each source: an
instruction with the line it was written in and all lines that call it. Of the kernels that have the place some are
tried, until one is found of which no copy of the instruction can be missed. Of initialising mbarriers, which orders
nothing, nothing is taken out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from helpers.every_kernel import (
    ROOT,
    Trial,
    archive,
    compiled_as,
    larger,
    left_out,
    module,
    run,
    source_of,
    text_of,
    trials,
)

TABLE = Path(__file__).with_name("removed.json")
SYNCHRONISING = re.compile(
    r"\b(bar\.(?:warp\.)?(?:sync|arrive|red)|barrier\.cluster\.(?:arrive|wait)|membar|fence|griddepcontrol\.\w+"
    r"|cp\.async\.(?:bulk\.)?(?:commit_group|wait_group)|cp\.async\.(?:wait_all|mbarrier\.arrive)"
    r"|wgmma\.(?:fence|commit_group|wait_group)|mbarrier\.(?:arrive|expect_tx|complete_tx|test_wait|try_wait))\b[\w.:]*"
)
FUNCTION = re.compile(r"^(?=(?:\.visible |\.weak )?\.(?:entry|func)\b)", re.MULTILINE)
# Lines of a text that may be one, and those that say where what follows comes from.
OF_INTEREST = re.compile(r"^(?!\.)(?:\s*\.loc|.*(?:bar\.|barrier\.|fence|griddep|cp\.async|wgmma)).*$", re.MULTILINE)
LOCATION = re.compile(r"\s*\.loc\s+(\d+) (\d+) (\d+)(?:, function_name \S+, inlined_at (\d+) (\d+) (\d+))?")
MODES = [
    {"order": "ordered", "delivery": "late", "seed": 0, "starve": False, "warps_meet": True},
    {"order": "random", "delivery": "late", "seed": 1, "starve": True, "warps_meet": False},
    {"order": "reversed", "delivery": "early", "seed": 2, "starve": False, "warps_meet": True},
    {"order": "random", "delivery": "random", "seed": 3, "starve": True, "warps_meet": True},
]
KERNELS, TRIALS = 4, 4  # of a place at most so many are tried, each in so many problems


class Place(NamedTuple):
    """An instruction, and from the innermost outwards the lines that it comes from, as `line`."""

    instruction: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return " < ".join((self.instruction, *self.lines))


class Found(NamedTuple):
    """Of a place in one source: the copies in the kernel that shows most, those of them that were missed when they
    were taken out, and those that the trials executed."""

    copies: int
    missed: int
    executed: int


@cache
def texts(file: str) -> dict[str, str]:
    """Of each kernel: a module of its own."""
    head, *functions = FUNCTION.split(text_of(file))
    found = {}
    for function in functions:
        if name := re.match(r"(?:\.visible |\.weak )?\.entry (\w+)", function):
            found[name[1]] = head + function
    return found


@cache
def lines_of(name: str) -> list[str]:
    """Of a source, wherever it lay when it was compiled; empty where it is no kernel's."""
    full = os.path.normpath(name)
    found = [
        path for path in (ROOT / "csrc").rglob(Path(name).name) if full.endswith(path.relative_to(ROOT).as_posix())
    ]
    if "/csrc/ptx/" in full:
        return []
    return [line.strip() for line in found[0].read_text().split("\n")] if found else []


@cache
def line(name: str, number: int) -> str:
    """What stands there, so that it is found again when it has moved: `kernel.cuh: sync_threads();`, of several that
    say the same `kernel.cuh: sync_threads(); (2)` for the second. Nothing of csrc/ptx and of CUDA's headers."""
    lines = lines_of(name)
    if not lines:
        return ""
    text = lines[number - 1]
    before = lines[: number - 1].count(text)
    return f"{Path(name).name}: {text}" + (f" ({before + 1})" if before else "")


@cache
def files(file: str) -> dict[str, str]:
    """The sources' names by their numbers in a text."""
    return dict(re.findall(r'^\s*\.file\s+(\d+) "(.*?)"', text_of(file), re.MULTILINE))


def places(file: str, text: str) -> dict[Place, list[tuple[int, int]]]:
    """Of a kernel's text: each place, with the PTX lines that are copies of it, from where to where."""
    found: dict[Place, list[tuple[int, int]]] = {}
    callers: dict[tuple[str, ...], tuple[str, ...]] = {}
    chain: tuple[str, ...] = ()
    for of_text in OF_INTEREST.finditer(text) if SYNCHRONISING.search(text) else []:
        if location := LOCATION.match(of_text[0]):
            *here, to, row, column = location.groups()
            said = line(files(file)[here[0]], int(here[1]))
            chain = (said,) * bool(said) + (callers.get((to, row, column), ()) if to else ())
            callers[tuple(here)] = chain
        elif it := SYNCHRONISING.search(of_text[0].partition("//")[0]):
            found.setdefault(Place(it[0], chain), []).append(of_text.span())
    return found


def without(of_text: str, opcode: str) -> str:
    """What it leaves behind where it has a result: a wait that is over, one's own vote, no token."""
    rest = of_text.partition(opcode)[2]
    operands = rest.partition(";")[0].strip()
    first = operands.partition(",")[0]
    if "_wait." in opcode and opcode.startswith("mbarrier"):
        return f"setp.eq.u32 {first}, 0, 0;"
    if opcode.startswith("bar.red"):
        return f"mov.pred {first}, {operands.rpartition(',')[2].strip()};"
    if opcode.startswith("mbarrier.arrive") and not first.startswith(("_", "[")):
        return f"mov.b64 {first}, 0;"
    return ""


def with_trap(of_text: str) -> str:
    guard = re.match(r"\s*(@!?%?\w+ )?", of_text)
    assert guard is not None
    return f"{guard[1] or ''}trap;"


def complaint(trial: Trial) -> str:
    """What the emulator or a comparison says of a trial, nothing where it went well."""
    try:
        run(trial)
    except AssertionError:
        return "wrong result"
    except RuntimeError as fault:
        return str(fault).splitlines()[0]
    finally:
        module().reset_device()
    return ""


def noticed_by(its: list[Trial], modes: list[dict[str, object]]) -> str:
    for trial in its:
        for mode in modes:
            module().set_schedule(**mode)
            if said := complaint(trial):
                return said
    return ""


def trials_of_kernels(source: str) -> dict[tuple[str, int], list[Trial]]:
    found: dict[tuple[str, int], list[Trial]] = {}
    compiled = compiled_as(source)
    of_source = {kernel for image in archive() if source_of(image) == compiled for kernel in image["kernels"]}
    for trial in [*larger(source), *trials(source)]:
        for kernel, architecture in run(trial):
            if kernel in of_source:
                found.setdefault((kernel, architecture), []).append(trial)
    return found


def sites(source: str) -> dict[Place, list[tuple[str, str]]]:
    """Each place of a source, with the kernels that have it and the files of their PTX."""
    found: dict[Place, list[tuple[str, str]]] = {}
    for image in archive():
        if source_of(image) == source and not left_out(image):
            for kernel, text in texts(image["file"]).items():
                for place in places(image["file"], text):
                    found.setdefault(place, []).append((image["file"], kernel))
    return found


def found_of(place: Place, file: str, kernel: str, its: list[Trial]) -> Found:
    """Takes each copy of a place out of a kernel, one at a time."""
    text = texts(file)[kernel]
    copies = places(file, text)[place]
    missed = executed = 0
    for start, end in copies:
        of_text = text[start:end]
        module().substitute(kernel, text[:start] + without(of_text, place.instruction) + text[end:])
        if noticed_by(its, MODES):
            missed, executed = missed + 1, executed + 1
        else:
            module().substitute(kernel, text[:start] + with_trap(of_text) + text[end:])
            executed += bool(noticed_by(its, MODES[:1]))
        module().substitute(kernel, "")
    return Found(len(copies), missed, executed)


def go_through(source: str, asked: list[Place], kernels: int = KERNELS) -> Iterator[tuple[Place, list[Found]]]:
    """Some places of a source, each in kernels that have it, up to the first that misses all its copies; in each of
    them where `kernels` is 0."""
    before = module().schedule()
    module().set_threads(1)
    have, of_kernel = sites(source), trials_of_kernels(source) if asked else {}
    for place in asked:
        found: list[Found] = []
        for file, kernel in spread(have[place], kernels):
            its = [trial for (name, _), some in of_kernel.items() if name == kernel for trial in some][:TRIALS]
            found.append(found_of(place, file, kernel, its))
            if kernels and found[-1].missed == found[-1].copies:
                break
        yield place, found
    names = ("order", "delivery", "seed", "starve", "warps_meet")
    module().set_schedule(**{name: before[name] for name in names})
    module().set_threads(before["threads"])


def spread(items: list[Any], most: int) -> list[Any]:
    if most == 0 or len(items) <= most:
        return items
    return [items[i * len(items) // most] for i in range(most)]


class Row(NamedTuple):
    """A place in the table: what was found by source, and why it goes unnoticed where it does."""

    place: Place
    found: dict[str, Found]
    why: str = ""

    @property
    def noticed(self) -> bool:
        return all(found.missed == found.copies for found in self.found.values())


def most(found: list[Found]) -> Found:
    """Of the kernel that shows most."""
    return max(found, key=lambda f: (f.missed - f.copies, f.missed, f.executed))


def read() -> dict[Place, Row]:
    rows = {}
    for each in json.loads(TABLE.read_text()) if TABLE.exists() else []:
        place = Place(each["instruction"], tuple(each["lines"]))
        found = {source: Found(*counts) for source, counts in each["found"].items()}
        rows[place] = Row(place, found, each.get("why", ""))
    return rows


def write(rows: list[Row]) -> None:
    said = [
        {"instruction": row.place.instruction, "lines": row.place.lines, "found": row.found}
        | ({"why": row.why} if row.why else {})
        for row in sorted(rows, key=lambda row: (sorted(row.found), row.place.lines[::-1], row.place.instruction))
    ]
    TABLE.write_text("[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in said) + "\n]\n")
