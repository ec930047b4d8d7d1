"""One trial of an operator on operands in random orders of memory: what is drawn, and what must come of it.

The data are integers whose results every dtype holds exactly, so a result is right where it is equal. What lies between
a tensor's elements is NaN, or the dtype's least integer, and so is the memory that results are written to.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class InexactError(Exception):
    """The drawn numbers have a result that the dtype does not hold: others are drawn."""


class Trial:
    """The random choices of one case, the tensors it laid out, and its checks."""

    def __init__(self, key: str, backend: str, device: str) -> None:
        self.random = random.Random(key)
        self.numbers = torch.Generator().manual_seed(self.random.getrandbits(62))
        self.backend, self.device = backend, device
        self.direction = "forward"
        self.laid: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def choose(self, *options: Any) -> Any:
        return self.random.choice(options)

    def happens(self, probability: float) -> bool:
        return self.random.random() < probability

    def some(self, names: Sequence[str]) -> list[str]:
        """One of them or more."""
        least = self.choose(*names)
        return [name for name in names if name == least or self.happens(0.5)]

    # --- tensors

    def integers(self, size: Sequence[int], dtype: torch.dtype, low: int, high: int, scale: float = 1) -> Tensor:
        """Integers times `scale` in a random order of memory; some axes are expanded, so one value along them."""
        expanded = [extent > 1 and self.happens(0.07) for extent in size]
        drawn = [1 if fixed else extent for fixed, extent in zip(expanded, size, strict=True)]
        values = torch.randint(low, high + 1, drawn, generator=self.numbers)
        return self.lay((values * scale if scale != 1 else values).to(dtype), size)

    def of_type(self, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Every integer of the dtype."""
        limits = torch.iinfo(dtype)
        return self.integers(size, dtype, limits.min, limits.max)

    def lay(self, values: Tensor, size: Sequence[int] | None = None, changes: bool = False) -> Tensor:
        """A copy in a random order of memory, expanded to `size`. Unless it `changes`, it must stay as it is."""
        size = tuple(values.shape if size is None else size)
        stride = self._strides(values.shape)
        offset = self.choose(0, 0, 0, 1, 2, 3, 4, 8)
        reach = sum((extent - 1) * step for extent, step in zip(values.shape, stride, strict=True))
        room = offset + (reach + 1 if values.numel() else 0) + self.choose(0, 0, 1, 3)
        poison = torch.nan if values.is_floating_point() else torch.iinfo(values.dtype).min
        memory = torch.full((room,), poison, dtype=values.dtype, device=self.device)
        filled = memory.as_strided(values.shape, stride, offset)
        filled.copy_(values)
        self.laid.append((memory, memory.clone(), filled if changes else None))
        zero = (0 if step != extent else None for step, extent in zip(values.shape, size, strict=True))
        steps = [step if same is None else same for same, step in zip(zero, stride, strict=True)]
        return memory.as_strided(size, steps, offset)

    def _strides(self, size: Sequence[int]) -> list[int]:
        """Of a random permutation of the axes, with gaps, where axes of size 1 have any stride."""
        axes = list(range(len(size)))
        kind = self.random.random()
        if kind < 0.15 and len(size) == 4:
            axes = [0, 2, 3, 1]
        elif kind < 0.3 and len(size) > 1:  # a transposed matrix, a filter of one by one's first
            axes[:2] = 1, 0
        elif kind > 0.45:
            self.random.shuffle(axes)
        gaps = self.happens(0.3)
        step, stride = 1, [0] * len(size)
        for axis in reversed(axes):
            if gaps and self.happens(0.4):
                step += self.choose(1, 2, 3, 12)
            stride[axis] = step
            step *= max(size[axis], 1)
        for axis, extent in enumerate(size):
            if extent == 1 and self.happens(0.4):
                stride[axis] = self.choose(0, 1, 2, 7, 16, 2**33)
        return stride

    # --- checks

    def equal(self, name: str, actual: Tensor, expected: Tensor) -> None:
        same = actual.shape == expected.shape and torch.equal(actual.cpu().double(), expected.double())
        assert same, f"{name}: strides {actual.stride()}, got\n{actual.cpu()}\nwhere it is\n{expected}"

    def lies_as(self, name: str, actual: Tensor, stride: Sequence[int]) -> None:
        """An axis of size 1 may have any stride."""
        pairs = zip(actual.shape, actual.stride(), stride, strict=True)
        assert actual.numel() == 0 or all(extent == 1 or step == wanted for extent, step, wanted in pairs), (
            f"{name}: strides {actual.stride()} of size {list(actual.shape)} where they are {tuple(stride)}"
        )

    def lies_dense(self, name: str, actual: Tensor, *likes: Tensor) -> None:
        """channels_last where one of `likes` is, else contiguous; an image without a batch is one of a batch of 1."""
        batch = actual if actual.dim() == 4 else actual.unsqueeze(0)
        likes = tuple(like if like.dim() == 4 else like.unsqueeze(0) for like in likes)
        last = any(suggest_memory_format(like) is torch.channels_last for like in likes)
        wanted = torch.empty(batch.shape, memory_format=torch.channels_last if last else torch.contiguous_format)
        self.lies_as(name, batch, wanted.stride())

    def lies_as_gradient(self, name: str, gradient: Tensor, tensor: Tensor) -> None:
        """As its tensor, where that is dense without overlap (torch.nn.parallel's and autograd's rule)."""
        if torch.ops.aten.is_non_overlapping_and_dense(tensor):
            self.lies_as(name, gradient, tensor.stride())
        elif tensor.dim() in (3, 4):
            self.lies_dense(name, gradient, tensor)
        else:
            self.lies_as(name, gradient, torch.empty(tensor.shape).stride())

    def leaves_operands(self) -> None:
        """Nothing that was laid out has changed, nor what lies around it."""
        for number, (memory, before, changes) in enumerate(self.laid):
            if changes is not None:
                changes.copy_(before.as_strided(changes.shape, changes.stride(), changes.storage_offset()))
            same = torch.equal(memory.view(torch.uint8), before.view(torch.uint8))
            assert same, f"tensor {number}, laid out with {memory.numel()} elements, was written to"


def exact(dtype: torch.dtype, *results: Tensor | None) -> None:
    """Raises where a dtype does not hold a result."""
    for result in results:
        if result is not None and not torch.equal(result.to(dtype).double(), result.double()):
            raise InexactError


def plain(tensor: Any) -> Any:
    """The same numbers, contiguous, in fp64 where they are floating: PyTorch's operand."""
    if not isinstance(tensor, Tensor):
        return tensor
    values = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return values.double() if values.is_floating_point() else values


class _Watch(TorchDispatchMode):
    """Has every operator of the project make its results without values too: they must lie as the real ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if func.namespace == "cnnkernels":
            with FakeTensorMode() as mode:
                fakes = func(*(mode.from_tensor(arg) if isinstance(arg, Tensor) else arg for arg in args))
            both = zip(*(r if isinstance(r, tuple) else (r,) for r in (results, fakes)), strict=True)
            for real, fake in both:
                facts = [(tuple(t.shape), tuple(t.stride()), t.dtype, t.storage_offset()) for t in (real, fake)]
                assert facts[0] == facts[1], f"{func}: lies as {facts[0]}, its fake kernel says {facts[1]}"
        return results


@contextmanager
def watched(watch: bool) -> Iterator[None]:
    """New memory is NaN or the largest integer; to `watch` leads every call through PyTorch's dispatcher."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        if watch:
            with _Watch():
                yield
        else:
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
