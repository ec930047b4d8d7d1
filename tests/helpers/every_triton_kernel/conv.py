"""Triton's convolutions: every tile in every direction and layout, the padding modes, narrow groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels.common.target import family
from cnnkernels.triton_kernels.conv.select import TABLE, Problem, sized
from torch import Tensor

from cnnkernels import functional, triton_kernels
from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import PADDING_MODES, Layout
from cnnkernels.testing.cases import ConvCase
from helpers.every_triton_kernel import Launch, Trial, Wanted, in_turn

OPERATIONS = ("forward", "backward_input", "backward_weight")
# Partial tiles in every direction, several steps of every reduction.
SMALL = ConvCase("small", 2, 72, 9, 7, 40, 3, 3, (2, 1), (1, 1, 1, 1))
NARROW = ConvCase("narrow groups", 2, 12, 5, 6, 12, 3, 2, padding=(1, 1, 1, 1), groups=6)


def tiles(arch: int, every_type: bool) -> Iterator[tuple[str, Layout, str, dict[str, Any]]]:
    """Direction, layout, type and row of the table. A tile's types and layouts take turns: each of its types is in one
    layout, and a tile of one type alone in the layout that the direction before had not."""
    rows = [row for row in TABLE["candidates"] if family(arch) in row.get("families", [family(arch)])]
    for (turn, op), (number, row) in itertools.product(enumerate(OPERATIONS), enumerate(rows)):
        for place, dtype in enumerate(row["dtypes"]):
            for layout in Layout if every_type else [in_turn(list(Layout), turn + number + place)]:
                yield op, layout, dtype, row


def integers(shape: tuple[int, ...], dtype: torch.dtype, layout: Layout) -> Tensor:
    return torch.randint(-2, 3, shape).to(dtype).to(memory_format=layout.memory_format)


def configuration(op: str, layout: Layout, dtype: str, row: dict[str, Any], arch: int) -> Any:
    problem = Problem(op, dtype, layout, SMALL.geometry, "", arch)  # type: ignore[arg-type]
    made = sized(problem, tuple(row["block"]), row["warps"], row["stages"])
    return made._replace(splits=2) if op == "backward_weight" else made


def is_right(case: ConvCase, op: str, layout: Layout, dtype_name: str, chosen: Any = None) -> bool:
    """Whether a direction has PyTorch's bits in a configuration; None: selection's."""
    dtype, tf32 = PRODUCTS[dtype_name]
    x, w = integers(case.input_shape, dtype, layout), integers(case.weight_shape, dtype, layout)
    y, g = integers(case.output_shape, dtype, layout), case.geometry
    wide_x, wide_w = x.double().requires_grad_(), w.double().requires_grad_()
    result = F.conv2d(wide_x, wide_w, stride=case.stride, padding=case.padding[0], groups=case.groups)
    if op == "forward":
        made, expected = torch.empty_like(y), result
        triton_kernels.conv_forward(x, w, None, made, g, layout, tf32, chosen)
    elif op == "backward_input":
        made, (expected,) = torch.empty_like(x), torch.autograd.grad(result, wide_x, y.double())
        triton_kernels.conv_backward_input(y, w, made, g, layout, tf32, chosen)
    else:
        made, (expected,) = torch.empty_like(w), torch.autograd.grad(result, wide_w, y.double())
        triton_kernels.conv_backward_weight(y, x, made, g, layout, tf32, chosen)
    return torch.equal(made, expected.detach().to(dtype))


def repeats_the_border(mode: str) -> bool:
    x, w = torch.randint(-2, 3, (1, 16, 5, 6)).half(), torch.randint(-2, 3, (16, 16, 3, 3)).half()
    mine, theirs = w.clone().requires_grad_(), w.clone().requires_grad_()
    made = functional.conv2d(x, mine, padding=1, padding_mode=mode)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), theirs)
    pairs = zip(*(torch.autograd.grad(y.sum(), w) for y, w in ((made, mine), (expected, theirs))), strict=True)
    return torch.equal(made, expected) and all(torch.equal(a, b) for a, b in pairs)


def adds_bias(layout: Layout) -> bool:
    y, made = integers(SMALL.output_shape, torch.float32, layout), torch.empty(SMALL.k)
    triton_kernels.conv_backward_bias(y, made, SMALL.geometry, layout)
    return torch.equal(made, y.sum((0, 2, 3)))


def trials(arch: int, turn: int, every_type: bool) -> Iterator[Trial]:
    for op, layout, dtype, row in tiles(arch, every_type):
        chosen = configuration(op, layout, dtype, row, arch)
        name = f"{op} {layout.name} {dtype} {chosen}"
        yield Trial(name, partial(is_right, SMALL, op, layout, dtype, chosen))
    for number, (op, layout) in enumerate(itertools.product(OPERATIONS, Layout)):
        if number % 2 == turn:
            dtype = in_turn(["fp16", "fp32", "bf16"], number)
            yield Trial(f"{op} {layout.name} narrow", partial(is_right, NARROW, op, layout, dtype))
    for mode in PADDING_MODES[1:]:
        yield Trial(mode, partial(repeats_the_border, mode))
    yield Trial("bias", partial(adds_bias, list(Layout)[turn]))


def wanted(arch: int, every_type: bool) -> Iterator[Wanted]:
    for op, layout, dtype, row in tiles(arch, every_type):

        def seen(launch: Launch, layout: Layout = layout, dtype: str = dtype, row: dict[str, Any] = row) -> bool:
            m, n, k = row["block"]
            element, tf32 = PRODUCTS[dtype]
            tile = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "num_warps": row["warps"], "num_stages": row["stages"]}
            precision = "tf32" if tf32 else "ieee"
            return launch.element is element and launch.has(NHWC=layout is Layout.NHWC, PRECISION=precision, **tile)

        about = f"{layout.name} {dtype} {row['block']}, {row['warps']} warps, {row['stages']} stages"
        yield Wanted(f"conv.{op}.{op}_kernel", about, seen, True)
    for op, mode in itertools.product(("forward", "backward_weight"), range(1, len(PADDING_MODES))):
        about = f"padding {PADDING_MODES[mode]}"
        yield Wanted(f"conv.{op}.{op}_kernel", about, lambda launch, mode=mode: launch.has(MODE=mode), True)
