"""Trials of the INT8 kernels: the reference's bits, in every kind of epilogue, and every tile of the products."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..certified.families import Family
from ..int8 import reference
from ..int8.epilogue import Int8Epilogue
from .check_int8 import Int8Check, int8_checks
from .trial import Results, Trial

_KERNELS = {
    ("int8_gemm", "forward"): ("int8_gemm",),
    ("int8_conv", "forward"): ("int8_conv",),
    ("int8_pool", "forward"): ("int8_max_pool", "int8_avg_pool"),
    ("int8_weight_only_linear", "forward"): ("int8_weight_only_linear",),
    ("quantize", "forward"): ("quantize",),
    ("quantize", "backward"): ("dequantize",),
}


@functools.cache
def _expected(check: Int8Check) -> Tensor:
    return check.run(check.reference, "cpu")


def _checked(number: int, check: Int8Check) -> Trial:
    def call(kernels: Any, device: str) -> Results:
        yield check.run(kernels, device), _expected(check)

    return Trial(f"problem {number} in {check.type}", call)


def _product(tile: str, plan: Any, unsigned: bool) -> Trial:
    """More stages than a ring has, no extent a multiple of a tile's."""
    m, n, k = 140, 136, 9 * 128 + 16

    def call(kernels: Any, device: str) -> Results:
        generator = torch.Generator().manual_seed(3)
        a = torch.randint(0, 128, (m, k), generator=generator).to(torch.uint8 if unsigned else torch.int8)
        b = torch.randint(-128, 128, (n, k), generator=generator).to(torch.int8)
        made, right = (torch.full((m, n), 77, dtype=torch.int32, device=where) for where in (device, "cpu"))
        kernels.int8_gemm(a.to(device), b.to(device).t(), made, Int8Epilogue(), plan)
        reference.int8_gemm(a, b.t(), right, Int8Epilogue())
        yield made, right

    return Trial(f"{tile}{' of uint8' * unsigned}", call, anywhere=False)


def _tiles(module: Any, wgmma: bool) -> Iterator[tuple[str, Any]]:
    count = len(module.int8_sm90_tiles if wgmma else module.int8_tiles)
    for tile in range(count):
        for splits in (1, 3):
            plan = module.Int8GemmPlan()
            plan.tiles = module.Int8Plan(not wgmma, tile, splits, wgmma=wgmma)
            yield f"{'wgmma' if wgmma else 'mma'} tile {tile} in {splits}", plan


def _of_windows(plan: Any, name: str, channels: int) -> Trial:
    """int8_conv by a plan of Hopper's."""
    from ..testing.cases import ConvCase

    case = ConvCase("", 1, channels, 9, 9, 70, 5, 5, padding=(2, 2, 2, 2))

    def call(kernels: Any, device: str) -> Results:
        last, generator = torch.channels_last, torch.Generator().manual_seed(4)
        shapes = case.input_shape, case.weight_shape
        x, w = (torch.randint(-128, 128, shape, generator=generator).to(torch.int8) for shape in shapes)
        found = []
        for of, where, rest in ((kernels, device, (plan,)), (reference, "cpu", ())):
            made = torch.full(case.output_shape, 77, dtype=torch.int32, device=where).contiguous(memory_format=last)
            placed = (each.to(where).contiguous(memory_format=last) for each in (x, w))
            of.int8_conv(*placed, made, case.geometry, Int8Epilogue(zero_point_a=7), *rest)
            found.append(made)
        yield found[0], found[1]

    return Trial(name, call, anywhere=False)


def trials(family: Family, kernels: Any, gpu: Any) -> Iterator[Trial]:
    if family.engine == "wgmma":
        if gpu is None or gpu.why_not_wgmma is not None:
            return
        module = kernels.module
        if family.word == "int8_gemm":
            yield from (_product(name, plan, sign) for name, plan in _tiles(module, True) for sign in (False, True))
            return
        for tile in (2, 3):  # those of short runs, which take few channels too
            for channels in (64, 32):
                plan = module.Int8ConvPlan()
                plan.tiles = module.Int8Plan(False, tile, 1, wgmma=True)
                yield _of_windows(plan, f"tile {tile} of {channels} channels", channels)
        return
    if family.backend == "cuda" and family.word == "int8_gemm":
        yield from (
            _product(name, plan, sign) for name, plan in _tiles(kernels.module, False) for sign in (False, True)
        )
    names = _KERNELS[family.word, family.direction]
    for number, check in enumerate(int8_checks()):
        if check.kernel in names and (family.element in ("int8", check.type)):
            yield _checked(number, check)
