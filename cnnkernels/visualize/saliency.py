"""Where in an image a classifier finds its reasons."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hooks import Outputs, layer_of, scores_of


def grad_cam(model: nn.Module, images: Tensor, layer: str | nn.Module, target: Tensor | int | None = None) -> Tensor:
    """Grad-CAM: a layer's maps, each weighted by the mean of its gradient, summed; what is negative is left out.

    R. R. Selvaraju et al., "Grad-CAM: Visual explanations from deep networks via gradient-based localization", ICCV
    2017.
    `relu(sum over k of a_k · A_k)`, `a_k` the mean over pixels of d score / d A_k.

    Args:
        model: returns scores `[N, classes]`.
        images: `[N, C, H, W]`.
        layer: whose maps `[N, K, P, Q]` are weighted; usually the last convolution.
        target: the class, or one for each image; None takes the likeliest.

    Returns:
        `[N, H, W]` in [0, 1], enlarged to the images bilinearly; 0 everywhere where nothing speaks for the class.

    Raises:
        ValueError: the layer's output is no image, does not reach the scores, or a target is no class.
    """
    name, _ = layer_of(model, layer)
    with torch.enable_grad(), Outputs(model, [layer]) as outputs:
        # The layer's output has a gradient also where every parameter is frozen.
        scores, _ = scores_of(model(images.detach().requires_grad_()), target)
        maps = outputs.of(name)
        if maps.dim() != 4:
            raise ValueError(f"the layer {name} must return maps [N, K, P, Q], but returned {list(maps.shape)}")
        (gradient,) = torch.autograd.grad(scores.sum(), maps, allow_unused=True)
    if gradient is None:
        raise ValueError(f"the scores do not depend on what the layer {name} returned")
    heat = (gradient.mean((2, 3), keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat.float(), images.shape[-2:], mode="bilinear", align_corners=False)
    largest = heat.amax((1, 2, 3), keepdim=True)
    return (heat / torch.where(largest == 0, 1.0, largest)).squeeze(1)


def occlusion(
    model: nn.Module,
    images: Tensor,
    window: int,
    stride: int | None = None,
    target: Tensor | int | None = None,
    fill: float = 0.0,
    batch: int = 64,
) -> Tensor:
    """How much a class's score falls when a square of the image is covered.

    M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.

    Args:
        model: returns scores `[N, classes]`.
        images: `[N, C, H, W]`.
        window: the side of the square, in pixels.
        stride: pixels between neighbouring squares; None: half a window.
        target: the class, or one for each image; None takes the likeliest of the whole image.
        fill: what covers it.
        batch: covered images that run at a time.

    Returns:
        `[N, rows, columns]`, a number a square: score of the whole image less that of the covered one. The last square
        of a row or column ends where the image does.

    Raises:
        ValueError: window, stride or batch is no positive number, or the window is larger than the image.
    """
    height, width = images.shape[-2:]
    stride = max(1, window // 2) if stride is None else stride
    for name, value in (("window", window), ("stride", stride), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, but got {value}")
    if window > min(height, width):
        raise ValueError(f"window must be at most the image's {height} x {width}, but got {window}")
    tops, lefts = ([*range(0, size - window, stride), size - window] for size in (height, width))
    places = [(n, top, left) for n in range(len(images)) for top in tops for left in lefts]
    with torch.no_grad():
        whole, classes = scores_of(model(images), target)
        fallen = []
        for start in range(0, len(places), batch):
            part = places[start : start + batch]
            which = torch.tensor([n for n, _, _ in part], device=images.device)
            covered = images[which]
            for i, (_, top, left) in enumerate(part):
                covered[i, :, top : top + window, left : left + window] = fill
            fallen.append(whole[which] - scores_of(model(covered), classes[which])[0])
    return torch.cat(fallen).view(len(images), len(tops), len(lefts))
