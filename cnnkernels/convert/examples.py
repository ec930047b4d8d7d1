"""Runs a model that is to be fused: on an example of its input, or on an image that it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .graph import Piece, call, cut
from .trace import copy_of_its_own, note_reads

_SIZES = (64, 224, 32, 28, 16, 299, 256, 384, 512)


@dataclass
class Run:
    """What was seen of a model.

    Attributes:
        pieces: its graphs, around copies of its modules.
        reads: which parameters and buffers of a convolution or batch norm code around it reads, by the module's name.
        changed: the names of modules whose result somebody changes in place.
        batch: what it was run on.
        obstacle: why there is nothing.
    """

    pieces: list[Piece] = field(default_factory=list)
    reads: dict[str, set[str]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    batch: Any = None
    obstacle: str = ""


def run(model: nn.Module, example: Any, trains: bool = False) -> Run:
    """Runs a copy of the model, in evaluation.

    Args:
        example: a batch of its input; None for an image of a size that it takes. Then the graphs are for any size:
            where the code asks for it, its parts are looked at one by one.
        trains: the graphs are of the code in training, in which the copy runs once.

    Raises:
        Exception: whatever the model says to the example.
    """
    obstacle = "no image was found that the model takes: give replace_layers an example of its input"
    for batch in _images(model) if example is None else [example]:
        probe = copy_of_its_own(model)
        if not trains:
            probe.eval()
        reads = note_reads(probe, nn.Conv2d, nn.BatchNorm2d)
        try:
            with torch.no_grad(), torch.random.fork_rng(), _changes(probe) as changed:
                call(probe, batch)
        except Exception:  # whatever it says to such an image
            if example is not None:
                raise
            continue
        pieces = cut(model, batch, trains=trains, any_size=example is None, keeps_orders=False).pieces
        return Run(pieces, reads, changed, batch)
    return Run(obstacle=obstacle)


@contextlib.contextmanager
def _changes(model: nn.Module) -> Iterator[set[str]]:
    """Gathers the names of modules whose result is not in the end what they returned."""
    changed: set[str] = set()
    made: list[tuple[str, Tensor, int]] = []

    def noting(name: str) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                made.append((name, output, output._version))

        return note

    modules = [(n, module) for n, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)]
    handles = [module.register_forward_hook(noting(name)) for name, module in modules]
    try:
        yield changed
        changed.update(name for name, output, version in made if output._version != version)
    finally:
        for handle in handles:
            handle.remove()


def _images(model: nn.Module) -> Iterator[Tensor]:
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        return
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    generator = torch.Generator().manual_seed(0)
    for size in _SIZES:
        image = torch.randn(2, first.in_channels, size, size, generator=generator)
        yield image.to(first.weight.device, first.weight.dtype)
