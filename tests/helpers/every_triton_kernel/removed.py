"""Triton's kernels without one of the synchronising instructions that Triton's compiler put into them: whether some
mode of the emulator notices. `python -m helpers.every_triton_kernel.removed [trials]`, a process for each GPU.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from cnnkernels import backends
from cnnkernels.emulator import triton_driver
from helpers.every_kernel.removed import MODES, SYNCHRONISING, spread, with_trap, without
from helpers.every_triton_kernel import Trial
from helpers.every_triton_kernel.found import of_tables

STATEMENT = re.compile(rf"(?:@!?%?\w+\s+)?(?:{SYNCHRONISING.pattern})[^;\n]*;")


class Removed(NamedTuple):
    kernel: str
    instruction: str
    noticed: bool
    executed: bool


@contextlib.contextmanager
def launched() -> Iterator[dict[Any, str]]:
    """The kernels that are loaded and launched within it, with their PTX."""
    found: dict[Any, str] = {}
    init = triton_driver.Loaded.__init__

    def noted(self: Any, emulator: Any, ptx: str, *rest: Any) -> None:
        init(self, emulator, ptx, *rest)
        found[self] = ptx

    triton_driver.Loaded.__init__ = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        triton_driver.Loaded.__init__ = init  # type: ignore[method-assign]


def noticed(trial: Trial, kernel: Any, text: str, modes: list[dict[str, Any]]) -> bool:
    program, mode = kernel.program, kernel.mode
    kernel.program = kernel.emulator.parse(text, f"{kernel.name}.ptx")
    try:
        for each in modes:
            order, delivery = each["order"], each["delivery"]
            kernel.mode = lambda memory, order=order, delivery=delivery, each=each: kernel.emulator.Mode(
                random=order == "random", reversed=order == "reversed", late=delivery != "early",
                unasked=delivery == "random", seed=each["seed"], starve=each["starve"],
                warps_meet=each["warps_meet"], threads=1, memory=memory,
            )  # fmt: skip
            try:
                if not trial.is_right():
                    return True
            except RuntimeError:
                return True
        return False
    finally:
        kernel.program, kernel.mode = program, mode


def removed(trial: Trial) -> Iterator[Removed]:
    """Of the kernels that a trial is the first to launch."""
    with launched() as kernels:
        assert trial.is_right()
    for kernel, text in kernels.items():
        for found in STATEMENT.finditer(text):
            opcode = found[1]
            less = text[: found.start()] + without(found[0], opcode) + text[found.end() :]
            trap = text[: found.start()] + with_trap(found[0]) + text[found.end() :]
            seen = noticed(trial, kernel, less, MODES)
            yield Removed(kernel.name, opcode, seen, seen or noticed(trial, kernel, trap, MODES[:1]))


def main(most: int) -> None:
    backends.kernels("triton", "cpu")
    arch = triton_driver.driver.active.get_current_target().arch
    torch.manual_seed(0)
    found = [each for trial in spread(of_tables(arch, False), most) for each in removed(trial)]
    print(f"sm_{arch}, {most} problems: instructions, noticed, not executed, else not noticed")
    for name in ["", *sorted({each.kernel for each in found})]:
        of = [each for each in found if name in ("", each.kernel)]
        seen, idle = sum(each.noticed for each in of), sum(not each.executed for each in of)
        print(f"{name or 'all'}: {len(of)}, {seen}, {idle}, {len(of) - seen - idle}")
    for instruction, count in Counter(e.instruction for e in found if e.executed and not e.noticed).most_common():
        print(f"    {count} {instruction} not noticed")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
