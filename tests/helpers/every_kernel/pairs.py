"""depthwise_separable_conv2d's kernels: every configuration forward, the intermediate alone, and backward."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache, partial

import torch

from cnnkernels.geometry import Layout
from cnnkernels.proof.pairs import operands
from cnnkernels.testing.cases import DepthwiseSeparableCase
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
def truth(case: DepthwiseSeparableCase) -> tuple[torch.Tensor, torch.Tensor]:
    return reference(case, ACTIVATIONS, *operands(case))


def forward(
    element: str, tile: int, reader: str, keeps: bool, wgmma: bool, case: DepthwiseSeparableCase = CASE
) -> None:
    runner = PairRunner(module())
    plan = runner.plan(tile, reader, 8, keeps, wgmma)
    ours = runner.run(case, Layout.NHWC, element, operands(case), plan, ACTIVATIONS)
    for mine, true in zip(ours, truth(case), strict=True):
        assert torch.equal(mine, true.to(mine.dtype)), plan


def alone(element: str, reader: str, case: DepthwiseSeparableCase = CASE) -> None:
    runner = PairRunner(module())
    z = runner.intermediate(case, Layout.NHWC, element, operands(case), runner.plan(0, reader))
    assert torch.equal(z, truth(case)[1].to(z.dtype))


def backward(element: str, reader: str, case: DepthwiseSeparableCase = CASE, parts: int = 2) -> None:
    tensors, grad = operands(case), error(case)
    _, *results = expected(case, "relu6", tensors, grad)
    ours = Backward(module()).backward(case, Layout.NHWC, element, tensors, grad, "relu6", reader=reader, parts=parts)
    for mine, true in zip(ours, results, strict=True):
        assert mine is not None and torch.equal(mine, true.to(mine.dtype))


def backward_source(element: str) -> str:
    name = "exact" if element in ("fp32", "fp64") else SOURCES[element]
    return f"depthwise_separable_conv/backward_{name}.cu"


PATCHES = pair_case(1, 40, 13, 19, 72, **SAME)
FILTERS = pair_case(1, 72, 5, 9, 264, **SAME)
TAPS = pair_case(1, 72, 5, 9, 40, 8, 8, padding=(4, 3, 4, 3))


def larger(source: str) -> Iterator[Trial]:
    """Several patches or tiles of filters of a block, more taps than are held at a time."""
    room, _, file = source.partition("/")
    for element, name in SOURCES.items() if room == "depthwise_separable_conv" else ():
        if file == f"sm90/{name}.cu":
            for tile, reader in itertools.product((1, 2), READERS[:2]):
                yield Trial(
                    f"tile {tile}, {reader}, kept", partial(forward, element, tile, reader, True, True, FILTERS)
                )
            yield from (
                Trial(f"tile {t}, 64 taps", partial(forward, element, t, "vectors", False, True, TAPS)) for t in (1, 2)
            )
        if file == f"fused_{name}.cu":
            for kind, tile, reader in CONFIGURATIONS:
                if kind == element and reader != "rows_of_three":
                    run = partial(forward, element, tile, reader, False, False, TAPS)
                    yield Trial(f"tile {tile}, {reader}, 64 taps", run)
        if file == "intermediate.cu" and element != "tf32":
            for reader in READERS[1:]:
                yield Trial(f"{element}, {reader}, 64 taps", partial(alone, element, reader, TAPS))
        if element != "tf32" and source == backward_source(element):
            for reader in READERS[2 * (element in ("fp32", "fp64")) :]:
                cases = (PATCHES, TAPS) if reader != "rows_of_three" else (PATCHES,)
                for case in cases:
                    yield Trial(f"{element}, {reader}, {case.depthwise}", partial(backward, element, reader, case, 1))


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
            for reader in READERS[element == "fp64" :]:
                yield Trial(f"{element}, {reader}", partial(alone, element, reader))
        if element != "tf32" and source == backward_source(element):
            for reader in READERS[2 * (element in ("fp32", "fp64")) :]:
                yield Trial(f"{element}, {reader}", partial(backward, element, reader))
