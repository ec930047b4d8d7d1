"""What every layer here has beyond torch.nn's."""

from __future__ import annotations

import contextlib
from typing import NoReturn

import torch

from ..backends import use_backend
from ..scripting import refuse_scripting


class KernelLayer(torch.nn.Module):
    """A layer with a backend of its own."""

    backend: str | None = None

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_scripting(type(self).__name__)

    def _backend(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self.backend is None else use_backend(self.backend)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.backend is None else f"{text}, backend={self.backend}".removeprefix(", ")
