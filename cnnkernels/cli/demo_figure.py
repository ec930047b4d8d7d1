"""The picture `cnnkernels demo` writes: how the losses went, what was learned, and where max-pool's gradient goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

if TYPE_CHECKING:
    from .demo import Digits, Run

INK, FAINT, RULE, WINDOW = "#1f2430", "#7c8394", "#d9dce3", "#a9b0be"
COLOURS = {"torch.nn": "#b9bec9", "cuda": "#3f8f2f", "triton": "#d9622b"}
SIGNED, POSITIVE = "RdBu_r", "Greys"
STYLE: dict[Any, Any] = {
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
}


def heading(figure: SubFigure, title: str, text: str) -> None:
    figure.text(0.03, 0.98, title, fontsize=13, fontweight="bold", va="top")
    figure.text(0.03, 0.915, text, fontsize=9.5, color=FAINT, va="top", linespacing=1.4)


def _picture(axis: Any, image: Tensor, colours: str, limit: float, signed: bool) -> None:
    axis.imshow(image.cpu().numpy(), cmap=colours, vmin=-limit if signed else 0, vmax=limit, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(visible=True, color=RULE, linewidth=0.8)


def _losses(figure: SubFigure, theirs: Run, runs: Sequence[Run], twins: Sequence[Tensor]) -> None:
    heading(figure, "The loss, step for step", "The same start and the same batches in torch.nn and on each backend.")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.subplots_adjust(left=0.11, right=0.97, top=0.83, bottom=0.11, hspace=0.28)
    above.plot(theirs.losses, color=COLOURS["torch.nn"], linewidth=5, label=f"torch.nn, {theirs.accuracy:.1%} right")
    for index, run in enumerate(runs):
        dashes = (4 * index, (4, 4 * len(runs) - 4)) if len(runs) > 1 else (0, ())
        label = f"cnnkernels, {run.name}, {run.accuracy:.1%} right"
        above.plot(run.losses, color=COLOURS[run.name], linewidth=1.6, linestyle=dashes, label=label)
    above.set_yscale("log")
    above.set_ylabel("cross-entropy")
    above.legend(loc="lower left", labelcolor=INK, handlelength=3)
    above.grid(axis="y", color=RULE, linewidth=0.6)

    # Zero distance has no place on a logarithmic axis: it is drawn at half a unit in the last place of a loss of 1.
    floor = 2.0**-54
    steps = range(len(theirs.losses))
    envelope = torch.stack([(curve - theirs.losses).abs() for curve in twins]).amax(0).clamp_min(floor)
    below.fill_between(steps, envelope, floor, color="#eceef2", linewidth=0, label="what rounding explains")
    for run in runs:
        below.plot(run.distance(theirs).clamp_min(floor), color=COLOURS[run.name], linewidth=1.2, label=run.name)
    below.set_yscale("log")
    below.set_xlabel("step")
    below.set_title("distance from torch.nn's loss")
    allowed = envelope.max().item()
    below.axhline(allowed, color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
    below.text(1, allowed, "allowed", color=FAINT, fontsize=9, va="bottom")
    below.set_ylim(floor / 2, 40 * allowed)
    below.legend(loc="upper right", ncols=len(runs) + 1, labelcolor=INK, fontsize=9, borderaxespad=0)
    below.set_xlim(0, len(theirs.losses) - 1)


def _filters(figure: SubFigure, weight: Tensor) -> None:
    heading(figure, "Filters learned by the first layer", "3x3 taps: red adds, blue takes away.")
    axes = figure.subplots(4, 4).flat
    figure.subplots_adjust(left=0.06, right=0.94, top=0.82, bottom=0.04, hspace=0.15, wspace=0.15)
    limit = weight.abs().max().item()
    for axis, taps in zip(axes, weight[:16, 0], strict=False):
        _picture(axis, taps, SIGNED, limit, signed=True)


def _features(figure: SubFigure, image: Tensor, label: int, features: Tensor) -> None:
    heading(figure, f"What they see in a {label}", "The digit, and the 16 maps after convolution and ReLU.")
    grid = figure.add_gridspec(4, 6, left=0.03, right=0.97, top=0.82, bottom=0.04, hspace=0.15, wspace=0.15)
    _picture(figure.add_subplot(grid[1:3, 0:2]), image[0], POSITIVE, 1.0, signed=False)
    limit = features.quantile(0.995).item()  # one bright spot must not darken the rest
    for index, feature in enumerate(features[:16]):
        axis = figure.add_subplot(grid[index // 4, 2 + index % 4])
        _picture(axis, feature, "Blues", limit, signed=False)


def _routes(figure: SubFigure, features: Tensor, gradient: Tensor) -> None:
    heading(
        figure,
        "Where max-pool's gradient went",
        "Each 2x2 window passes its gradient to its largest element and to no other; of equal ones, to the first.\n"
        "Grey: the map that was pooled. Dots: the gradient that arrived, red above and blue below zero.",
    )
    busiest = gradient.abs().sum((1, 2)).topk(4).indices
    axes = figure.subplots(1, 4)
    figure.subplots_adjust(left=0.03, right=0.98, top=0.76, bottom=0.02, wspace=0.06)
    limit = gradient[busiest].abs().max().item()
    height, width = features.shape[1:]
    for axis, channel in zip(axes, busiest, strict=True):
        _picture(axis, features[channel], POSITIVE, 1.6 * features[busiest].max().item(), signed=False)
        rows, columns = gradient[channel].nonzero(as_tuple=True)
        values = gradient[channel][rows, columns]
        sizes = 30 + 150 * (values.abs() / limit).sqrt()
        axis.scatter(
            columns.cpu(), rows.cpu(), sizes.cpu(), values.cpu(), cmap=SIGNED, vmin=-limit, vmax=limit,
            edgecolors="white", linewidths=0.8,
        )  # fmt: skip
        for edge in np.arange(-0.5, max(height, width), 2):
            axis.axhline(edge, color=WINDOW, linewidth=1.1)
            axis.axvline(edge, color=WINDOW, linewidth=1.1)
        axis.set_title(f"channel {int(channel)}", fontsize=9, color=FAINT, loc="center", pad=4)


def _look(run: Run, digits: Digits, index: int) -> tuple[Tensor, Tensor]:
    """The first layer's maps of one held-back digit, and the gradient of its loss that max-pool routed to them."""
    image, label = digits.held_images[index : index + 1], digits.held_labels[index : index + 1]
    features = run.model[:2](image)
    loss = F.cross_entropy(run.model[2:](features), label)
    (gradient,) = torch.autograd.grad(loss, features)
    return features[0].detach(), gradient[0]


def draw(path: str, theirs: Run, runs: Sequence[Run], twins: Sequence[Tensor], digits: Digits) -> None:
    """Writes the picture; filters, maps and gradients are the first run's, whose backend must be in force.

    Args:
        path: the file; its ending names the format.
        theirs: torch.nn's run.
        runs: each backend's.
        twins: torch.nn's losses with rounding added, the same number of steps.
    """
    index = int((digits.held_labels == 3).nonzero()[0])
    features, gradient = _look(runs[0], digits, index)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(15, 9.8), facecolor="white")
        title, upper, lower = figure.subfigures(3, 1, squeeze=False, height_ratios=(0.12, 1.3, 1)).flat
        title.text(0.02, 0.45, "Handwritten digits, learned on handwritten kernels", fontsize=18, va="center")
        losses, filters = upper.subfigures(1, 2, width_ratios=(1.75, 1))
        maps, routes = lower.subfigures(1, 2, width_ratios=(1, 1.95))
        _losses(losses, theirs, runs, twins)
        _filters(filters, next(runs[0].model.parameters()).detach())
        _features(maps, digits.held_images[index], int(digits.held_labels[index]), features)
        _routes(routes, features, gradient)
        figure.savefig(path, dpi=130)
