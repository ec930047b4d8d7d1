"""Kernels without one of their synchronising instructions: whether some mode of the emulator notices.

Of initialising mbarriers, which orders nothing, nothing is taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from helpers.every_kernel import Trial, archive, compiled_as, conv_sm90, module, run, source_of, text_of, trials

SYNCHRONISING = re.compile(
    r"\b(bar\.(?:warp\.)?(?:sync|arrive|red)|barrier\.cluster\.(?:arrive|wait)|membar|fence|griddepcontrol\.\w+"
    r"|cp\.async\.(?:bulk\.)?(?:commit_group|wait_group)|cp\.async\.(?:wait_all|mbarrier\.arrive)"
    r"|wgmma\.(?:fence|commit_group|wait_group)|mbarrier\.(?:arrive|expect_tx|complete_tx|test_wait|try_wait))\b[\w.:]*"
)
FUNCTION = re.compile(r"^(?=(?:\.visible |\.weak )?\.(?:entry|func)\b)", re.MULTILINE)
MODES = [
    {"order": "ordered", "delivery": "late", "seed": 0, "starve": False, "warps_meet": True},
    {"order": "random", "delivery": "late", "seed": 1, "starve": True, "warps_meet": False},
    {"order": "reversed", "delivery": "early", "seed": 2, "starve": False, "warps_meet": True},
    {"order": "random", "delivery": "random", "seed": 3, "starve": True, "warps_meet": True},
]


class Removed(NamedTuple):
    kernel: str
    instruction: str
    place: str  # the source's line
    noticed: str  # by what; empty where nothing did
    executed: bool


@cache
def texts(file: str) -> dict[str, str]:
    """Of each kernel: a module of its own."""
    head, *functions = FUNCTION.split(text_of(file))
    found = {}
    for function in functions:
        if name := re.match(r"(?:\.visible |\.weak )?\.entry (\w+)", function):
            found[name[1]] = head + function
    return found


def file_of(kernel: str, architecture: int) -> str:
    for image in archive():
        if kernel in image["kernels"] and f"compute_{architecture}" in image["file"]:
            return str(image["file"])
    raise LookupError(kernel)


def without(line: str, opcode: str) -> str:
    """What it leaves behind where it has a result: a wait that is over, one's own vote, no token."""
    rest = line.partition(opcode)[2]
    operands = rest.partition(";")[0].strip()
    first = operands.partition(",")[0]
    if "_wait." in opcode and opcode.startswith("mbarrier"):
        return f"setp.eq.u32 {first}, 0, 0;"
    if opcode.startswith("bar.red"):
        return f"mov.pred {first}, {operands.rpartition(',')[2].strip()};"
    if opcode.startswith("mbarrier.arrive") and not first.startswith(("_", "[")):
        return f"mov.b64 {first}, 0;"
    return ""


@cache
def files(file: str) -> dict[str, str]:
    """The sources' names by their numbers in a text."""
    found = re.findall(r'^\s*\.file\s+(\d+) "(.*?)"', text_of(file), re.MULTILINE)
    return {number: Path(name).name for number, name in found}


def changes(file: str, text: str) -> Iterator[tuple[str, str, str, str]]:
    """Each synchronising instruction, its line in the source, the text without it, and with a trap in its place."""
    lines, place = text.split("\n"), ""
    for i, line in enumerate(lines):
        if loc := re.match(r"\s*\.loc\s+(\d+) (\d+)", line):
            place = f"{files(file)[loc[1]]}:{loc[2]}"
        found = SYNCHRONISING.search(line.partition("//")[0])
        if not found or line.startswith("."):
            continue
        guard = re.match(r"\s*(@!?%?\w+ )?", line)
        assert guard is not None
        with_trap = [*lines[:i], f"{guard[1] or ''}trap;", *lines[i + 1 :]]
        yield found[0], place, "\n".join([*lines[:i], without(line, found[0]), *lines[i + 1 :]]), "\n".join(with_trap)


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


def noticed_by(trial: Trial, modes: list[dict[str, object]]) -> str:
    for mode in modes:
        module().set_schedule(**mode)
        if said := complaint(trial):
            return said
    return ""


def trials_of_kernels(source: str) -> dict[tuple[str, int], list[Trial]]:
    found: dict[tuple[str, int], list[Trial]] = {}
    compiled = compiled_as(source)
    of_source = {kernel for image in archive() if source_of(image) == compiled for kernel in image["kernels"]}
    for trial in [*conv_sm90.larger(source), *trials(source)]:
        for kernel, architecture in run(trial):
            if kernel in of_source:
                found.setdefault((kernel, architecture), []).append(trial)
    return found


def removed(
    source: str, most: int = 0, instructions: int = 0, modes: list[dict[str, object]] | None = None
) -> Iterator[Removed]:
    """Takes each synchronising instruction of a source's kernels out, one at a time.

    most, instructions: of how many kernels, and of each how many, evenly spread; 0 is all.
    """
    before = module().schedule()
    module().set_threads(1)
    kernels = list(trials_of_kernels(source).items())
    for (kernel, architecture), its in spread(kernels, most):
        file = file_of(kernel, architecture)
        for opcode, place, text, with_trap in spread(list(changes(file, texts(file)[kernel])), instructions):
            module().substitute(kernel, text)
            said = next(filter(None, (noticed_by(trial, modes or MODES) for trial in its[:2])), "")
            executed = bool(said)
            if not said:
                module().substitute(kernel, with_trap)
                executed = any(noticed_by(trial, MODES[:1]) for trial in its[:2])
            module().substitute(kernel, "")
            yield Removed(kernel, opcode, place, said, executed)
    names = ("order", "delivery", "seed", "starve", "warps_meet")
    module().set_schedule(**{name: before[name] for name in names})
    module().set_threads(before["threads"])


def spread(items: list[Any], most: int) -> list[Any]:
    if most == 0 or len(items) <= most:
        return items
    return [items[i * len(items) // most] for i in range(most)]
