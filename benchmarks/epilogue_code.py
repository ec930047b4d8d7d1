"""What a kernel's machine code takes to finish INT8 outputs, without a GPU.

An epilogue is asked at run time what to do, so its code has a way for every answer, and a static count says little.
What is counted is the shortest way round the loop that rounds sums to integers and stores them: what a warp executes
for one turn where nothing but scales and a bias were asked for.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from machine_code import Graph, Instruction

RUN = 4  # outputs of a thread that one store holds


def finish_int8(instructions: Sequence[Instruction]) -> float | None:
    """Instructions of a warp for a run of four INT8 outputs a thread. None: the kernel has no such loop."""
    graph = Graph(list(instructions))
    names = [[i.mnemonic for i in instructions[a:b]] for a, b in zip(graph.first, graph.past, strict=True)]
    following = [set(to) for to in graph.next]
    reached = set().union(*following) if following else set()
    for block, all_of in enumerate(names):
        if all_of[-1].startswith("BRX"):  # to where nothing else leads
            following[block] |= set(range(1, len(names))) - reached
    best = None
    for block, all_of in enumerate(names):
        if not any(name.startswith("F2I") for name in all_of):
            continue
        way = _round(block, following, [len(n) for n in names])
        passed = [name for b in way for name in names[b]]
        stores = sum(_stores_run(name) for name in passed)
        if stores and not any("MMA" in name for name in passed):
            found = round(len(passed) / stores, 3)
            best = found if best is None else min(best, found)
    return best


def _stores_run(mnemonic: str) -> bool:
    """A store of 32 bits: four outputs of INT8."""
    parts = mnemonic.split(".")
    return parts[0] == "STG" and not {"64", "128", "U8", "S8", "U16", "S16"} & set(parts)


def _round(start: int, following: list[set[int]], size: list[int]) -> list[int]:
    """The blocks of the shortest way from `start` back to it; nothing where there is none."""
    before: dict[int, int] = {}
    nearest = [(size[to], to, start) for to in following[start]]
    heapq.heapify(nearest)
    while nearest:
        far, block, source = heapq.heappop(nearest)
        if block in before:
            continue
        before[block] = source
        if block == start:
            way = [start]
            while (source := before[way[-1]]) != start:
                way.append(source)
            return way
        for to in following[block]:
            if to not in before:
                heapq.heappush(nearest, (far + size[to], to, block))
    return []
