"""The picture `cnnkernels profile --figure` writes: a row of bars for each launch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ..emulator.profile import SECTOR, Profile
from ..emulator.profile_model import bounds
from .demo_figure import COLOURS, FAINT, INK, RULE, STYLE
from .profile_report import Measured, number, readable

BAR, BOUND = "#5b7fa6", COLOURS["triton"]
ROW = 2.6  # inches
FORMATS = ("png", "svg", "pdf")


def _bars(axis: Any, title: str, values: Mapping[str, float], unit: str = "", marked: str = "") -> None:
    """Named bars with their numbers, the first above."""
    names = list(values)
    colours = [BOUND if name == marked else BAR for name in names]
    bars = axis.barh(names, list(values.values()), color=colours, height=0.62)
    numbers = [f"{value:.3g}{unit}" if unit else number(value) for value in values.values()]
    axis.bar_label(bars, numbers, padding=4, color=INK, fontsize=8.5)
    axis.set_title(title)
    axis.invert_yaxis()
    axis.margins(x=0.22)
    axis.tick_params(axis="y", length=0, labelsize=8.5, labelcolor=INK)
    axis.xaxis.set_visible(False)
    axis.spines[["bottom", "left"]].set_color(RULE)


def _memory(p: Profile) -> dict[str, float]:
    """Of a request of a warp, in the mean: what it took beside the fewest that it can."""
    shared, sectors = p.sum("shared_requests"), p.sum("global_requests")
    least = math.ceil(p.sum("wanted_bytes") / SECTOR)
    return {
        "wavefronts a request": p.sum("wavefronts") / shared if shared else 0.0,
        "without conflicts": p.sum("least_wavefronts") / shared if shared else 0.0,
        "sectors a request": p.sum("sectors") / sectors if sectors else 0.0,
        "sectors of what is wanted": least / sectors if sectors else 0.0,
    }


def draw(path: str, measured: Sequence[Measured], gpu: Any) -> None:
    """Writes what `measured` says of each launch: warp instructions by kind, requests of memory, and the model's
    times, of which the longest is the bound. The path's ending names the format."""
    launches = [(one, launch) for one in measured for launch in one.launches]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 0.9 + ROW * max(1, len(launches))), facecolor="white", layout="constrained")
        figure.suptitle(
            f"Counted in the emulator as on {gpu.name}; times are a model's, and nothing was measured on a GPU",
            fontsize=11, color=FAINT, x=0.01, ha="left",
        )  # fmt: skip
        rows = figure.subfigures(max(1, len(launches)), 1, squeeze=False).flat
        for row, (one, launch) in zip(rows, launches, strict=False):
            row.suptitle(f"{one.title}: {readable(launch.kernel)[:90]}", fontsize=10, x=0.01, ha="left")
            kinds, memory, times = row.subplots(1, 3)
            scaled = {kind: count * launch.scale for kind, count in launch.kinds().items()}
            _bars(kinds, "warp instructions", scaled)
            _bars(memory, "requests of memory", _memory(launch), " ")
            found = bounds(launch, gpu)
            clocks = {name: 1e6 * seconds for name, seconds in found._asdict().items()}
            _bars(times, "least time by each unit", clocks, " us", marked=found.name)
        figure.savefig(path, dpi=110)
