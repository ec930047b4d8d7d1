"""Pictures of a result file: what the roofline leaves, who is faster, and what the batch does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from .cases import BATCHES
from .families import FAMILIES
from .results import Record
from .summary import OURS, PEERS, Row, geometric_mean, of_floor, rows, tflops

INK, FAINT, RULE = "#1f2430", "#7c8394", "#d9dce3"
COLOURS = {"cuda": "#3f8f2f", "triton": "#d9622b", "torch": "#5b7db1", "aten": "#a9b0be", "compile": "#8a6bb5"}
COLOURS |= {"int_mm": "#5b7db1", "bf16": "#a9b0be", "compiled_int_mm": "#8a6bb5"}
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 11,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "legend.frameon": False,
    "figure.dpi": 120,
}


def roofline(records: Sequence[Record], ceilings: dict[str, Any]) -> Any:
    """Operations a second over operations a byte, below what the GPU copies and multiplies; None without operations."""
    from matplotlib.figure import Figure

    timed = [record for record in records if record.median and record.flops]
    if not timed:
        return None
    types = [dtype for dtype in ceilings["rates"] if any(record.dtype == dtype for record in timed)]
    figure = Figure(figsize=(max(6.5, 4.6 * len(types)), 4.4), layout="constrained")
    for axis, dtype in zip(figure.subplots(1, len(types), squeeze=False)[0], types, strict=True):
        mine = [record for record in timed if record.dtype == dtype]
        intensities = [record.flops / record.bytes for record in mine]
        low, high = min(intensities) / 2, max(intensities) * 2
        peak, ridge = ceilings["rates"][dtype] / 1e12, ceilings["rates"][dtype] / ceilings["copy"]
        corners = [low, *([ridge] if low < ridge < high else []), high]
        axis.plot(corners, [min(peak, x * ceilings["copy"] / 1e12) for x in corners], color=INK, linewidth=1.2)
        # peers first, so that ours lie on top
        for name in sorted({record.provider for record in mine}, key=lambda name: (name in OURS, name)):
            points = [record for record in mine if record.provider == name]
            axis.scatter(
                [record.flops / record.bytes for record in points],
                [tflops(record) for record in points],
                s=20,
                color=COLOURS[name],
                alpha=0.8,
                edgecolors="white",
                linewidths=0.4,
                label=name,
            )
        axis.set(xscale="log", yscale="log", xlabel="operations a byte", title=f"{dtype}: at most {peak:.0f} TFLOP/s")
        axis.grid(color=RULE, linewidth=0.5, which="major")
        axis.legend(loc="lower right", fontsize=8)
    figure.axes[0].set_ylabel("TFLOP/s")
    return figure


def ratios(records: Sequence[Record]) -> Any:
    """How many times as fast as the best peer each backend of ours is: a bar for the mean, a dot for each case."""
    from matplotlib.figure import Figure

    found = rows(records)
    groups: list[tuple[str, list[Row]]] = []
    for family, about in FAMILIES.items():
        for direction in about.directions:
            members = [row for row in found if (row.any.family, row.any.direction) == (family, direction)]
            if any(row.speed("ours", "peers") for row in members):
                groups.append((f"{family}\n{direction}", members))
    if not groups:
        return None
    figure = Figure(figsize=(8.5, 1.2 + 0.62 * len(groups)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(OURS)
    for place, (_, members) in enumerate(groups):
        for number, name in enumerate(OURS):
            values = [value for row in members if (value := row.speed(name, "peers"))]
            if not values:
                continue
            y = place + (number - (len(OURS) - 1) / 2) * height
            mean = geometric_mean(values)
            axis.barh(y, mean - 1, left=1, height=0.85 * height, color=COLOURS[name], alpha=0.35)
            axis.scatter(values, [y] * len(values), s=9, color=COLOURS[name], alpha=0.8, linewidths=0)
            axis.annotate(
                f"{mean:.2f}", (max(*values, 1), y), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
    axis.axvline(1, color=INK, linewidth=1)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axis.set_yticks(range(len(groups)), [name for name, _ in groups], fontsize=8)
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.margins(x=0.12)
    figure.suptitle("Times as fast as the best peer: a dot a case, bars and numbers their geometric mean", fontsize=11)
    handles = [axis.scatter([], [], color=COLOURS[name], label=name) for name in OURS]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(OURS), fontsize=8)
    return figure


def batches(records: Sequence[Record]) -> Any:
    """The share of the floor over the batch, as geometric means of what was measured at every batch; None for one."""
    from matplotlib.figure import Figure

    panels: list[tuple[str, dict[str, dict[int, float]]]] = []
    for family in FAMILIES:
        shares = _by_batch([record for record in records if record.median and record.family == family])
        if shares:
            panels.append((family, shares))
    if not panels:
        return None
    figure = Figure(figsize=(max(6.5, 3.6 * len(panels)), 3.6), layout="constrained")
    for axis, (family, shares) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, points in shares.items():
            style = "-" if name in OURS else "--"
            axis.plot(
                list(points),
                [100 * share for share in points.values()],
                style,
                marker="o",
                color=COLOURS[name],
                label=name,
            )
        axis.set(xscale="log", xlabel="batch", title=family, ylim=(0, None))
        axis.set_xticks(sorted({n for points in shares.values() for n in points}))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.minorticks_off()
        axis.grid(color=RULE, linewidth=0.5)
        axis.legend(fontsize=8)
    figure.axes[0].set_ylabel("percent of the floor")
    return figure


def _by_batch(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Of each provider the mean share at each batch, over the shapes that it was timed on at all of them."""
    kinds: dict[str, dict[str, dict[int, float]]] = {}
    for record in records:
        shape = record.key.replace(f" {record.batch}x", " Nx", 1)
        kinds.setdefault(record.provider, {}).setdefault(shape, {})[record.batch] = of_floor(record)
    found: dict[str, dict[int, float]] = {}
    for name in (*PEERS, *OURS):
        shapes = kinds.get(name, {}).values()
        sizes = sorted({n for shape in shapes for n in shape} & set(BATCHES))
        complete = [shape for shape in shapes if set(sizes) <= set(shape)]
        if len(sizes) > 1 and complete:
            found[name] = {n: geometric_mean([shape[n] for shape in complete]) for n in sizes}
    return found


def png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def pictures(records: Sequence[Record], ceilings: dict[str, Any]) -> dict[str, bytes]:
    """Every picture that the records suffice for, as PNG, by name.

    Raises:
        ImportError: where matplotlib is not installed.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figures = {"roofline": roofline(records, ceilings), "ratios": ratios(records), "batches": batches(records)}
        return {name: png(figure) for name, figure in figures.items() if figure is not None}
