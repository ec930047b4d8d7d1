"""Puts the kernels under a network of torch.nn, and, where they are installed, of timm and segmentation_models_pytorch.

Outputs and gradients must be as near to those in fp64 as the original network's in fp32 are, within a factor of four.

python examples/replace_layers.py --network timm:resnet18 --network timm:mobilenetv3_small_100
"""

from __future__ import annotations

import copy
import importlib
import importlib.util

import torch
from common import arguments, require
from torch import Tensor, nn

import cnnkernels

INSTALLED = {"timm": "timm:resnet10t", "segmentation_models_pytorch": "segmentation_models_pytorch:Unet"}


def load(name: str) -> tuple[nn.Module, Tensor]:
    """A network without trained weights, and an input."""
    package, _, which = name.partition(":")
    if package == "timm":
        return importlib.import_module("timm").create_model(which, pretrained=False), torch.randn(2, 3, 64, 64)
    if package == "segmentation_models_pytorch":
        make = getattr(importlib.import_module(package), which)
        return make(encoder_name="resnet18", encoder_weights=None), torch.randn(2, 3, 64, 64)
    return of_torch(), torch.randn(2, 3, 16, 16)


def of_torch() -> nn.Module:
    """Layers of torch.nn, one of a kind."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 32, 1), nn.ReLU(), nn.AvgPool2d(2),
        nn.ConvTranspose2d(32, 8, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


def answers(model: nn.Module, x: Tensor, dtype: torch.dtype) -> Tensor:
    """The output and all gradients, in a row."""
    model = copy.deepcopy(model).to(dtype).eval()
    y = model(x.to(dtype))
    y.square().mean().backward()
    parts = [y.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return torch.cat([part.flatten() for part in parts]).double()


def main() -> None:
    more = {"action": "append", "metavar": "PACKAGE:NAME", "help": "timm:resnet50, ... (may be repeated)"}
    given = arguments(__doc__, epochs=0, network=more)
    found = [name for package, name in INSTALLED.items() if importlib.util.find_spec(package)]
    for name in given.network or ["of_torch", *found]:
        model, x = load(name)
        plain, x = model.to(given.device), x.to(given.device)
        report = cnnkernels.replace_layers(plain)
        print(f"{name}: {str(report).splitlines()[0]}")
        exact = answers(plain, x, torch.float64)
        theirs, ours = ((answers(m, x, torch.float32) - exact).norm().item() for m in (plain, report.model))
        require(f"layers of {name} are on the kernels", len(report.swapped) > 0)
        require(f"off by {ours:.1e}, torch.nn's own by {theirs:.1e}", ours <= 4 * theirs)


if __name__ == "__main__":
    main()
