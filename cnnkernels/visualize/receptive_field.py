"""Which pixels a unit depends on, measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .hooks import Outputs, layer_of


class ReceptiveField(NamedTuple):
    """The rows [top, bottom) and columns [left, right) that a unit depends on, and how much on each pixel `[H, W]`."""

    top: int
    bottom: int
    left: int
    right: int
    influence: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left


def receptive_field(
    model: nn.Module,
    layer: str | nn.Module,
    size: Sequence[int],
    position: tuple[int, int] | None = None,
    samples: int = 4,
    seed: int = 0,
) -> ReceptiveField:
    """The field of a unit, by the gradient of its output, and how much each pixel counts in it.

    W. Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NIPS 2016. The
    influence of a pixel is the magnitude of the gradient of the unit's channels, their signs drawn, summed over the
    image's channels; the mean over random images. ReLUs and max-pools let some paths pass only for some images, so the
    field may come out smaller than it could be; more samples find more of it. A layer that pools the whole image,
    squeeze-and-excite too, sees all of it.

    Args:
        model: any module that takes images.
        layer: whose output is `[N, K, P, Q]`.
        size: the image's, `(C, H, W)`.
        position: of the unit in the layer's output; None: its middle.
        samples: random images.
        seed: of theirs.

    Returns:
        The field within the image; all 0 where the unit depends on nothing.

    Raises:
        ValueError: the layer's output is no image, or the position is outside of it.
    """
    name, _ = layer_of(model, layer)
    first = next(model.parameters(), torch.empty(0))
    images = torch.randn(samples, *size, generator=torch.Generator().manual_seed(seed))
    images = images.to(first.device, first.dtype).requires_grad_()
    with torch.enable_grad(), Outputs(model, [layer]) as outputs:
        model(images)
        output = outputs.of(name)
        if output.dim() != 4:
            raise ValueError(f"the layer {name} must return maps [N, K, P, Q], but returned {list(output.shape)}")
        p, q = position or (output.shape[2] // 2, output.shape[3] // 2)
        if not (0 <= p < output.shape[2] and 0 <= q < output.shape[3]):
            raise ValueError(f"position must be within {list(output.shape[2:])}, but got {(p, q)}")
        # Signs are drawn, so that channels do not cancel each other.
        signs = torch.randint(0, 2, output.shape[:2], generator=torch.Generator().manual_seed(seed)) * 2 - 1
        (gradient,) = torch.autograd.grad((output[:, :, p, q] * signs.to(output)).sum(), images, allow_unused=True)
    influence = (torch.zeros_like(images) if gradient is None else gradient).detach().abs().float().sum(1).mean(0)
    rows, columns = (influence.amax(axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        return ReceptiveField(0, 0, 0, 0, influence)
    return ReceptiveField(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1, influence)
