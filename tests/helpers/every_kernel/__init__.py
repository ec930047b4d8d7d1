"""Launches in the emulator that together reach every kernel of the build, as a GPU would get it.

A room lists trials, by the source whose kernels they are for: small problems of small integers, each with more steps of
its reduction than a ring of stages has, each compared with PyTorch.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from cnnkernels import native

ROOT = Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "csrc"))
import grouping  # noqa: E402

GPUS = {80: "a100", 90: "h200"}


class Trial(NamedTuple):
    name: str
    run: Callable[[], None]
    gpu: str = "h200"


def emulated() -> native.NativeKernels:
    return native.load("emulated")


def module() -> ModuleType:
    return emulated().module


@cache
def archive() -> list[dict[str, Any]]:
    """Of each text of PTX: its file, what became of it, its kernels and their registers."""
    with zipfile.ZipFile(Path(str(module().__file__)).with_name("_emulated.zip")) as files:
        return [image for image in json.loads(files.read("index.json")) if image["kernels"]]


def text_of(file: str) -> str:
    with zipfile.ZipFile(Path(str(module().__file__)).with_name("_emulated.zip")) as files:
        return files.read(file).decode()


def source_of(image: dict[str, Any]) -> str:
    return str(Path(image["file"]).parent).removeprefix("csrc/")


def architecture_of(image: dict[str, Any]) -> int:
    return int(Path(image["file"]).stem.removeprefix("compute_").rstrip("a"))


def left_out(image: dict[str, Any]) -> bool:
    """What a source for Hopper becomes for older GPUs: kernels that trap. They are never launched, as
    test_runtime_operators.py has it of every GPU; nor is the probe, which is only looked at."""
    return "sm90" in source_of(image) and (architecture_of(image) < 90 or source_of(image).endswith("sm90_probe.cu"))


def reachable() -> dict[str, set[tuple[str, int]]]:
    """By source: the kernels, each with the architecture of its PTX."""
    found: dict[str, set[tuple[str, int]]] = {}
    for image in archive():
        if not left_out(image):
            of_image = {(kernel, architecture_of(image)) for kernel in image["kernels"]}
            found.setdefault(source_of(image), set()).update(of_image)
    return found


@cache
def parts() -> dict[str, list[str]]:
    """Of what setup.py compiles as one, the sources."""
    groups = grouping.group(sorted(path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*.cu")))
    return {
        made.relative_to("csrc").as_posix(): [p.relative_to("csrc").as_posix() for p in of]
        for made, of in groups.items()
    }


def compiled_as(source: str) -> str:
    return next(made for made, of in parts().items() if source in (made, *of))


def trials(source: str) -> list[Trial]:
    """For the kernels of a source, or of several that are compiled as one; empty where nobody has written any."""
    from helpers.every_kernel import conv, conv_sm90, depthwise_conv, int8, norm, pairs, pool, quantize

    rooms = (conv, conv_sm90, depthwise_conv, int8, norm, pairs, pool, quantize)
    return [trial for part in parts().get(source, [source]) for room in rooms for trial in room.trials(part)]


def larger(source: str) -> list[Trial]:
    """Problems in which every kernel uses its shared memory again, for removed.py: too much for every kernel."""
    from helpers.every_kernel import conv, conv_sm90, depthwise_conv, int8, pairs, quantize

    rooms = (conv, conv_sm90, depthwise_conv, int8, pairs, quantize)
    return [trial for part in parts().get(source, [source]) for room in rooms for trial in room.larger(part)]


def run(trial: Trial) -> set[tuple[str, int]]:
    """The kernels that it ran, after it was found right."""
    m = module()
    before = m.standing_for()
    m.stand_for(trial.gpu)
    m.kernels_run()
    try:
        trial.run()
    finally:
        m.stand_for(before)
    return set(m.kernels_run())


def sources(*rooms: str, others: bool = False) -> list[str]:
    """Those of some rooms of csrc, or all others."""
    return [source for source in reachable() if source.startswith(rooms) != others]


def runs_every_kernel(source: str) -> list[str]:
    """The kernels of a source that no trial ran, in random order with late delivery."""
    m = module()
    before = m.schedule()
    m.set_schedule("random", 1, "late")
    m.set_threads(1)
    try:
        ran = set().union(*(run(trial) for trial in trials(source)))
    finally:
        m.set_schedule(before["order"], before["seed"], before["delivery"])
        m.set_threads(before["threads"])
    return sorted(f"{kernel} of sm_{architecture}" for kernel, architecture in reachable()[source] - ran)
