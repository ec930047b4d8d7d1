"""depthwise_separable_conv2d's kernels: every configuration forward, the intermediate alone, and backward."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import torch

from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from helpers.depthwise_separable_conv import (
    CONFIGURATIONS,
    READERS,
    SAME,
    Backward,
    PairRunner,
    error,
    expected,
    pair_case,
    reference,
)
from helpers.every_kernel import Trial, module

SOURCES = {"fp64": "float64", "fp32": "float32", "tf32": "tf32", "fp16": "float16", "bf16": "bfloat16"}
CASE = pair_case(1, 136, 5, 9, 72, **SAME)
ACTIVATIONS = ("relu6", "relu")


@cache
def truth() -> tuple[torch.Tensor, torch.Tensor]:
    return reference(CASE, ACTIVATIONS, *operands(CASE))


def forward(element: str, tile: int, reader: str, keeps: bool, wgmma: bool) -> None:
    runner = PairRunner(module())
    plan = runner.plan(tile, reader, 8, keeps, wgmma)
    ours = runner.run(CASE, Layout.NHWC, element, operands(CASE), plan, ACTIVATIONS)
    for mine, true in zip(ours, truth(), strict=True):
        assert torch.equal(mine, true.to(mine.dtype)), plan


def alone(element: str, reader: str) -> None:
    runner = PairRunner(module())
    z = runner.intermediate(CASE, Layout.NHWC, element, operands(CASE), runner.plan(0, reader))
    assert torch.equal(z, truth()[1].to(z.dtype))


def backward(element: str, reader: str) -> None:
    tensors, grad = operands(CASE), error(CASE)
    _, *results = expected(CASE, "relu6", tensors, grad)
    ours = Backward(module()).backward(CASE, Layout.NHWC, element, tensors, grad, "relu6", reader=reader, parts=2)
    for mine, true in zip(ours, results, strict=True):
        assert mine is not None and torch.equal(mine, true.to(mine.dtype))


def trials(source: str) -> Iterator[Trial]:
    room, _, file = source.partition("/")
    if room != "depthwise_separable_conv":
        return
    for element, name in SOURCES.items():
        if file == f"fused_{name}.cu":
            for kind, tile, reader in CONFIGURATIONS:
                if kind == element:
                    for keeps in (False, True):
                        run = partial(forward, element, tile, reader, keeps, False)
                        yield Trial(f"tile {tile}, {reader}{', kept' * keeps}", run)
        if file == f"sm90/{name}.cu":
            for tile in (1, 2):
                for reader in READERS[:2]:
                    yield Trial(f"tile {tile}, {reader}", partial(forward, element, tile, reader, tile == 1, True))
        if file == "intermediate.cu" and element != "tf32":
            for reader in READERS:
                yield Trial(f"{element}, {reader}", partial(alone, element, reader))
        exact = element in ("fp32", "fp64")
        if file == ("backward_exact.cu" if exact else f"backward_{name}.cu"):
            for reader in READERS[2 * exact :]:
                yield Trial(f"{element}, {reader}", partial(backward, element, reader))
