"""Calibration data in the forms that people have them, as batches that a model is called with."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from ..convert.trace import copy_of_its_own

_WIDTH = 30  # of the progress bar


def batches(data: Any, model: nn.Module) -> Iterator[Any]:
    """A tensor or dict is one batch; else each element is one.

    Of a tuple that is no list of the model's arguments, as (images, labels), a model of one argument gets the first; of
    a dict those that its forward names, or the one image in it.

    Raises:
        TypeError: it is nothing of this kind.
    """
    if isinstance(data, (Tensor, dict)):
        data = [data]
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        raise TypeError(
            f"the data must be batches, but a {type(data).__name__} gives single samples: give "
            "torch.utils.data.DataLoader(dataset, batch_size=32)"
        )
    if isinstance(data, str) or not isinstance(data, Iterable) or hasattr(data, "__array__"):
        raise TypeError(
            "the data must be a tensor, a dict of arguments, an iterable of batches or a function of the model, not "
            f"{type(data).__name__}"
        )
    signature = inspect.signature(model.forward)
    for batch in data:
        if isinstance(batch, (tuple, list)):
            try:
                signature.bind(*batch)
            except TypeError:
                batch = batch[0]  # (images, labels)
        if isinstance(batch, dict):
            batch = _named(batch, signature)
        if not isinstance(batch, (Tensor, tuple, list, dict)):
            raise TypeError(
                f"a batch must be a tensor, or a tuple, list or dict of arguments, not {type(batch).__name__}"
            )
        yield batch


def _named(batch: dict[str, Any], signature: inspect.Signature) -> Any:
    """What of a dict a forward takes."""
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    known = {name: value for name, value in batch.items() if name in signature.parameters}
    if inspect.Parameter.VAR_KEYWORD in kinds or len(known) == len(batch):
        return batch
    try:
        signature.bind(**known)
    except TypeError:
        images = [v for v in batch.values() if isinstance(v, Tensor) and v.is_floating_point() and v.dim() > 2]
        if len(images) == 1:
            return images[0]
        raise TypeError(
            f"a batch has {', '.join(map(str, batch))}, but the model's forward takes "
            f"{', '.join(signature.parameters)}: give a dict of these, or a function that calls the model"
        ) from None
    return known


class Watched(nn.Module):
    """What a calibration function is given to call in the model's place.

    Args:
        model: a copy of it is an attribute, for who asks it for parameters or its device.
        run: called with each batch.
    """

    def __init__(self, model: nn.Module, run: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self.run = copy_of_its_own(model), run
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            return self.run(args)
        return self.run(dict(inspect.signature(self.model.forward).bind(*args, **kwargs).arguments))


def feed(data: Any, model: nn.Module, run: Callable[[Any], Any], progress: bool | None) -> None:
    """Runs every batch of the data.

    Args:
        data: as `quantize` takes it.
        run: called with each batch.
        progress: shows a bar; None where standard error is a terminal.
    """
    shown = sys.stderr.isatty() if progress is None else progress
    if callable(data) and not isinstance(data, (Tensor, Iterable)):
        if inspect.signature(data).parameters:
            data(Watched(model, run))
            return
        data = data()
    total = len(data) if hasattr(data, "__len__") and not isinstance(data, (Tensor, dict)) else None
    for count, batch in enumerate(batches(data, model), 1):
        run(batch)
        if shown:
            sys.stderr.write(f"\rquantize: {_bar(count, total)}")
            sys.stderr.flush()
    if shown:
        sys.stderr.write("\n")


def _bar(count: int, total: int | None) -> str:
    if not total:
        return f"{count} batches of calibration data"
    done = _WIDTH * count // total
    return f"[{'#' * done}{'.' * (_WIDTH - done)}] {count} of {total} batches of calibration data"
