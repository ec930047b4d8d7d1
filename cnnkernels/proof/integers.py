"""Trials of the INT8 kernels: the reference's bits, in every kind of epilogue, and every tile of the products."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..certified.families import Family
from ..int8 import reference
from ..int8.epilogue import Int8Epilogue
from ..testing.cases import ConvCase
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


def _plan(of: Any, **fields: Any) -> Any:
    plan = of()
    for name, value in fields.items():
        setattr(plan, name, value)
    return plan


class _Product(NamedTuple):
    """int8_gemm of [m, k] and [k, n] by a plan. More stages than a ring has, no extent a multiple of a tile's."""

    name: str
    plan: Any
    shape: tuple[int, int, int] = (140, 136, 9 * 128 + 16)
    a: str = "rows"
    b: str = "columns"
    epilogue: Int8Epilogue = Int8Epilogue()

    def trial(self, unsigned: bool = False) -> Trial:
        m, n, k = self.shape

        def call(kernels: Any, device: str) -> Results:
            generator = torch.Generator().manual_seed(3)
            a = torch.randint(0, 128, (m, k), generator=generator).to(torch.uint8 if unsigned else torch.int8)
            b = torch.randint(-128, 128, (k, n), generator=generator).to(torch.int8)
            made, right = (torch.full((m, n), 77, dtype=torch.int32, device=where) for where in (device, "cpu"))
            placed = _laid_out(a.to(device), self.a), _laid_out(b.to(device), self.b)
            kernels.int8_gemm(*placed, made, self.epilogue, self.plan)
            reference.int8_gemm(a, b, right, self.epilogue)
            yield made, right

        return Trial(f"{self.name}{' of uint8' * unsigned}", call, anywhere=False)


def _laid_out(values: Tensor, how: str) -> Tensor:
    """The same matrix: its rows contiguous, its columns contiguous, or either in lines of odd addresses."""
    if "columns" in how:
        return _laid_out(values.t(), how.replace("columns", "rows")).t()
    if how == "rows":
        return values.contiguous()
    wider = torch.zeros(values.shape[0], values.shape[1] + 3, dtype=values.dtype, device=values.device)
    return wider[:, 1 : values.shape[1] + 1].copy_(values)


def _tiles(module: Any, wgmma: bool) -> Iterator[_Product]:
    count = len(module.int8_sm90_tiles if wgmma else module.int8_tiles)
    for tile in range(count):
        for splits in (1, 3):
            tiles = module.Int8Plan(not wgmma, tile, splits, wgmma=wgmma)
            name = f"{'wgmma' if wgmma else 'mma'} tile {tile} in {splits}"
            yield _Product(name, _plan(module.Int8GemmPlan, tiles=tiles))


def _others(module: Any) -> Iterator[_Product]:
    """What selection takes for matrices of few rows, and for those whose lines do not lie as tiles are read."""
    stream = module.Int8GemmKernel.stream_weights
    for columns, warps, shape in ((8, 4, (16, 45, 1104)), (32, 3, (9, 70, 1104))):
        plan = _plan(module.Int8GemmPlan, kernel=stream, stream_columns=columns, warps=warps)
        yield _Product(f"few rows, {columns} columns", plan, shape)
    zeros = Int8Epilogue(zero_point_a=100, zero_point_b=-3)
    for a, b in (("rows", "columns"), ("odd rows", "rows"), ("columns", "odd columns"), ("columns", "rows")):
        words = _plan(module.Int8GemmPlan, tiles=module.Int8Plan(False, 1, 1))
        yield _Product(f"{a} by {b}, words", words, (40, 48, 160), a, b, zeros)
        copied = _plan(module.Int8GemmPlan, tiles=module.Int8Plan(True, 1, 2), pack_a=True, pack_b=True)
        yield _Product(f"{a} by {b}, copied", copied, (68, 72, 132), a, b, zeros)


def _of_windows(plan: Any, name: str, case: ConvCase) -> Trial:
    """int8_conv by a plan."""

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


def _short_runs(module: Any) -> Iterator[Trial]:
    """Of Hopper's tiles those that take few channels too."""
    for tile in (2, 3):
        for channels in (64, 32):
            plan = _plan(module.Int8ConvPlan, tiles=module.Int8Plan(False, tile, 1, wgmma=True))
            case = ConvCase("", 1, channels, 9, 9, 70, 5, 5, padding=(2, 2, 2, 2))
            yield _of_windows(plan, f"tile {tile} of {channels} channels", case)


def _narrow_groups(module: Any) -> Iterator[Trial]:
    for size in (4, 8, 16):
        plan = _plan(module.Int8ConvPlan, kernel=module.Int8ConvKernel.grouped)
        case = ConvCase("", 1, 4 * size, 7, 19, 4 * size, 3, 3, padding=(1, 1, 1, 1), groups=4)
        yield _of_windows(plan, f"groups of {size}", case)


def trials(family: Family, kernels: Any, gpu: Any) -> Iterator[Trial]:
    module = kernels.module if family.backend == "cuda" else None
    if family.engine == "wgmma":
        if gpu is None or gpu.why_not_wgmma is not None:
            return
        if family.word == "int8_gemm":
            yield from (product.trial(sign) for product in _tiles(module, True) for sign in (False, True))
        else:
            yield from _short_runs(module)
        return
    if module is not None and family.word == "int8_gemm":
        products = *_tiles(module, False), *_others(module)
        yield from (product.trial(sign) for product in products for sign in (False, True))
    if module is not None and family.word == "int8_conv":
        yield from _narrow_groups(module)
    names = _KERNELS[family.word, family.direction]
    for number, check in enumerate(int8_checks()):
        if check.kernel in names and (family.element in ("int8", check.type)):
            yield _checked(number, check)
