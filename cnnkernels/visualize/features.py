"""The numbers inside a network: a layer's filters, and what layers make of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .hooks import Outputs


def filters(layer: nn.Module) -> Tensor:
    """A convolution's filters as images, each divided by its largest magnitude.

    Returns:
        `[K, C / groups, R, S]` in [-1, 1], detached; a filter of zeros stays one.

    Raises:
        ValueError: the layer has no weight of four dimensions.
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 4:
        raise ValueError(f"layer must have filters [K, C, R, S], but got {type(layer).__name__}")
    weight = weight.detach().float()
    largest = weight.abs().amax((1, 2, 3), keepdim=True)
    return weight / torch.where(largest == 0, 1.0, largest)


def feature_maps(model: nn.Module, images: Tensor, layers: Sequence[str | nn.Module]) -> dict[str, Tensor]:
    """What layers return for a batch of images.

    Args:
        model: any module that takes the images.
        images: `[N, C, H, W]`, or whatever the model takes.
        layers: names as `model.named_modules()` has them, or the modules themselves.

    Returns:
        By name, detached, as the layer returned it; of a layer that ran several times, the last.

    Raises:
        ValueError: a layer is none of the model's, did not run, or returns no tensor.
    """
    with torch.no_grad(), Outputs(model, layers) as outputs:
        model(images)
        return {name: output.detach() for name, output in outputs.all().items()}
