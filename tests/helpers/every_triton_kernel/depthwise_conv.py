"""Triton's depthwise convolutions and the pairs that begin with one: every patch and every width of lanes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels.common.target import family
from cnnkernels.triton_kernels.depthwise_conv.select import TABLE, Configuration
from cnnkernels.triton_kernels.depthwise_separable_conv import select as pairs
from torch import Tensor

from cnnkernels import triton_kernels
from cnnkernels.dtypes import FLOATING, PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from helpers.every_triton_kernel import Launch, Trial, Wanted, in_turn

SWEEPS = ("forward", "backward_input")
PAIR = ConvCase("pair", 2, 20, 5, 6, 40, 2, 2, padding=(1, 0, 1, 0), groups=20)
FILTERS = 36


def configurations(op: str) -> Iterator[tuple[Layout, torch.dtype, Configuration]]:
    """Every row of the table; widths and types take turns."""
    for layout in Layout:
        name = layout.name.lower()
        for number, row in enumerate(TABLE["sweep" if op in SWEEPS else "backward_weight"][name]):
            dtype, width = in_turn(list(FLOATING.values()), number), in_turn(TABLE["widths"][name], number)
            vector = max(1, row["bytes"] // dtype.itemsize) if layout is Layout.NHWC else 1
            lanes, warps = 32 * TABLE["warps"] * vector, TABLE["warps"]
            patch, unrolled, band = tuple(row["patch"]), row.get("unrolled", True), row.get("band", 0)
            yield layout, dtype, Configuration(lanes // width, width, patch, unrolled, warps, band, 2 if band else 1)


def case_of(c: Configuration) -> ConvCase:
    """Two taps, as each is written out for every place of a patch; of a weight's gradient as many rows as it sums."""
    r, s = (max(2, c.band), 1) if c.band else (2, 1) if c.patch[0] > 1 else (1, 2)
    return ConvCase("depthwise", 2, 12, 9, 8, 12, r, s, padding=(1, 1, 1, 0), groups=12)


def integers(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> Tensor:
    return torch.randint(-2, 3, shape).to(dtype).to(memory_format=layout.memory_format)


def depthwise(x: Tensor, w: Tensor, case: ConvCase) -> Tensor:
    top, bottom, left, right = case.padding
    return F.conv2d(F.pad(x, (left, right, top, bottom)), w, groups=case.groups)


def is_right(op: str, layout: Layout, dtype: torch.dtype, c: Configuration) -> bool:
    case = case_of(c)
    x, w = integers(case.input_shape, dtype, layout), integers(case.weight_shape, dtype, layout)
    y, g = integers(case.output_shape, dtype, layout), case.geometry
    wide_x, wide_w = x.double().requires_grad_(), w.double().requires_grad_()
    result = depthwise(wide_x, wide_w, case)
    if op == "forward":
        made, expected = torch.empty_like(y), result
        triton_kernels.depthwise_conv_forward(x, w, None, made, g, layout, c)
    elif op == "backward_input":
        made, (expected,) = torch.empty_like(x), torch.autograd.grad(result, wide_x, y.double())
        triton_kernels.depthwise_conv_backward_input(y, w, made, g, layout, c)
    else:
        made, (expected,) = torch.empty_like(w), torch.autograd.grad(result, wide_w, y.double())
        triton_kernels.depthwise_conv_backward_weight(y, x, made, g, layout, c)
    return torch.equal(made, expected.detach().to(dtype))


def rows_of_pairs(arch: int, backward: bool) -> Iterator[tuple[Layout, str, pairs.Configuration]]:
    """Every row that either kernel may take; layouts and types take turns."""
    for number, row in enumerate(pairs.TABLE["candidates"]):
        types = [dtype for dtype in row["dtypes"] if not backward or dtype in ("fp64", "fp16", "bf16")]
        served = family(arch) in row.get("families", [family(arch)]) and types
        if served and not (backward and row["filters"] > pairs.MOST_FILTERS_BACKWARD):
            sizes = row["lanes"], tuple(row["patch"]), row["channels"], row["filters"], row["warps"]
            yield in_turn(list(Layout), number), in_turn(types, number // 2), pairs.Configuration(*sizes)


def pair_is_right(backward: bool, layout: Layout, dtype_name: str, c: pairs.Configuration) -> bool:
    dtype, tf32 = PRODUCTS[dtype_name]
    x, w = integers(PAIR.input_shape, dtype, layout), integers(PAIR.weight_shape, dtype, layout)
    v, bias = integers((FILTERS, PAIR.k, 1, 1), dtype, layout), torch.randint(-2, 3, (PAIR.k,)).to(dtype)
    wide_v = v.double().requires_grad_()
    between = F.relu((depthwise(x.double(), w.double(), PAIR) + bias.double()[:, None, None]).requires_grad_())
    before = between.grad_fn.next_functions[0][0].variable  # type: ignore[union-attr]
    result, g = F.conv2d(between, wide_v), PAIR.geometry
    if not backward:
        made = torch.empty_like(integers(result.shape, dtype, layout))
        triton_kernels.depthwise_separable_conv_forward(
            x, w, v, bias, None, made, None, g, layout, tf32, "relu", "none", 0.0, c
        )
        return torch.equal(made, result.detach().to(dtype))
    dy = integers(result.shape, dtype, layout)
    expected = torch.autograd.grad(result, (before, wide_v), dy.double())
    dz, dv = torch.empty_like(integers(before.shape, dtype, layout)), torch.empty_like(v)
    triton_kernels.depthwise_separable_conv_backward(
        dy, x, w, v, bias, None, dz, dv, g, layout, "relu", 0.0, c, 2
    )  # fmt: skip
    return torch.equal(dz, expected[0].to(dtype)) and torch.equal(dv, expected[1].to(dtype))


def trials(arch: int, turn: int) -> Iterator[Trial]:
    for op in (*SWEEPS, "backward_weight"):
        for number, (layout, dtype, c) in enumerate(configurations(op)):
            if number % 2 == turn or dtype is torch.bfloat16:
                yield Trial(f"depthwise {op} {layout.name} {dtype} {c}", partial(is_right, op, layout, dtype, c))
    for backward in (False, True):
        for layout, dtype_name, chosen in rows_of_pairs(arch, backward):
            name = f"pair {'backward' if backward else 'forward'} {layout.name} {dtype_name} {chosen}"
            yield Trial(name, partial(pair_is_right, backward, layout, dtype_name, chosen))


def wanted(arch: int) -> Iterator[Wanted]:
    for op in (*SWEEPS, "backward_weight"):
        kernel = "sweep.sweep_kernel" if op in SWEEPS else "backward_weight.backward_weight_kernel"
        for layout, dtype, c in configurations(op):

            def seen(
                launch: Launch, op: str = op, layout: Layout = layout, dtype: torch.dtype = dtype, c: Configuration = c
            ) -> bool:
                rows, columns = launch.constants["ROWS"], launch.constants["COLUMNS"]
                loops = {"UNROLLED": c.unrolled} if op in SWEEPS else {}
                return (
                    launch.element is dtype
                    and launch.has(NHWC=layout is Layout.NHWC, A=c.a, B=c.b, num_warps=c.warps, **loops)
                    and (rows.patch, columns.patch, rows.backward) == (*c.patch, op == "backward_input")
                    and c.band in (0, rows.taps)
                )

            every_gpu = dtype is torch.bfloat16  # Hopper has instructions of its own for it
            yield Wanted(f"depthwise_conv.{kernel}", f"{op} {layout.name} {dtype} {c}", seen, every_gpu)
    for layout, width in itertools.chain.from_iterable(
        itertools.product([layout], TABLE["widths"][layout.name.lower()]) for layout in Layout
    ):
        yield Wanted(
            "depthwise_conv.sweep.sweep_kernel",
            f"{layout.name} {width} wide",
            lambda launch, layout=layout, width=width: launch.has(NHWC=layout is Layout.NHWC, B=width),
            False,
        )
    for backward in (False, True):
        for layout, dtype_name, chosen in rows_of_pairs(arch, backward):
            element, tf32 = PRODUCTS[dtype_name]
            sizes: dict[str, Any] = {"LANES": chosen.lanes, "CHANNELS": chosen.channels, "FILTERS": chosen.filters}
            sizes |= {"num_warps": chosen.warps, "NHWC": layout is Layout.NHWC}
            sizes |= {"PRECISION": "tf32" if tf32 else "ieee"}

            def seen_pair(
                launch: Launch,
                element: torch.dtype = element,
                sizes: dict[str, Any] = sizes,
                patch: tuple[int, int] = chosen.patch,
            ) -> bool:
                of = launch.constants["ROWS"].patch, launch.constants["COLUMNS"].patch
                return launch.element is element and of == patch and launch.has(**sizes)

            kernel = "backward.backward_kernel" if backward else "forward.fused_kernel"
            yield Wanted(f"depthwise_separable_conv.{kernel}", f"{layout.name} {dtype_name} {chosen}", seen_pair, True)
