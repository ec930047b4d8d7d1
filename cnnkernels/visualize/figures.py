"""Figures of what this package computes. Needs matplotlib; nothing is written to a file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tuning import Tuning
from .cost import Cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACROSS = 8


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _panel(figure: Figure, count: int) -> list[Any]:
    columns = min(count, ACROSS)
    axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False).flat
    for axis in axes:
        axis.axis("off")
    return list(axes)


def _image(image: Tensor) -> Tensor:
    """[C, H, W] as matplotlib shows it: three channels as colours, else their mean; stretched to [0, 1]."""
    image = image.detach().float().cpu()
    image = image.permute(1, 2, 0) if len(image) == 3 else image.mean(0)
    low, high = image.min(), image.max()
    return (image - low) / (high - low if high > low else 1.0)


def draw_filters(filters: Tensor, most: int = 64) -> Figure:
    """Filters `[K, C, R, S]`, of `visualize.filters`: in colours where C is 3, else the mean over C, red above 0."""
    filters = filters[:most]
    figure = _figure(8, 8 * math.ceil(len(filters) / ACROSS) / ACROSS)
    for axis, taps in zip(_panel(figure, len(filters)), filters, strict=False):
        if len(taps) == 3:
            axis.imshow(_image(taps).numpy(), interpolation="nearest")
        else:
            axis.imshow(taps.mean(0).cpu().numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    return figure


def draw_maps(maps: Tensor, images: Tensor | None = None, most: int = 32) -> Figure:
    """Maps `[N, P, Q]`: feature maps of one image, or heat of several; over their images `[N, C, H, W]` where given."""
    if maps.dim() != 3:
        raise ValueError(f"maps must be [N, P, Q], but got {list(maps.shape)}")
    maps = maps.detach().float().cpu()[:most]
    figure = _figure(8, 8 * math.ceil(len(maps) / ACROSS) / min(len(maps), ACROSS))
    axes = _panel(figure, len(maps))
    for i, (axis, one) in enumerate(zip(axes, maps, strict=False)):
        if images is None:
            axis.imshow(one.numpy(), cmap="viridis", interpolation="nearest")
        else:
            axis.imshow(_image(images[i]).numpy(), cmap="gray", interpolation="nearest")
            heat = F.interpolate(one[None, None], images.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
            axis.imshow(heat.numpy(), cmap="inferno", alpha=0.5)
    return figure


def draw_cost(cost: Cost) -> Figure:
    """A bar a layer: its floor, by what bounds it (bytes where the operations take less)."""
    names = [layer.name for layer in cost.layers]
    figure = _figure(8, 0.8 + 0.22 * len(names))
    axis = figure.subplots()
    floors = torch.tensor([1e6 * layer.floor for layer in cost.layers])
    shares = torch.tensor([layer.operations for layer in cost.layers], dtype=torch.float64)
    share = shares / max(float(shares.sum()), 1.0)
    axis.barh(names, floors.tolist(), color=["#4c78a8" if s < 0.02 else "#e07b39" for s in share.tolist()])
    axis.invert_yaxis()
    axis.set_xlabel(f"floor by a model of an {cost.gpu}, us; orange: at least 2 % of all operations")
    return figure


def draw_tuning(tuning: Tuning) -> Figure:
    """Three bars a call: PyTorch's own operator, the fastest of ours, and as chosen; of `cnnkernels.tune`."""
    lines = [line for line in tuning.lines if line.chosen is not None]
    figure = _figure(8, 1 + 0.4 * len(lines))
    axis = figure.subplots()
    bars = ("PyTorch", "reference", "#9d9d9d"), ("ours", "ours", "#4c78a8"), ("as chosen", "chosen", "#e07b39")
    for place, (label, what, colour) in enumerate(bars):
        times = [getattr(line, what) or 0.0 for line in lines]
        axis.barh([row + 0.27 * (place - 1) for row in range(len(lines))], times, 0.25, color=colour, label=label)
    axis.set_yticks(range(len(lines)), [f"{line.layers[0]}: {line.what}" for line in lines], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel(f"us, on {tuning.gpu}, {'forward and gradients' if tuning.training else 'forward'}")
    axis.legend()
    return figure
