"""What the batching rules of torch.func.vmap share: the new axis goes into one that the operator has, and out."""

from __future__ import annotations

from torch import Tensor


def fold(tensor: Tensor, batch_axis: int | None, size: int, into: int) -> Tensor:
    """Merges the batch axis into axis `into`, the batch varying slowest; a tensor without one is repeated."""
    if batch_axis is None:
        tensor = tensor.unsqueeze(into).expand(*tensor.shape[:into], size, *tensor.shape[into:])
    else:
        tensor = tensor.movedim(batch_axis, into)
    return tensor.flatten(into, into + 1)


def unfold(tensor: Tensor, size: int, axis: int) -> tuple[Tensor, int]:
    """Takes the batch axis out of `axis` again; says where it stands."""
    return tensor.unflatten(axis, (size, tensor.shape[axis] // size)), axis
