"""The picture `cnnkernels demo --int8` writes: what INT8's codes span, and what rounding to them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..nn import Int8Conv2d, Int8Linear
from ..quantization import Noise, Quantization
from .demo_figure import FAINT, INK, RULE, STYLE, heading

FLOAT, CODE = "#b9bec9", "#3f8f2f"
OBSERVER_COLOURS = {"minmax": "#3f8f2f", "percentile": "#d9622b", "entropy": "#7a5cb8", "mse": "#2f7fb8"}
BINS = 160


def _named(noise: Sequence[Noise]) -> list[str]:
    """The digit network's values in words."""
    words = ["digits", "conv 1 + ReLU", "conv 2 + ReLU", "scores"]
    return words if len(noise) == len(words) else [" + ".join(n.value.names) for n in noise]


def _seen(result: Quantization, images: Tensor) -> list[Tensor]:
    """The float network's values at every tap, for the images."""
    seen: list[Tensor] = []
    observed: Any = result.observed
    handles = [
        observed.get_submodule(value.tap).register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten()))
        for value in result.values
    ]
    with torch.no_grad():
        observed(images)
    for handle in handles:
        handle.remove()
    return seen


def _ranges(figure: Any, result: Quantization, names: Sequence[str], seen: Sequence[Tensor]) -> None:
    heading(
        figure,
        "What the codes span",
        "Bars: how often a value occurs, on a logarithmic scale. Green: the range that the 256 codes of INT8 share,\n"
        "found on other digits. It always holds 0; after a ReLU that is the lowest code, -128, and none is wasted.",
    )
    axes = figure.subplots(len(seen), 1, squeeze=False).flat
    figure.subplots_adjust(left=0.15, right=0.97, top=0.82, bottom=0.05, hspace=0.75)
    for axis, value, name, numbers in zip(axes, result.values, names, seen, strict=True):
        low, high = min(value.low, 0.0), max(value.high, 0.0)
        margin = 0.06 * (high - low)
        counts, edges = torch.histogram(numbers.float().cpu(), BINS, range=(low - margin, high + margin))
        heights = (1 + counts).log10().numpy()
        axis.bar(edges[:-1].numpy(), heights, width=(edges[1] - edges[0]).item(), align="edge", color=FLOAT)
        top = float(heights.max())
        axis.hlines(-0.12 * top, low, high, color=CODE, linewidth=3)
        axis.vlines([low, high], -0.12 * top, top, color=CODE, linewidth=1)
        code = (
            "stays float" if value.code is None else f"step {value.code.scale:.4f}, 0 is code {value.code.zero_point}"
        )
        axis.set_title(code, fontsize=9, color=FAINT, loc="right", pad=3)
        axis.set_ylabel(name, rotation=0, ha="right", va="center", color=INK)
        axis.set_yticks([])
        axis.set_ylim(-0.2 * top, 1.05 * top)


def _noise(figure: Any, noise: Mapping[str, Sequence[Noise]], names: Sequence[str]) -> None:
    heading(
        figure,
        "Signal-to-noise ratio",
        "In decibels, of each value of the INT8 network beside the float one's,\nall rounding up to there included: by "
        "what the range was taken from.",
    )
    axis = figure.subplots()
    figure.subplots_adjust(left=0.2, right=0.95, top=0.8, bottom=0.08)
    for index, (observer, values) in enumerate(noise.items()):
        places = [row + 0.2 * (index - (len(noise) - 1) / 2) for row in range(len(values))]
        lengths = [n.decibels for n in values]
        axis.barh(places, lengths, height=0.17, color=OBSERVER_COLOURS[observer], label=observer)
        for place, length in zip(places, lengths, strict=True):
            axis.text(length + 0.4, place, f"{length:.1f}", va="center", fontsize=8, color=FAINT)
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.12 * max(n.decibels for values in noise.values() for n in values))
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, fontsize=8.5, columnspacing=1, handlelength=1)
    axis.grid(axis="x", color=RULE, linewidth=0.6)


def _weights(figure: Any, model: torch.nn.Sequential, result: Quantization) -> None:
    heading(
        figure,
        "A scale for each filter",
        "Grey: a filter's weights, from the least to the largest. Green: what its 255 codes span, as far below 0 as "
        "above. With one scale for a whole layer the small filters would get a few codes each.",
    )
    layers: list[Any] = [module for module in model if hasattr(module, "weight")]
    coded: list[Any] = [module for module in result.model.modules() if isinstance(module, (Int8Conv2d, Int8Linear))]
    axes = figure.subplots(1, len(layers), squeeze=False, width_ratios=[8 + len(layer.weight) for layer in layers]).flat
    figure.subplots_adjust(left=0.04, right=0.985, top=0.74, bottom=0.1, wspace=0.16)
    for axis, layer, int8 in zip(axes, layers, coded, strict=True):
        rows = layer.weight.detach().flatten(1).cpu()
        limit = 127 * int8.weight_scale.cpu()
        filters = range(len(rows))
        axis.vlines(filters, (-limit).tolist(), limit.tolist(), color=CODE, linewidth=1)
        axis.vlines(filters, rows.amin(1).tolist(), rows.amax(1).tolist(), color=FLOAT, linewidth=4)
        axis.axhline(0, color=RULE, linewidth=0.8, zorder=0)
        axis.set_title(f"{type(layer).__name__}, {len(rows)} x {rows.shape[1]} weights", fontsize=9, color=FAINT)
        axis.set_xticks([])


def draw(
    path: str,
    model: torch.nn.Sequential,
    result: Quantization,
    noise: Mapping[str, Sequence[Noise]],
    images: Tensor,
) -> None:
    """Writes the picture.

    Args:
        path: the file; its ending names the format.
        model: the float network.
        result: it in INT8.
        noise: for each observer, the signal-to-noise ratios of the network quantized with it.
        images: what the float network's values are shown for.
    """
    names = _named(noise["minmax"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 10.4), facecolor="white")
        title, upper, lower = figure.subfigures(3, 1, squeeze=False, height_ratios=(0.12, 1.35, 0.8)).flat
        ratio = result.float_bytes / result.int8_bytes
        text = f"Handwritten digits in INT8: {result.int8_bytes / 1024:.1f} KiB in the place of "
        text += f"{result.float_bytes / 1024:.1f} KiB, {ratio:.1f} times smaller"
        title.text(0.02, 0.45, text, fontsize=18, va="center")
        ranges, ratios = upper.subfigures(1, 2, width_ratios=(1.5, 1))
        _ranges(ranges, result, names, _seen(result, images))
        _noise(ratios, noise, names)
        _weights(lower, model, result)
        figure.savefig(path, dpi=130)
