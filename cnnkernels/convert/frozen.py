"""Batch norms that a model's own train() keeps in evaluation: in a graph they must stay there themselves."""

from __future__ import annotations

from typing import Any

from torch import nn


class _Frozen:
    def train(self, mode: bool = True) -> Any:
        return super().train(False)  # type: ignore[misc]


class FrozenBatchNorm1d(_Frozen, nn.BatchNorm1d):
    """A BatchNorm1d that stays in evaluation."""


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    """A BatchNorm2d that stays in evaluation."""


class FrozenBatchNorm3d(_Frozen, nn.BatchNorm3d):
    """A BatchNorm3d that stays in evaluation."""


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: FrozenBatchNorm1d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
}


def keep_frozen(module: nn.Module) -> None:
    """Turns the batch norms that are in evaluation into ones that stay there."""
    for part in module.modules():
        if type(part) in _KINDS and not part.training:
            part.__class__ = _KINDS[type(part)]
