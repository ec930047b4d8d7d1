"""What a unit looks for: an image that makes it as large as it goes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .hooks import Outputs, layer_of


def maximize(
    model: nn.Module,
    layer: str | nn.Module,
    channel: int,
    size: Sequence[int],
    steps: int = 128,
    rate: float = 0.05,
    shift: int = 2,
    decay: float = 1e-3,
    seed: int = 0,
) -> Tensor:
    """Activation maximization by gradient ascent from noise.

    D. Erhan et al., "Visualizing higher-layer features of a deep network", 2009. The image is shifted by a few pixels
    before each step and drawn towards 0, without which it becomes noise that no eye sees anything in (C. Olah et al.,
    "Feature visualization", Distill 2017).

    Args:
        model: any module that takes the image.
        layer: whose output `[1, K, ...]` has the channel.
        channel: the mean of this channel is what grows.
        size: the image's, `(C, H, W)`.
        steps, rate: of Adam.
        shift: the most pixels of a random shift; what leaves at one side enters at the other.
        decay: weight of the image's mean square, taken from what grows.
        seed: of noise and shifts.

    Returns:
        `[C, H, W]` on the model's device, fp32.

    Raises:
        ValueError: the channel is none of the layer's, or its value does not depend on the image.
    """
    name, _ = layer_of(model, layer)
    first = next(model.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(seed)
    image = (0.1 * torch.randn(1, *size, generator=generator)).to(first.device).requires_grad_()
    optimizer = torch.optim.Adam([image], rate)
    for _ in range(steps):
        by = torch.randint(-shift, shift + 1, (len(size) - 1,), generator=generator).tolist()
        with torch.enable_grad(), Outputs(model, [layer]) as outputs:
            model(image.roll(by, tuple(range(2, 1 + len(size)))).to(first.dtype))
            output = outputs.of(name)
            if not (output.dim() > 1 and 0 <= channel < output.shape[1]):
                raise ValueError(f"channel must be one of the layer {name}'s {output.shape[1]}, but got {channel}")
            goal = output[:, channel].float().mean() - decay * image.square().mean()
            (image.grad,) = torch.autograd.grad(-goal, image)
        optimizer.step()
    return image.detach()[0]
