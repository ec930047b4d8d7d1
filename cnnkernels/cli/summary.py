"""`cnnkernels summary`: what each layer of anybody's network costs, as a table and a picture."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from .. import visualize


def model_of(name: str) -> torch.nn.Module:
    """The module that `module:factory` makes, or is; modules of the current folder are found, too.

    Raises:
        ValueError: there is no such module or factory, or it makes something else.
    """
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise ValueError(f"the model must be given as module:factory, but got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} cannot be found: {error}") from error
    made = found if isinstance(found, torch.nn.Module) else found()
    if not isinstance(made, torch.nn.Module):
        raise ValueError(f"{name} must make a torch.nn.Module, but made {type(made).__name__}")
    return made


def run(name: str, sizes: Sequence[Sequence[int]], gpu: str, picture: str | None) -> int:
    """Prints the table, writes the picture; always 0.

    Raises:
        ValueError: no such model or GPU.
    """
    model = model_of(name).eval()
    found = visualize.cost(model, *(torch.zeros(*size) for size in sizes), gpu=gpu)
    print(found)
    if picture is not None:
        visualize.draw_cost(found).savefig(picture)
        print(f"wrote {picture}")
    return 0
