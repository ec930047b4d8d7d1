"""conv2d's fused epilogue: activation(scale (convolution + bias) + shift + residual), values, derivatives, errors."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from cnnkernels import functional as F
from cnnkernels import native, nn, use_backend
from cnnkernels.activation import ACTIVATIONS
from cnnkernels.epilogue import Epilogue
from cnnkernels.geometry import Layout
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.numerics import assert_within, rounding_bound
from helpers.conv_epilogue import SLOPE, numbers, reference, run
from helpers.device import MODULE
from helpers.native import why_no_wgmma

# Exact on integers: no division, no exponential; the slope is a power of two.
EXACT = ["none", "relu", "relu6", "leaky_relu"]
layouts = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name.lower())

# Several tiles each way, groups, a depth of odd channels, a stride; the last is depthwise.
CASES = [
    ConvCase("several tiles", 2, 16, 9, 10, 136, 3, 2, padding=(1, 1, 1, 0)),
    ConvCase("groups of odd width", 2, 9, 6, 5, 6, 3, 3, (2, 1), (1, 1, 1, 1), groups=3),
    ConvCase("1x1", 2, 16, 5, 7, 24, 1, 1),
    ConvCase("depthwise", 2, 8, 6, 7, 8, 3, 3, padding=(1, 1, 1, 1), groups=8),
]


@layouts
@pytest.mark.parametrize("activation", EXACT)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_on_integers(kernels: Any, device: str, case: ConvCase, layout: Layout, activation: str) -> None:
    """Each part has its own numbers, so none can be left out, doubled, or taken from another filter or place."""
    given = numbers(case, torch.float32, device, layout)
    assert torch.equal(run(kernels, case, given, layout, activation), reference(case, given, activation))


@layouts
@pytest.mark.parametrize("missing", ["bias", "scale", "shift", "residual"])
def test_each_part_may_be_missing(kernels: Any, device: str, layout: Layout, missing: str) -> None:
    case = CASES[1]
    given = numbers(case, torch.float64, device, layout)
    nothing = {"bias": 0, "scale": 1, "shift": 0, "residual": 0}[missing]
    expected = reference(case, given | {missing: torch.full_like(given[missing], nothing)}, "relu")
    assert torch.equal(run(kernels, case, given | {missing: None}, layout, "relu"), expected)  # type: ignore[dict-item]


@layouts
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tile", range(3))
def test_every_tile_and_type_of_the_cuda_kernels(device: str, layout: Layout, dtype: torch.dtype, tile: int) -> None:
    if dtype is torch.float64 and tile == 0:
        return  # there is no such kernel (conv/test_conv_kernels.py)
    kernels = native.load(MODULE)
    engine = "fma" if dtype is torch.float64 else "mma"
    shapes = kernels.module.conv_tile_shapes[engine]
    fields = {"engine": engine, "tile": shapes[tile], "a": "elements", "b": "elements", "splits": 1}
    given = numbers(CASES[0], dtype, device, layout)
    found = run(kernels, CASES[0], given, layout, "leaky_relu", plan=kernels.plan(fields))
    assert torch.equal(found, reference(CASES[0], given, "leaky_relu").to(dtype).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("tile", "groups"), [("128x256", 1), ("256x128", 2), ("64x256", 2), ("64x128", 1)])
@pytest.mark.usefixtures("on_a_hopper")
def test_hoppers_kernel(device: str, dtype: torch.dtype, tile: str, groups: int) -> None:
    """Its blocks are halves of rows, or of columns, and end within the image and the filters."""
    if why := why_no_wgmma():
        pytest.skip(why)
    kernels = native.load(MODULE)
    shape = tuple(map(int, tile.split("x")))
    fields = {"engine": "wgmma", "tile": shape, "a": "elements", "b": "elements", "splits": 1}
    case = ConvCase("", 3, 128, 9, 10, 272, 1, 2, groups=groups)
    given = numbers(case, dtype, device, Layout.NHWC)
    for activation in ("none", "relu6"):
        found = run(kernels, case, given, Layout.NHWC, activation, plan=kernels.plan(fields))
        assert torch.equal(found, reference(case, given, activation).to(dtype).double())
    plain = given | {"residual": None}  # with nothing to do output by output, TMA stores what was finished in registers
    zeros = given | {"residual": torch.zeros_like(given["residual"])}
    biased = plain | {"scale": None, "shift": None}
    ones = zeros | {"scale": torch.ones_like(given["scale"]), "shift": torch.zeros_like(given["shift"])}
    for told, means in ((plain, zeros), (biased, ones)):
        for activation in EXACT:
            found = run(kernels, case, told, Layout.NHWC, activation, plan=kernels.plan(fields))  # type: ignore[arg-type]
            assert torch.equal(found, reference(case, means, activation).to(dtype).double())


@pytest.mark.parametrize(("c", "k"), [(4, 4), (16, 8), (2, 16)])
def test_groups_of_few_channels(device: str, c: int, k: int) -> None:
    """Sums wait to be stored unrounded where residual or activation follow, else rounded."""
    kernels = native.load(MODULE)
    case = ConvCase("", 2, 8 * c, 6, 5, 8 * k, 3, 2, groups=8)
    fields = {"engine": "grouped", "tile": (64, 64), "a": "elements", "b": "elements", "splits": 1}
    given = numbers(case, torch.bfloat16, device, Layout.NHWC)
    zeros = given | {"residual": torch.zeros_like(given["residual"])}
    for activation, told, means in (("none", given, given), ("relu6", given, given), ("none", zeros, zeros),
                                    ("none", zeros | {"residual": None}, zeros)):  # fmt: skip
        found = run(kernels, case, told, Layout.NHWC, activation, plan=kernels.plan(fields))  # type: ignore[arg-type]
        assert torch.equal(found, reference(case, means, activation).to(torch.bfloat16).double())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rounding(kernels: Any, device: str, activation: str, dtype: torch.dtype) -> None:
    """Within twice the error of PyTorch's operators one after the other, each rounding, plus the reduction's own."""
    case = ConvCase("", 2, 16, 7, 6, 24, 3, 3, padding=(1, 1, 1, 1))
    generator = torch.Generator().manual_seed(3)
    given = {
        name: torch.randn(t.shape, generator=generator).to(dtype).to(device)
        for name, t in numbers(case, dtype, device, Layout.NCHW).items()
    }
    x, w, b, scale, shift, residual = (t.cpu() for t in given.values())
    theirs = Epilogue(scale, shift, residual, activation, SLOPE).apply(torch.nn.functional.conv2d(x, w, b, padding=1))
    magnitude = torch.nn.functional.conv2d(x.abs().double(), w.abs().double(), b.abs().double(), padding=1)
    magnitude = magnitude * scale.abs().double()[:, None, None] + shift.abs().double()[:, None, None] + residual.abs()
    right = reference(case, given, activation)
    bound = rounding_bound(right, theirs, 16 * 9, magnitude, dtype)
    assert_within(run(kernels, case, given, Layout.NCHW, activation), right, bound, activation)


@pytest.mark.parametrize(("dtype", "ulp"), [(torch.float16, 2.0**-10), (torch.bfloat16, 2.0**-7)], ids=str)
def test_there_is_one_rounding(kernels: Any, device: str, dtype: torch.dtype, ulp: float) -> None:
    """1 + ulp/2, a tie that would round to 1, decided by a residual of ulp/8 that is added before."""
    case = ConvCase("", 1, 2, 1, 1, 1, 1, 1)
    given = numbers(case, dtype, device, Layout.NCHW)
    values = {"input": [1.0, 1.0], "weight": [1.0, ulp / 2], "bias": [0.0], "scale": [1.0], "shift": [0.0]}
    values["residual"] = [ulp / 8]
    given = {name: torch.tensor(values[name]).view(t.shape).to(device, dtype) for name, t in given.items()}
    assert run(kernels, case, given, Layout.NCHW, "relu").item() == 1 + ulp


def leaves(case: ConvCase, device: str, seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    given = numbers(case, torch.float64, device, Layout.NCHW)
    return [
        torch.randn(t.shape, generator=generator, dtype=t.dtype).to(device).requires_grad_() for t in given.values()
    ]


SMALL = ConvCase("", 1, 2, 3, 3, 2, 2, 2, padding=(1, 1, 1, 1))


def fused(activation: str, slope: float = SLOPE, groups: int = 1):  # type: ignore[no-untyped-def]
    def call(x: Tensor, w: Tensor, b: Tensor, scale: Tensor, shift: Tensor, residual: Tensor) -> Tensor:
        return F.conv2d(
            x, w, b, padding=1, groups=groups, activation=activation, residual=residual, scale=scale, shift=shift,
            negative_slope=slope,
        )  # fmt: skip

    return call


@pytest.mark.parametrize(
    ("backend", "activation"), [("cuda", "none"), ("cuda", "leaky_relu"), ("cuda", "gelu"), ("triton", "gelu")]
)
def test_first_and_second_derivatives(device: str, backend: str, activation: str) -> None:
    """One that needs nothing, one that reads its output, one whose pre-activation is computed anew."""
    inputs = leaves(SMALL, device)
    with use_backend(backend):
        assert gradcheck(fused(activation), inputs, fast_mode=True)
        assert gradgradcheck(fused(activation), inputs, fast_mode=True)


@pytest.mark.parametrize("activation", ["relu", "relu6", "silu", "hardswish"])
def test_derivatives_of_the_other_activations(device: str, activation: str) -> None:
    with use_backend("cuda"):
        assert gradcheck(fused(activation), leaves(SMALL, device), fast_mode=True)
        assert gradgradcheck(fused(activation), leaves(SMALL, device), fast_mode=True)


def test_a_negative_slope_below_zero_and_depthwise(device: str) -> None:
    with use_backend("cuda"):
        assert gradcheck(fused("leaky_relu", -0.5), leaves(SMALL, device), fast_mode=True)
        depthwise = dataclasses.replace(SMALL, groups=2)
        assert gradgradcheck(fused("silu", groups=2), leaves(depthwise, device), fast_mode=True)


def test_forward_mode(device: str) -> None:
    with use_backend("cuda"):
        assert gradcheck(fused("silu"), leaves(SMALL, device), check_forward_ad=True, fast_mode=True)
        assert gradcheck(fused("relu"), leaves(SMALL, device), check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_gradients_against_pytorch_in_fp32(kernel_backend: str, device: str, activation: str) -> None:
    """Every argument's, with only that one asked for, and all at once."""
    given = numbers(CASES[1], torch.float64, device, Layout.NCHW)
    names = list(given)
    for wanted in ([name] for name in names) if kernel_backend == "cuda" else [names]:
        results = []
        for backend in (kernel_backend, "reference"):
            tensors = {name: t.clone().requires_grad_(name in wanted) for name, t in given.items()}
            x, w, b, scale, shift, residual = tensors.values()
            with use_backend(backend):
                y = F.conv2d(
                    x, w, b, (2, 1), 1, groups=3, activation=activation, scale=scale, shift=shift, residual=residual
                )
            results.append(
                torch.autograd.grad((y * torch.arange(y.numel()).view_as(y).to(y)).sum(), [tensors[n] for n in wanted])
            )
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)


def noted(seen: list[tuple[int, ...]], tensor: Tensor) -> Tensor:
    seen.append(tuple(tensor.shape))
    return tensor


def test_what_is_saved(device: str) -> None:
    """relu keeps its output and what the gradients need; gelu the arguments, and no tensor of the output's size."""
    given = numbers(CASES[2], torch.float32, device, Layout.NCHW)
    x, w, b, scale, shift, _ = (t.requires_grad_() for t in given.values())
    kept: dict[str, list[tuple[int, ...]]] = {}
    for name in ("relu", "gelu"):
        seen: list[tuple[int, ...]] = []
        note = functools.partial(noted, seen)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), use_backend("cuda"):
            F.conv2d(x, w, b, activation=name, scale=scale, shift=shift)
        kept[name] = seen
    assert CASES[2].output_shape in kept["relu"] and CASES[2].output_shape not in kept["gelu"]


def arguments(device: str) -> tuple[Any, ...]:
    x, w, b, scale, shift, residual = (t.float().detach().requires_grad_() for t in leaves(SMALL, device))
    return (x, w, b, scale, shift, residual, "silu", 0.1, (1, 1), (1, 1, 1, 1), (1, 1), 1, "cuda")


@pytest.mark.filterwarnings("ignore")
def test_opcheck(device: str) -> None:
    op = torch.ops.cnnkernels.conv_epilogue_forward.default
    torch.library.opcheck(op, arguments(device))
    relu = (*arguments(device)[:6], "relu", *arguments(device)[7:])
    torch.library.opcheck(op, relu, test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"))


def test_compile_fullgraph(device: str) -> None:
    inputs = leaves(SMALL, device)
    with use_backend("cuda"):
        compiled = torch.compile(fused("silu"), fullgraph=True, backend="aot_eager")
        expected, found = fused("silu")(*inputs), compiled(*inputs)
        assert torch.equal(expected, found)
        for a, b in zip(
            torch.autograd.grad(expected.sum(), inputs), torch.autograd.grad(found.sum(), inputs), strict=True
        ):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "dims", [(0,) + (None,) * 5, (None, 0, 0, 0, 0, 0), (0, None, None, None, None, 0), (0, 0, None, 0, None, 1)]
)
def test_vmap(device: str, dims: tuple[int | None, ...]) -> None:
    single = leaves(SMALL, device)
    batched = [
        t.detach() if dim is None else torch.stack([t.detach() * (i + 1) for i in range(3)], dim)
        for t, dim in zip(single, dims, strict=True)
    ]
    with use_backend("cuda"):
        found = torch.func.vmap(fused("silu"), dims)(*batched)
        for i in range(3):
            each = [t if dim is None else t.select(dim, i) for t, dim in zip(batched, dims, strict=True)]
            torch.testing.assert_close(found[i], fused("silu")(*each))


def test_autocast(device: str) -> None:
    given = [t.float() for t in leaves(SMALL, device)]
    with use_backend("cuda"), torch.autocast(device, torch.bfloat16):
        found = fused("relu")(*given)
        by_operator = torch.ops.cnnkernels.conv_epilogue_forward(
            *given, "relu", SLOPE, (1, 1), (1, 1, 1, 1), (1, 1), 1, "cuda"
        )
    assert found.dtype is torch.bfloat16 and torch.equal(found, by_operator)
    with use_backend("cuda"):
        assert torch.equal(found, fused("relu")(*(t.bfloat16() for t in given)))


def test_a_plain_call_takes_the_plain_operator(recorded: list[Any], device: str) -> None:
    x, w, b, *_ = (t.detach() for t in leaves(SMALL, device))
    F.conv2d(x, w, b, padding=1)
    assert len(recorded[-1].arguments) == 7  # no epilogue is even made


def test_unbatched_and_empty(device: str) -> None:
    x, w, b, scale, _, residual = (t.detach() for t in leaves(SMALL, device))
    with use_backend("cuda"):
        y = F.conv2d(x, w, b, padding=1, activation="relu", residual=residual)
        single = F.conv2d(x[0], w, b, padding=1, activation="relu", residual=residual[0])
        assert torch.equal(y[0], single)
        empty = F.conv2d(x[:0], w, b, padding=1, activation="relu", scale=scale, residual=residual[:0])
    assert empty.shape == (0, *residual.shape[1:])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"activation": "swish"}, ValueError, "conv2d: activation must be None or one of none, relu.* but got 'swish'"),
        ({"activation": 3}, TypeError, r"conv2d\(\): argument 'activation' must be str or None, not int"),
        ({"scale": torch.ones(3)}, RuntimeError, r"conv2d: expected scale to be of size \[2\], but got \[3\]"),
        ({"shift": torch.ones(1, 2)}, RuntimeError, r"shift to be of size \[2\], but got \[1, 2\]"),
        (
            {"residual": torch.ones(1, 2, 4, 3)},
            RuntimeError,
            r"residual to be of size \[1, 2, 4, 4\], but got",
        ),
        (
            {"residual": torch.ones(1, 2, 4, 4).double()},
            RuntimeError,
            "residual type .torch.float64. should be the same",
        ),
        ({"scale": 2.0}, TypeError, r"conv2d\(\): argument 'scale' must be Tensor, not float"),
    ],
)
@pytest.mark.parametrize("backend", ["cuda", "reference"])
def test_errors(backend: str, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    x, w = torch.ones(1, 2, 3, 3), torch.ones(2, 2, 2, 2)
    with use_backend(backend), pytest.raises(error, match=message):
        F.conv2d(x, w, padding=1, **changes)


def test_layer(device: str) -> None:
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), torch.nn.BatchNorm2d(8)
    norm(torch.randn(4, 8, 5, 5) * 3 + 1)  # running statistics
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    model = torch.nn.Sequential(conv, norm.eval(), torch.nn.SiLU()).double().to(device)
    layer = nn.Conv2dAct.fold(conv, norm, "silu")
    x, residual = torch.randn(2, 3, 6, 6, dtype=torch.float64, device=device), None
    layer.backend = "cuda"
    torch.testing.assert_close(layer(x), model(x))
    residual = torch.randn(2, 8, 6, 6, dtype=torch.float64, device=device)
    torch.testing.assert_close(layer(x, residual), torch.nn.functional.silu(norm(conv(x)) + residual))
    assert layer.weight is conv.weight and set(layer.state_dict()) == {"weight", "bias", "scale", "shift"}
    assert "activation=silu, affine=True" in repr(layer)
    plain = nn.Conv2dAct(3, 8, 3)
    assert plain.scale is None and plain.activation == "relu" and set(plain.state_dict()) == {"weight", "bias"}
    with pytest.raises(ValueError, match="activation must be None or one of"):
        nn.Conv2dAct(3, 8, 3, activation="mish")
    with pytest.raises(ValueError, match="expected a batch_norm of 8 channels, but got num_features=4"):
        nn.Conv2dAct.fold(conv, torch.nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match="keeps running statistics"):
        nn.Conv2dAct.fold(conv, torch.nn.BatchNorm2d(8, track_running_stats=False))


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_triton_leaves_registers_for_the_epilogue(arch: int) -> None:
    """128 sums a thread and a residual beside them were seen to spill."""
    from cnnkernels.triton_kernels.conv.select import Problem, choose

    geometry = ConvCase("", 1, 256, 56, 56, 256, 3, 3, padding=(1, 1, 1, 1)).geometry
    plain, finished = (choose(Problem("forward", "bf16", Layout.NHWC, geometry, "", arch), f) for f in (False, True))
    assert finished.block_m * finished.block_n <= 64 * 32 * finished.warps
    assert arch == 80 or plain != finished
