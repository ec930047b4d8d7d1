"""The trials of a family, and running them: in order and back, moved, on a stream, in a graph and in a thread."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ..certified.families import Family
from . import convolutions, integers, norms, pairs, pools
from .guarded import Guarded, Way, in_a_fresh_thread, in_a_replayed_graph, on_a_second_stream
from .trial import Trial, difference


class Verdict(NamedTuple):
    """`why`: what was wrong, empty where nothing was; `trial`: where; `after`: what ran before it, if anything."""

    why: str
    trial: str = ""
    after: str = ""
    ran: int = 0


def trials(family: Family, kernels: Any, device: str) -> list[Trial]:
    """Empty where a GPU has no such engine: nothing of it is ever chosen there."""
    gpu = kernels.module.this_gpu() if family.backend == "cuda" else None
    architecture = 90
    if device != "cpu":
        major, minor = torch.cuda.get_device_capability()
        architecture = 10 * major + minor
    if family.word in ("conv", "depthwise_conv"):
        return list(convolutions.trials(family, kernels, gpu, architecture))
    if family.word == "depthwise_separable_conv":
        return list(pairs.trials(family, kernels, gpu))
    if family.word == "norm":
        return list(norms.trials(family))
    return list(pools.trials(family) if family.word == "pool" else integers.trials(family, kernels, gpu))


def _directly(launch: Any) -> None:
    launch()


def _what_is_wrong(trial: Trial, kernels: Any, device: str) -> str:
    try:
        for found, expected in trial.call(kernels, device):
            if wrong := difference(found, expected):
                return wrong
    except Exception as error:  # of the driver, of a launcher, of a guard
        return f"{type(error).__name__}: {error}"
    return ""


def run(family: Family, kernels: Any, device: str, only: str = "") -> Verdict:
    """Runs a family's trials until one is wrong. `only`: the name of one, alone."""
    every = trials(family, kernels, device)
    turns: list[tuple[str, Way, int, Trial]] = [("", _directly, 0, trial) for trial in every]
    turns += [(" once more", _directly, 0, trial) for trial in reversed(every)]
    turns += [(", unaligned", _directly, 1, trial) for trial in every if trial.anywhere]
    ways: list[tuple[str, Way]] = [(", in a fresh thread", in_a_fresh_thread)]
    if device != "cpu":
        ways += [(", on a second stream", on_a_second_stream), (", in a replayed graph", in_a_replayed_graph)]
    turns += [(words, way, 0, trial) for words, way in ways for trial in every[:2]]
    if only:
        turns = [turn for turn in turns if turn[3].name + turn[0].removesuffix(" once more") == only][:1]
    before = ""
    for number, (words, way, shift, trial) in enumerate(turns):
        name = trial.name + words.removesuffix(" once more")
        if wrong := _what_is_wrong(trial, Guarded(kernels, way, shift), device):
            return Verdict(wrong, name, before, number)
        before = name
    return Verdict("", ran=len(turns))
