"""What every layer here has beyond torch.nn's."""

from __future__ import annotations

import contextlib

import torch

from ..backends import use_backend


class KernelLayer(torch.nn.Module):
    """A layer with a backend of its own."""

    backend: str | None = None

    def _backend(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self.backend is None else use_backend(self.backend)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.backend is None else f"{text}, backend={self.backend}".removeprefix(", ")
