"""What a kernel's machine code (SASS) is made of: its instructions by group, and those of its main loop.

The main loop is the innermost one around the instructions that do a kernel's work: its multiply-adds, or, where it only
moves data, its loads and stores of global memory. A kernel may have several ways to do its work, one of them for what
is rare (a tap that is not finite, the last of a row): the loop is then that of the cheapest. Instructions of that loop
per unit of work say what a kernel spends beside the work itself; the figure needs no GPU, and shows when a compiler or
a change makes a loop worse.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

# Machine instructions by what they say about a kernel. The first pattern that matches names the group.
GROUPS = {
    "GMMA": r"[HIQ]GMMA|UTC\w*MMA",
    "MMA": r"[HID]MMA",
    "FMA": r"[FD]FMA|HFMA2|IDP",
    "TMA": r"UTMA",
    "LDGSTS.128": r"LDGSTS.*\.128",
    "LDGSTS": r"LDGSTS",
    "LDG.128": r"LDG.*\.128",
    "LDG": r"LDG",
    "STG.128": r"STG.*\.128",
    "STG": r"STG",
    "LDSM": r"LDSM",
    "LDS": r"LDS",
    "STS": r"STS",
    "local": r"LDL|STL",
    "BAR": r"BAR\.|SYNCS",
    "SHFL": r"SHFL",
}
_GROUP = re.compile("|".join(f"({pattern})" for pattern in GROUPS.values()))
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;/]*)")
_LANES = 32


class Instruction(NamedTuple):
    address: int
    guard: str  # "@!P0 ", or nothing
    mnemonic: str
    operands: str


class Loop(NamedTuple):
    """A kernel's main loop; all of a kernel whose work is in no loop.

    `work`: multiply-adds of one pass, by one warp; bytes of global memory where `unit` says so.
    """

    instructions: Counter[str]  # by group, and "all"
    work: int
    unit: str  # "multiply-adds" or "bytes"

    @property
    def per_1024(self) -> float:
        """Instructions for 1024 units of work."""
        return round(1024 * self.instructions["all"] / self.work, 3)


def group(mnemonic: str) -> str | None:
    found = _GROUP.match(mnemonic)
    return list(GROUPS)[found.lastindex - 1] if found and found.lastindex else None


def parse(sass: str) -> list[Instruction]:
    """A kernel's instructions in the order of their addresses, without its padding."""
    found = _INSTRUCTION.findall(sass)
    return [Instruction(int(at, 16), guard, name, rest) for at, guard, name, rest in found if name != "NOP"]


def count(instructions: list[Instruction]) -> Counter[str]:
    """Instructions by group, and all of them under "all"."""
    counts: Counter[str] = Counter()
    for mnemonic, times in Counter(i.mnemonic for i in instructions).items():
        counts["all"] += times
        if name := group(mnemonic):
            counts[name] += times
    return counts


def count_instructions(sass: str) -> Counter[str]:
    return count(parse(sass))


def multiply_adds(mnemonic: str, operands: str = "") -> int:
    """Of one instruction of one warp. The shape of a UTCMMA (sm_100) stands in a register, so each counts as one of
    128 x 128 x 16, whatever it is."""
    if mnemonic.startswith("HFMA2") and "-RZ, RZ" in operands:  # a constant comes into its register
        return 0
    if found := re.match(r"[HIQ]GMMA\.64x(\d+)x(\d+)", mnemonic):
        return 16 * int(found[1]) * int(found[2])
    if re.match(r"UTC\w*MMA", mnemonic):
        return 128 * 128 * 16
    if found := re.match(r"[HID]MMA\.(\d+)x(\d+)x(\d+)", mnemonic):
        return int(found[1]) * int(found[2]) * int(found[3])
    if found := re.match(r"[HID]MMA\.(8|16)(8)(\d+)", mnemonic):
        return int(found[1]) * int(found[2]) * int(found[3])
    if re.match(r"HFMA2|FFMA2", mnemonic):
        return 2 * _LANES
    if mnemonic.startswith("IDP"):
        return 4 * _LANES
    return _LANES if re.match(r"[FD]FMA", mnemonic) else 0


def global_bytes(mnemonic: str) -> int:
    """That one instruction of one warp loads from, or stores to, global memory."""
    if not re.match(r"LDG|STG", mnemonic):
        return 0
    width = next((w for w in ("256", "128", "64", "U8", "S8", "U16", "S16") if f".{w}" in mnemonic), "32")
    return _LANES * int(width.lstrip("US")) // 8


class Graph:
    """Which runs of instructions follow which: what a kernel can do, as far as its branches show."""

    def __init__(self, instructions: list[Instruction]) -> None:
        place = {instruction.address: i for i, instruction in enumerate(instructions)}
        ends: dict[int, list[int]] = {}  # the last instruction of a block: where it may go
        for i, instruction in enumerate(instructions):
            kind = instruction.mnemonic.partition(".")[0]
            if kind in ("BRA", "JMP"):
                before, _, target = instruction.operands.rpartition("0x")
                to = place.get(int(target.split()[0], 16)) if target.strip() else None
                ends[i] = [] if to is None else [to]
                if instruction.guard or before.strip():  # else nothing passes it
                    ends[i].append(i + 1)
            elif kind in ("EXIT", "RET", "BRX", "JMX"):
                ends[i] = [i + 1] if instruction.guard else []
        starts = {0, *(i + 1 for i in ends), *(to for all_of in ends.values() for to in all_of)}
        self.first = sorted(i for i in starts if i < len(instructions))
        number = {first: block for block, first in enumerate(self.first)}
        self.past = [*self.first[1:], len(instructions)]
        self.next = [[number[to] for to in ends.get(past - 1, [past]) if to < len(instructions)] for past in self.past]

    def loops(self, blocks: set[int], cut: set[int]) -> Iterator[set[int]]:
        """The largest sets of `blocks` that can be gone round, where no edge leads to a block of `cut` (Tarjan's
        strongly connected components)."""
        index: dict[int, int] = {}
        low: dict[int, int] = {}
        stack: list[int] = []
        on_stack: set[int] = set()
        for root in blocks:
            if root in index:
                continue
            work = [(root, iter(self.next[root]))]
            index[root] = low[root] = len(index)
            stack.append(root)
            on_stack.add(root)
            while work:
                block, successors = work[-1]
                for to in successors:
                    if to not in blocks or to in cut:
                        continue
                    if to not in index:
                        index[to] = low[to] = len(index)
                        stack.append(to)
                        on_stack.add(to)
                        work.append((to, iter(self.next[to])))
                        break
                    if to in on_stack:
                        low[block] = min(low[block], index[to])
                else:
                    work.pop()
                    if work:
                        low[work[-1][0]] = min(low[work[-1][0]], low[block])
                    if low[block] == index[block]:
                        component = set(stack[stack.index(block) :])
                        del stack[stack.index(block) :]
                        on_stack -= component
                        if len(component) > 1 or (block in self.next[block] and block not in cut):
                            yield component

    def entries(self, loop: set[int]) -> set[int]:
        """Blocks by which a loop is entered."""
        return {to for b, all_of in enumerate(self.next) if b not in loop for to in all_of if to in loop}


def main_loop(instructions: list[Instruction], moves_data: bool = False) -> Loop | None:
    """The innermost loop around most of a kernel's work. None: it does none that is known here.

    `moves_data`: what multiplies and adds is not the kernel's work (a division, an address, the rounding of a number on
    its way), but its loads and stores are. Of a kernel that multiplies nothing they are in any case.
    """
    amounts, unit = [multiply_adds(i.mnemonic, i.operands) for i in instructions], "multiply-adds"
    if moves_data or not any(amounts):
        amounts, unit = [global_bytes(i.mnemonic) for i in instructions], "bytes"
    if not any(amounts):
        return None
    graph = Graph(instructions)
    spans = list(zip(graph.first, graph.past, strict=True))
    worth = [sum(amounts[i] for i in range(*span)) for span in spans]
    size = [past - first for first, past in spans]

    def total(figures: list[int], blocks: set[int]) -> int:
        return sum(figures[b] for b in blocks)

    best = set(range(len(spans)))
    cut: set[int] = set()
    while True:
        inner = [loop for loop in graph.loops(best, cut) if total(worth, loop)]
        most = max((total(worth, loop) for loop in inner), default=0)
        # A small loop beside work that was written out, or beside larger ones, is not the main one.
        if not inner or 4 * most < total(worth, best):
            break
        ways = [loop for loop in inner if 4 * total(worth, loop) >= most]
        best = min(ways, key=lambda loop: (total(size, loop) / total(worth, loop), min(loop)))
        cut = cut | (graph.entries(best) or {min(best)})
    body = [instructions[i] for b in sorted(best) for i in range(*spans[b])]
    return Loop(count(body), total(worth, best), unit)
