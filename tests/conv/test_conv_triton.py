"""conv2d's Triton kernels beyond the common exact tests: every configuration, both widths of arithmetic, the bits'
independence of batch and run, narrow groups, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cnnkernels.triton_kernels.common import geometry, target
from cnnkernels.triton_kernels.common.target import Gpu
from cnnkernels.triton_kernels.conv import launch as conv2d
from cnnkernels.triton_kernels.conv import select as conv_select
from cnnkernels.triton_kernels.conv.select import Configuration, Problem
from torch import Tensor
from triton.runtime import interpreter

from cnnkernels import triton_kernels as kernels
from cnnkernels.dtypes import PRODUCTS
from cnnkernels.geometry import Layout
from cnnkernels.records import tuned
from cnnkernels.testing.cases import CONV2D, ConvCase
from cnnkernels.testing.numerics import small_integers
from helpers.device import DEVICE, HAS_GPU

pytestmark = pytest.mark.long

OPS = ("forward", "backward_input", "backward_weight")
TILED = ConvCase("two tiles of pixels", 2, 12, 9, 8, 20, 3, 3, padding=(1, 1, 1, 1))
SMALL = ConvCase("less than a tile", 1, 3, 3, 4, 5, 2, 2)
UNEVEN = ConvCase("uneven everything", 2, 9, 11, 8, 10, 2, 5, (3, 2), (1, 0, 4, 2), (2, 1))
GROUPED = ConvCase("groups of five and seven", 2, 10, 7, 6, 14, 3, 3, (2, 1), (1, 1, 1, 1), groups=2)
DEPTHWISE = ConvCase("depthwise", 2, 10, 8, 7, 10, 3, 3, padding=(1, 1, 1, 1), groups=10)
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())
ops = pytest.mark.parametrize("op", OPS)


def place(tensor: Tensor, layout: Layout, dtype: torch.dtype | None = None) -> Tensor:
    return tensor.to(DEVICE, dtype).to(memory_format=layout.memory_format)


def operands(case: ConvCase, bound: int = 1) -> dict[str, Tensor]:
    """fp64 integers and, by PyTorch, what the three operators make of them."""
    x = small_integers(case.input_shape, torch.float64, seed=1, bound=bound).requires_grad_()
    w = small_integers(case.weight_shape, torch.float64, seed=2, bound=bound).requires_grad_()
    dy = small_integers(case.output_shape, torch.float64, seed=3, bound=bound)
    top, bottom, left, right = case.padding
    y = F.conv2d(F.pad(x, (left, right, top, bottom)), w, None, case.stride, 0, case.dilation, case.groups)
    dx, dw = torch.autograd.grad(y, (x, w), dy)
    given = {"x": x.detach(), "w": w.detach(), "dy": dy}
    return given | {"forward": y.detach(), "backward_input": dx, "backward_weight": dw}


def run(
    op: str,
    case: ConvCase,
    given: dict[str, Tensor],
    dtype: str,
    layout: Layout,
    configuration: Configuration | None = None,
) -> Tensor:
    torch_dtype, tf32 = PRODUCTS[dtype]
    x, w, dy = (place(given[name], layout, torch_dtype) for name in ("x", "w", "dy"))
    shape = {"forward": case.output_shape, "backward_input": case.input_shape, "backward_weight": case.weight_shape}[op]
    out = place(torch.full(shape, float("nan")), layout, torch_dtype)
    if op == "forward":
        kernels.conv_forward(x, w, None, out, case.geometry, layout, tf32, configuration)
    elif op == "backward_input":
        kernels.conv_backward_input(dy, w, out, case.geometry, layout, tf32, configuration)
    else:
        kernels.conv_backward_weight(dy, x, out, case.geometry, layout, tf32, configuration)
    return out.cpu()


def problem(op: str, case: ConvCase, dtype: str, layout: Layout, arch: int = 0) -> Problem:
    return Problem(op, dtype, layout, case.geometry, "", arch)


def every_configuration() -> list[tuple[str, str, Layout, Configuration]]:
    """Each candidate of each GPU once, sized for TILED."""
    found = {}
    for op in OPS:
        for dtype in PRODUCTS:
            for layout in Layout:
                for arch in (80, 90, 100):
                    for c in conv_select.candidates(problem(op, TILED, dtype, layout, arch)):
                        found[op, dtype, layout, c._replace(splits=1)] = None
    return list(found)


def configuration_id(value: object) -> str:
    if isinstance(value, Configuration):
        return f"{value.block_m}x{value.block_n}x{value.block_k}"
    return value.name.lower() if isinstance(value, Layout) else str(value)


@pytest.mark.parametrize(("op", "dtype", "layout", "configuration"), every_configuration(), ids=configuration_id)
def test_every_configuration_is_exact(op: str, dtype: str, layout: Layout, configuration: Configuration) -> None:
    given = operands(TILED)
    out = run(op, TILED, given, dtype, layout, configuration)
    assert torch.equal(out, given[op].to(out.dtype))


@ops
@layouts
def test_every_configuration_of_the_interpreter_is_exact(op: str, layout: Layout) -> None:
    """Their blocks are large where an interpreted step costs the same whatever its size: a small case fills one."""
    given = operands(SMALL)
    for c in conv_select.candidates(problem(op, SMALL, "fp32", layout)):
        assert torch.equal(run(op, SMALL, given, "fp32", layout, c._replace(splits=1)), given[op].float()), c


@ops
@layouts
@pytest.mark.parametrize("case", [TILED, GROUPED], ids=str)
def test_channels_flattened_with_taps_or_not(op: str, layout: Layout, case: ConvCase) -> None:
    given = operands(case)
    channels = case.c // case.groups
    for flat in (0, channels) if op != "backward_input" else (0,):
        out = run(op, case, given, "fp32", layout, Configuration(False, 64, 16, 32, 4, 3, flat))
        assert torch.equal(out, given[op].float()), flat


@ops
@layouts
@pytest.mark.parametrize("case", [UNEVEN, GROUPED, DEPTHWISE], ids=str)
def test_elementwise_kernels_serve_any_groups(op: str, layout: Layout, case: ConvCase) -> None:
    given = operands(case)
    for dtype in ("fp32", "bf16") if case is DEPTHWISE else ("bf16",):
        out = run(op, case, given, dtype, layout, Configuration(True, 64, 16, 0, 4, 3))
        assert torch.equal(out, given[op].to(out.dtype))


@ops
@layouts
@pytest.mark.parametrize("case", [UNEVEN, DEPTHWISE], ids=str)
def test_64_bit_arithmetic(monkeypatch: pytest.MonkeyPatch, op: str, layout: Layout, case: ConvCase) -> None:
    for module in (conv2d, geometry):
        monkeypatch.setattr(module, "LARGEST_INDEX", 0)
    given = operands(case)
    assert torch.equal(run(op, case, given, "fp32", layout), given[op].float())
    db = torch.full((case.k,), float("nan"), device=DEVICE)
    kernels.conv_backward_bias(place(given["dy"].float(), layout), db, case.geometry, layout)
    assert torch.equal(db.cpu(), given["dy"].sum((0, 2, 3)).float())


@layouts
@pytest.mark.parametrize("op", ["forward", "backward_input"])
@pytest.mark.parametrize("direct", [False, True], ids=["product", "elementwise"])
def test_a_batch_is_cut_where_32_bits_end(
    monkeypatch: pytest.MonkeyPatch, op: str, layout: Layout, direct: bool
) -> None:
    case = dataclasses.replace(UNEVEN, n=5)
    larger = max(math.prod(case.input_shape), math.prod(case.output_shape)) // case.n
    monkeypatch.setattr(geometry, "LARGEST_INDEX", 2 * larger + max(geometry.overhang(case.geometry)))
    assert geometry.most_images(case.geometry) == 2 and not geometry.is_wide(case.geometry._replace(n=2))
    given = operands(case)
    c = Configuration(True, 64, 16, 0, 4, 3) if direct else None
    assert torch.equal(run(op, case, given, "fp32", layout, c), given[op].float())


@layouts
@pytest.mark.parametrize("direct", [False, True], ids=["product", "elementwise"])
def test_any_number_of_ranges_gives_the_whole_sum(layout: Layout, direct: bool) -> None:
    case = DEPTHWISE if direct else TILED
    given = operands(case)
    c = Configuration(True, 32, 16, 0, 4, 3) if direct else Configuration(False, 32, 64, 32, 4, 3)
    steps = -(-case.n * case.geometry.p * case.geometry.q // 32)
    for ranges in (1, 2, steps):
        out = run("backward_weight", case, given, "fp32", layout, c._replace(splits=ranges))
        assert torch.equal(out, given["backward_weight"].float()), ranges


@layouts
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_sum_is_rounded_once_to_nearest_even(layout: Layout, dtype: str) -> None:
    """Sums up to some thousands: beyond 256 (2048 in fp16) they are between two elements."""
    given = operands(TILED, bound=30)
    for op in OPS:
        out = run(op, TILED, given, dtype, layout)
        assert torch.equal(out, given[op].to(out.dtype))
        assert given[op].abs().max() > 2048


@ops
@layouts
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("case", [TILED, DEPTHWISE], ids=str)
def test_two_runs_give_the_same_bits(op: str, layout: Layout, dtype: str, case: ConvCase) -> None:
    generator = torch.Generator().manual_seed(5)
    given = {name: torch.randn(value.shape, generator=generator) for name, value in operands(case).items()}
    assert torch.equal(run(op, case, given, dtype, layout), run(op, case, given, dtype, layout))


@pytest.fixture
def rows_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor core treats all rows of a tile alike. numpy's matmul, by which Triton interprets tl.dot, does not: its
    bits depend on a row's place. Here it is a sum in one order for every element, so that what is left is our order."""
    if HAS_GPU:
        return

    def create_dot(self: Any, a: Any, b: Any, total: Any, *_: Any) -> interpreter.TensorHandle:
        product = np.zeros_like(total.data)
        for i in range(a.data.shape[1]):
            product += np.multiply(a.data[:, i, None], b.data[None, i, :], dtype=product.dtype)
        return interpreter.TensorHandle(product + total.data, total.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.usefixtures("rows_alike")
@pytest.mark.parametrize("op", ["forward", "backward_input"])
@layouts
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("case", [TILED, UNEVEN, DEPTHWISE], ids=str)
def test_a_sample_does_not_depend_on_its_batch(op: str, layout: Layout, dtype: str, case: ConvCase) -> None:
    """In several tiles and steps, a sample starting in the middle of a tile."""
    generator = torch.Generator().manual_seed(6)
    given = {name: torch.randn(value.shape, generator=generator) for name, value in operands(case).items()}
    flat = conv_select.flat_channels(problem(op, case, dtype, layout), 16)
    c = Configuration(True, 64, 16, 0, 4, 3) if case is DEPTHWISE else Configuration(False, 64, 32, 16, 4, 3, flat)
    together = run(op, case, given, dtype, layout, c)
    single = dataclasses.replace(case, n=1)
    for i in range(case.n):
        alone = given | {"x": given["x"][i : i + 1], "dy": given["dy"][i : i + 1]}
        assert torch.equal(together[i : i + 1], run(op, single, alone, dtype, layout, c))


@layouts
def test_bias_sums_of_several_ranges(monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    monkeypatch.setattr(conv2d, "BIAS_TILE", 128)
    monkeypatch.setattr(conv2d, "gpu_of", lambda arch: Gpu(5, 0))
    given = operands(TILED)
    db = torch.full((TILED.k,), float("nan"), device=DEVICE)
    kernels.conv_backward_bias(place(given["dy"].float(), layout), db, TILED.geometry, layout)
    assert torch.equal(db.cpu(), given["dy"].sum((0, 2, 3)).float())


@ops
@layouts
def test_a_1x1_filter_that_pads_and_strides_to_the_same_size_is_no_plain_product(op: str, layout: Layout) -> None:
    case = ConvCase("1x1 of 2x2 onto 2x2", 1, 3, 2, 2, 5, 1, 1, (2, 2), (1, 1, 1, 1))
    assert case.output_shape[2:] == case.input_shape[2:]
    given = operands(case)
    assert torch.equal(run(op, case, given, "fp32", layout), given[op].float())


@pytest.mark.parametrize("arch", [0, 80, 86, 90, 100, 120])
@layouts
@pytest.mark.parametrize("dtype", list(PRODUCTS))
def test_every_problem_has_a_configuration(arch: int, layout: Layout, dtype: str) -> None:
    for case in CONV2D:
        for op in OPS:
            p = problem(op, case, dtype, layout, arch)
            found = conv_select.candidates(p)
            assert conv_select.choose(p) in found
            if op == "backward_weight":
                size = 8 if dtype == "fp64" else 4
                weights = torch.Size(case.weight_shape).numel()
                assert all(c.splits == 1 or c.splits * weights * size <= conv_select.WORKSPACE_BYTES for c in found)


@pytest.mark.parametrize("op", ["forward", "backward_input"])
@layouts
def test_the_batch_is_no_part_of_the_choice(op: str, layout: Layout) -> None:
    x = torch.empty(1, device=DEVICE)
    problems = {conv2d.problem_of(op, x, TILED.geometry._replace(n=n), layout, False) for n in (1, 2, 4096)}
    assert len(problems) == 1


def test_a_tuned_row_wins_on_its_gpu_and_geometry_only(monkeypatch: pytest.MonkeyPatch) -> None:
    key = tuned.key("forward", "bf16", Layout.NHWC, TILED.geometry)
    plan = {"block": [32, 64, 16], "warps": 1, "stages": 7}
    tables = {("NVIDIA H200", "triton"): {key: plan}}
    monkeypatch.setattr(tuned, "plans", lambda gpu, backend: tables.get((gpu, backend), {}))
    p = problem("forward", TILED, "bf16", Layout.NHWC, 90)
    choose = conv_select.choose.__wrapped__
    assert choose(p._replace(gpu="NVIDIA H200"))[1:6] == (32, 64, 16, 1, 7)
    assert choose(p)[1:6] != (32, 64, 16, 1, 7)
    other = p._replace(gpu="NVIDIA H200", geometry=p.geometry._replace(dilation_h=2))
    assert choose(other)[1:6] != (32, 64, 16, 1, 7)


@ops
@layouts
@pytest.mark.parametrize("case", [GROUPED, DEPTHWISE], ids=str)
def test_an_infinity_stays_in_its_group(op: str, layout: Layout, case: ConvCase) -> None:
    """Where a product were padded by the neighbours' values times zero, they would make NaNs of it."""
    given = operands(case)
    given["x"][:, 0] = float("inf")
    given["dy"][:, 0] = float("inf")
    out = run(op, case, given, "fp32", layout)
    first = {"forward": case.k, "backward_input": case.c, "backward_weight": case.k}[op] // case.groups
    axis = 0 if op == "backward_weight" else 1
    rest = out.narrow(axis, first, out.shape[axis] - first)
    assert rest.isfinite().all()
    assert not out.narrow(axis, 0, first).isfinite().all()


def test_a_cpu_tensor_is_refused_where_nothing_interprets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "INTERPRETED", type(target.INTERPRETED)(False))
    x = torch.zeros(1, 1, 3, 3)
    geometry = ConvCase("3x3", 1, 1, 3, 3, 1, 3, 3).geometry
    with pytest.raises(RuntimeError, match=r"tensor on the CPU.*CNNKERNELS_INTERPRET=1"):
        kernels.conv_forward(x, x, None, x[..., :1, :1], geometry, Layout.NCHW, False)


def test_without_triton_the_package_imports_and_says_what_is_missing() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import cnnkernels\n"
        "try:\n    import cnnkernels.triton_kernels\n"
        "except ImportError as error:\n    print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CNNKERNELS_BACKEND"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert "pip install triton" in out.stdout
