"""The name that this copy of the package was imported under.

`cnnkernels` where it is installed. A kernel hub imports each version under a name of its own, so that several can be in
one process; then what is registered with PyTorch must have that name too, and modules be looked for under it.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

NAME = __name__.rpartition(".")[0]
PLACE = Path(__file__).with_name("__init__.py")


def has(module: str) -> bool:
    """Whether there is a module of this name in the package."""
    return importlib.util.find_spec(f"{NAME}.{module}") is not None


def load(module: str) -> ModuleType:
    """The module of this name in the package."""
    return importlib.import_module(f"{NAME}.{module}")
