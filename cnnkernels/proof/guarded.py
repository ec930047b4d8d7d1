"""A backend's kernels, each call of which runs on copies of its tensors with guards around them, in a chosen way."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_GUARD = 512  # bytes before and behind: the alignment of PyTorch's allocator
_FILL = 255  # NaN in every floating type: what is read there shows in a sum

Way = Callable[[Callable[[], None]], None]  # runs a launch


class Room:
    """A copy of a tensor, in its strides, between guards; `shift`: by how many elements it misses its alignment."""

    def __init__(self, tensor: Tensor, shift: int) -> None:
        size = tensor.element_size()
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        self.original = tensor
        self.begin = _GUARD + shift * size
        self.end = self.begin + span * size
        self.bytes = torch.full((self.end + _GUARD,), _FILL, dtype=torch.uint8, device=tensor.device)
        flat = self.bytes[self.begin : self.end].view(tensor.dtype)
        self.tensor = flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

    def outside(self) -> str:
        """What was written outside of the tensor, empty where nothing was."""
        for side, guard in (("before", self.bytes[: self.begin]), ("behind", self.bytes[self.end :])):
            if count := int((guard != _FILL).sum()):
                return f"{count} bytes written {side} a tensor of {list(self.tensor.shape)}"
        return ""


class OutOfBounds(Exception):
    pass


class Guarded:
    """Kernels whose calls take and fill the tensors they are given, by way of guarded copies."""

    def __init__(self, kernels: Any, way: Way = lambda launch: launch(), shift: int = 0) -> None:
        self._kernels = kernels
        self._way = way
        self._shift = shift

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._kernels, name)
        return functools.partial(self._call, name, found) if callable(found) else found

    def changed(self, change: Callable[[Any], Any]) -> Guarded:
        """Other kernels, called in the same way."""
        return Guarded(change(self._kernels), self._way, self._shift)

    def _call(self, name: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        rooms: dict[int, Room] = {}

        def inside(value: Any) -> Any:
            if isinstance(value, Tensor) and value.numel():
                return rooms.setdefault(id(value), Room(value, self._shift)).tensor
            if isinstance(value, tuple) and any(isinstance(each, Tensor) for each in value):
                made = tuple(map(inside, value))
                return type(value)(*made) if hasattr(value, "_fields") else made  # an epilogue, or what has no names
            return value

        given, by_name = [inside(each) for each in arguments], {key: inside(each) for key, each in named.items()}
        workspaces: list[Room] = []

        def scratch(size: int, device: torch.device) -> Tensor:
            workspaces.append(Room(torch.full((size,), _FILL, dtype=torch.uint8, device=device), 0))
            return workspaces[-1].tensor

        with _scratch_of(self._kernels, scratch):
            self._way(lambda: function(*given, **by_name))
        for room in workspaces:
            if what := room.outside():
                raise OutOfBounds(f"{name}, its workspace: {what}")
        for room in rooms.values():
            if what := room.outside():
                raise OutOfBounds(f"{name}: {what}")
            room.original.copy_(room.tensor)


@contextlib.contextmanager
def _scratch_of(kernels: Any, scratch: Callable[[int, torch.device], Tensor]) -> Iterator[None]:
    """Has native launchers take their workspaces from `scratch`; Triton's have none."""
    if not hasattr(kernels, "scratch"):
        yield
        return
    before, kernels.scratch = kernels.scratch, scratch
    try:
        yield
    finally:
        kernels.scratch = before


def on_a_second_stream(launch: Callable[[], None]) -> None:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        launch()
    torch.cuda.current_stream().wait_stream(stream)


def in_a_replayed_graph(launch: Callable[[], None]) -> None:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    graph.replay()
    torch.cuda.synchronize()


def in_a_fresh_thread(launch: Callable[[], None]) -> None:
    """Raises what the launch raised there."""
    errors: list[BaseException] = []
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run() -> None:
        try:
            if device is not None:
                torch.cuda.set_device(device)
            launch()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
