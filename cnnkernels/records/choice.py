"""A call that was measured: what it is known by, and which backend was the fastest at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Key = tuple[Any, ...]

# What torch.backends.cudnn.conv.fp32_precision reads, for a tenth of its time.
conv_precision = torch._C._get_fp32_precision_getter
_PLAIN = frozenset((int, bool, str, type(None), tuple))  # a tuple as such is of numbers: those of tensors have names


def _known_by(value: Any) -> Any:
    """What of an argument decides how long a call takes: of a tensor its size, its strides and its type; of a float
    nothing."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, float):
        return 0.0
    if isinstance(value, (tuple, list)):
        return tuple(map(_known_by, value))
    return value


def key_of(arguments: tuple[Any, ...]) -> Key:
    """What a call of an operator is looked up by: its arguments, a tensor first, and the settings that change it."""
    first = arguments[0]
    device = "cuda" if first.is_cuda else "cpu"
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    tf32 = first.dtype is torch.float32 and conv_precision("cuda", "conv") == "tf32"
    return (  # written out for what most arguments are, as this is done at every call
        autocast,
        tf32,
        *[
            a if a.__class__ in _PLAIN else (a.shape, a.stride(), a.dtype) if isinstance(a, Tensor) else _known_by(a)
            for a in arguments
        ],
    )


@dataclass(frozen=True)
class Choice:
    """One call, its times and who serves it.

    Attributes:
        operator: of `cnnkernels.operators`.
        key: as `key_of` makes it.
        inference, training: the backend that serves the call where no gradient is wanted, and where one is; of a
            convolution perhaps three with "/" between them, for its forward and its two gradients; None: not measured.
        microseconds: by direction and backend.
        failed: why a backend has no times.
        date: when it was measured; of two choices for a call the newer holds.
    """

    operator: str
    key: Key
    inference: str | None
    training: str | None
    microseconds: dict[str, dict[str, float]]
    failed: dict[str, str] = field(default_factory=dict)
    date: str = ""

    def encoded(self) -> dict[str, Any]:
        """As JSON has it."""
        autocast, tf32, *arguments = self.key
        settings = {"autocast": _encoded(autocast), "tf32": tf32}
        fields = {name: value for name, value in vars(self).items() if name not in ("operator", "key")}
        return {"operator": self.operator, "arguments": [*map(_encoded, arguments)], **settings, **fields}

    @classmethod
    def decoded(cls, fields: dict[str, Any]) -> Choice:
        """Raises TypeError, KeyError or AttributeError for what `encoded` does not make."""
        rest = dict(fields)
        settings = _decoded(rest.pop("autocast")), rest.pop("tf32")
        return cls(key=(*settings, *map(_decoded, rest.pop("arguments"))), **rest)


def _encoded(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if not isinstance(value, tuple):
        return value
    if len(value) == 3 and isinstance(value[2], torch.dtype):
        return {"size": [*value[0]], "stride": [*value[1]], **_encoded(value[2])}
    return [*map(_encoded, value)]


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_decoded, value))
    if not isinstance(value, dict):
        return value
    dtype = getattr(torch, value["dtype"])
    return (tuple(value["size"]), tuple(value["stride"]), dtype) if "size" in value else dtype
