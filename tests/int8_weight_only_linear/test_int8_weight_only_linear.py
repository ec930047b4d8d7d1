"""int8_weight_only_linear: the written order of its sums bit for bit, exact products on every backend, rows that do not
depend on their neighbours, and every stride, size, gradient and error around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnkernels import functional, native, nn, use_backend
from cnnkernels.activation import ACTIVATIONS
from cnnkernels.int8 import reference as int8_reference
from cnnkernels.int8.epilogue import Int8Epilogue
from cnnkernels.native import NativeKernels
from cnnkernels.testing.guarded import guarded
from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.int8 import floats, integers

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
linear = functional.int8_weight_only_linear


@pytest.fixture(scope="module")
def runner() -> NativeKernels:
    return native.load(MODULE)


def operands(m: int, n: int, k: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return floats((m, k), 1).to(dtype).to(DEVICE), integers((n, k), 2).to(DEVICE)


def run(runner: NativeKernels, x: Tensor, w: Tensor, e: Int8Epilogue = Int8Epilogue()) -> Tensor:  # noqa: B008
    output = torch.full((x.shape[0], w.shape[0]), 77.0, device=DEVICE)
    runner.int8_weight_only_linear(x, w, output, e)
    return output.cpu()


def in_order(x: Tensor, w: Tensor) -> Tensor:
    """The sums as docs/int8_weight_only_linear.md writes them. A product of fp32 by int8 has 32 bits: long doubles hold
    it; adding a sum to it rounds at 64 bits, then at 24, which is a fused multiply-add's one rounding but for a tie."""
    wide, weight, k = x.float().cpu().numpy().astype(np.longdouble), w.cpu().numpy().astype(np.longdouble), x.shape[1]
    parts = np.zeros((32, x.shape[0], w.shape[0]), np.float32)
    for i in range(k):
        p = i // 16 % 32
        parts[p] = (wide[:, i, None] * weight[None, :, i] + parts[p]).astype(np.float32)
    fours = (parts[0::4] + parts[1::4]) + (parts[2::4] + parts[3::4])
    total = fours[0]
    for four in fours[1:]:
        total = total + four
    assert total.dtype == np.float32
    return torch.from_numpy(total)


# Each with the reason it is here: more rows than are few, all of them; tails of columns, of 16 weights, of a word; more
# products than shared memory holds of the rows.
ORDERED = {
    "one row": (1, 24, 1600, torch.bfloat16),
    "few rows, odd lengths": (3, 21, 1037, torch.float32),
    "as many as are few": (4, 16, 64, torch.float16),
    "five rows": (5, 37, 528, torch.bfloat16),
    "sixteen rows, held in turns": (16, 9, 1100, torch.float16),
    "four rows, held in turns": (4, 3, 4192, torch.float32),
    "one product": (1, 1, 1, torch.float32),
    "lengths of whole words": (2, 7, 36, torch.float16),
}


@pytest.mark.parametrize("name", ORDERED)
def test_the_written_order(runner: NativeKernels, name: str) -> None:
    x, w = operands(*ORDERED[name])
    assert torch.equal(run(runner, x, w), in_order(x, w))


def test_any_order_of_threads(runner: NativeKernels, schedules: list[dict[str, Any]]) -> None:
    for m, n, k in ((2, 19, 1040), (9, 35, 1100)):
        x, w = operands(m, n, k, torch.bfloat16)
        expected = in_order(x, w)
        for schedule in schedules:
            if schedule:
                runner.module.set_schedule(**schedule)
            assert torch.equal(run(runner, x, w), expected), schedule


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_does_not_depend_on_its_neighbours(kernel_backend: str, dtype: torch.dtype) -> None:
    x, w = operands(16, 24, 333, dtype)
    with use_backend(kernel_backend):
        together = linear(x, w, 0.01)
        for count in (1, 4, 5):
            assert torch.equal(linear(x[:count], w, 0.01), together[:count]), count


# Of small integers and powers of two every order gives the same; the last has more rows than are streamed.
EXACT = [(1, 33, 47), (2, 5, 64), (7, 13, 130), (16, 40, 96), (17, 18, 70)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_small_integers_are_exact(backend: str, dtype: torch.dtype) -> None:
    for m, n, k in EXACT:
        x, w = (integers((m, k), 1) // 32).to(dtype).to(DEVICE), integers((n, k), 2).to(DEVICE)
        scale, bias = torch.exp2(integers((n,), 3) // 64), (integers((n,), 4) // 4).float()
        expected = (x.cpu().double() @ w.cpu().double().t() * scale + bias).float().to(dtype)
        with use_backend(backend):
            y = linear(x, w, scale.to(DEVICE), bias.to(DEVICE) if m <= 16 else None)
        expected = expected if m <= 16 else (x.cpu().double() @ w.cpu().double().t() * scale).to(dtype)
        assert y.dtype is dtype and torch.equal(y.cpu(), expected), (m, n, k)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding(backend: str, dtype: torch.dtype) -> None:
    """Against fp64, no worse than twice PyTorch's rounding of each step."""
    for m, n, k in ((1, 30, 700), (13, 20, 100), (20, 19, 75)):
        x, w = operands(m, n, k, dtype)
        scale, bias = floats((n,), 3, 0.001, 0.02).to(DEVICE), floats((n,), 4).to(DEVICE)
        with use_backend(backend):
            y = linear(x, w, scale, bias, activation="relu").double()
        size = x.double().abs() @ w.double().abs().t() * scale
        truth = (x.double() @ w.double().t() * scale + bias).relu()
        # sums in fp32; the widened weight of more than 16 rows is rounded to the dtype, and so is the output
        bound = 2 * (k * 2**-24 * size + torch.finfo(dtype).eps * (size * (m > 16) + truth.abs()))
        assert bool(((y - truth).abs() <= bound + 1e-9).all()), (m, n, k)


STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "rows apart": lambda t: t.new_zeros(t.shape[0], t.shape[1] + 16)[:, : t.shape[1]].copy_(t),
    "at an odd address": lambda t: t.new_zeros(t.shape[0], t.shape[1] + 3)[:, 1 : t.shape[1] + 1].copy_(t),
    "columns": lambda t: t.t().contiguous().t(),
    "neither": lambda t: t.new_zeros(t.shape[0], 3, t.shape[1], 2)[:, 1, :, 1].copy_(t),
}


@pytest.mark.parametrize("how", STRIDED)
def test_every_stride(kernel_backend: str, how: str) -> None:
    for m, n, k in ((1, 9, 80), (6, 21, 45)):
        x, w = operands(m, n, k, torch.bfloat16)
        with use_backend(kernel_backend):
            right = linear(x, w, 0.5)
            assert torch.equal(linear(STRIDED[how](x), w, 0.5), right)
            assert torch.equal(linear(x, STRIDED[how](w), 0.5), right)
            assert torch.equal(linear(x[:1].expand(3, k), w, 0.5), right[:1].expand(3, n))


@pytest.mark.skipif(HAS_GPU, reason="guard pages are the interpreter's")
@pytest.mark.parametrize("after", [True, False], ids=["behind", "before"])
@pytest.mark.parametrize("size", [(1, 24, 96), (3, 13, 37), (16, 33, 68), (5, 1, 3)], ids=str)
def test_nothing_beside_the_tensors_is_touched(runner: NativeKernels, size: tuple[int, ...], after: bool) -> None:
    x, w = operands(*size, torch.float16)
    m, n, _ = size
    place: Callable[[Tensor], Tensor] = lambda t: guarded(t, after, runner.module)  # noqa: E731
    e = Int8Epilogue(scale_b=place(floats((n,), 3, 0.01, 1)), bias=place(floats((n,), 4)), activation="relu")
    output, expected = place(torch.zeros(m, n, dtype=torch.float16)), torch.zeros(m, n, dtype=torch.float16)
    runner.int8_weight_only_linear(place(x), place(w), output, e)
    int8_reference.finish(in_order(x, w), expected, e)
    assert torch.equal(output, expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_epilogue(kernel_backend: str, activation: str) -> None:
    """Bit for bit what follows the sums: each operation rounded by itself, the last to the output's dtype."""
    x, w = operands(3, 26, 40)
    numbers: dict[str, Any] = {"activation": activation, "negative_slope": 0.3}
    scale, bias = floats((26,), 3, 0.001, 0.02).to(DEVICE), floats((26,), 4).to(DEVICE)
    residuals = (floats((3, 26), 5), floats((3, 26), 6).bfloat16(), integers((3, 26), 7))
    with use_backend(kernel_backend):
        sums = linear(x, w)
        for residual, out_dtype in zip((t.to(DEVICE) for t in residuals), DTYPES, strict=True):
            given = {"residual_scale": 0.02, "residual_zero_point": 5} if residual.dtype is torch.int8 else {}
            y = linear(x, w, scale, bias, residual=residual, out_dtype=out_dtype, **given, **numbers)
            expected = torch.empty_like(y)
            e = Int8Epilogue(scale_b=scale, bias=bias, residual=residual, **given, **numbers)
            int8_reference.finish(sums, expected, e)
            if activation in ("silu", "gelu"):  # the platform's exp and erf
                torch.testing.assert_close(y, expected)
            else:
                assert torch.equal(y, expected)


def test_infinities_and_nan_stay_in_their_row(backend: str) -> None:
    x, w = operands(4, 20, 50, torch.float16)
    w[:, 7] = torch.tensor([0, 1, -1, 5, -128] * 4)
    x[1, 7], x[2, 7] = torch.inf, torch.nan
    clean = x.clone()
    clean[1:3, 7] = 0
    with use_backend(backend):
        y, right = linear(x, w), linear(clean, w)
    assert torch.equal(y[[0, 3]], right[[0, 3]]) and bool(y[2].isnan().all())
    nowhere = w[:, 7] == 0  # infinity times 0
    assert torch.equal(y[1].isnan(), nowhere)
    assert torch.equal(y[1][~nowhere], torch.where(w[:, 7] > 0, torch.inf, -torch.inf).half()[~nowhere])


@pytest.mark.parametrize("size", [(0, 4, 5), (3, 0, 5), (3, 4, 0)], ids=str)
def test_empty_sizes(backend: str, size: tuple[int, int, int]) -> None:
    x, w = operands(*size)
    bias = floats((size[1],), 4).to(DEVICE)
    with use_backend(backend):
        y = linear(x, w, None, bias, activation="relu")
    assert torch.equal(y, bias.relu().expand(size[0], -1)) if size[2] == 0 else y.shape == size[:2]


def test_one_row_and_leading_axes(backend: str) -> None:
    x, w = operands(12, 9, 20)
    residual = floats((2, 3, 2, 9), 3).to(DEVICE)
    with use_backend(backend):
        y = linear(x.view(2, 3, 2, 20), w, 0.1, residual=residual)
        assert y.shape == residual.shape and y.is_contiguous()
        assert torch.equal(y.view(12, 9), linear(x, w, 0.1, residual=residual.view(12, 9)))
        assert linear(x[0], w, 0.1).shape == (9,)


def test_more_rows_than_are_streamed(runner: NativeKernels, recorded) -> None:
    """PyTorch multiplies by the widened weight, and says so in the docstring; the kernel itself refuses them."""
    assert runner.module.int8_weight_only_linear_rows == 16 and "more than 16 rows" in str(linear.__doc__)
    x, w = operands(17, 24, 32, torch.bfloat16)
    scale, bias = floats((24,), 3, 0.01, 0.02).to(DEVICE), floats((24,), 4).to(DEVICE)
    widened = (w.float() * scale[:, None]).bfloat16()
    with use_backend("cuda"):
        y = linear(x, w, scale, bias)
    output = torch.empty_like(y)
    runner.int8_weight_only_linear(x, w, output, Int8Epilogue(scale_b=scale, bias=bias))
    assert torch.equal(output, torch.nn.functional.linear(x, widened, bias.bfloat16()))
    assert [(call.backend, call.name) for call in recorded] == [("cuda", "int8_weight_only_linear")]
    finish = native.int8_epilogue.native_epilogue(runner.module, Int8Epilogue(), torch.bfloat16)
    addresses = x.data_ptr(), w.data_ptr(), output.data_ptr()
    with pytest.raises(ValueError, match="more than 16 rows"):
        runner.module.int8_weight_only_linear(*addresses, 3, (17, 24, 32), (32, 1, 32), finish, 0)


def test_gradients_reach_input_and_residual(backend: str) -> None:
    x, w = operands(3, 8, 20)
    scale, bias = floats((8,), 3, 0.01, 0.02).to(DEVICE), floats((8,), 4).to(DEVICE)
    leaves = x.requires_grad_(), floats((3, 8), 5).to(DEVICE).requires_grad_()

    def plain(x: Tensor, residual: Tensor) -> Tensor:
        return torch.relu(torch.nn.functional.linear(x, w.float() * scale[:, None], bias) + residual)

    with use_backend(backend):
        y = linear(x, w, scale, bias, residual=leaves[1], activation="relu")
        for mine, theirs in zip(
            torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(plain(*leaves).sum(), leaves), strict=True
        ):
            torch.testing.assert_close(mine, theirs)
        with torch.no_grad():
            torch.testing.assert_close(linear(x, w, scale, bias, residual=leaves[1], activation="relu"), y)
        _, tangent = torch.func.jvp(lambda x: linear(x, w, scale), (x.detach(),), (x.detach(),))
    torch.testing.assert_close(tangent, x.detach() @ (w.float() * scale[:, None]).t())


def test_float64_and_autocast() -> None:
    x, w = operands(3, 8, 20)
    with use_backend("reference"), torch.no_grad():
        assert linear(x.double(), w, 0.5).dtype is torch.float64
        right = linear(x.bfloat16(), w, 0.5)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            assert torch.equal(linear(x, w, 0.5), right)
    with use_backend("cuda"), pytest.raises(NotImplementedError, match="float32, float16 and bfloat16, not float64"):
        linear(x.double(), w, 0.5)


def test_export_and_vmap(device: str) -> None:
    """One graph serves batches on either side of 16 rows, and names the operator."""
    layer = nn.Int8Linear.from_float(torch.nn.Linear(24, 10), mode="weight_only").to(device)
    x = floats((20, 24), 1).to(device)
    with use_backend("cuda"), torch.no_grad():
        right, few = layer(x), layer(x[:3])
        batch = {"input": {0: torch.export.Dim("batch", min=1, max=64)}}
        program = torch.export.export(layer, (x,), dynamic_shapes=batch)
        assert torch.equal(program.module()(x[:3]), few) and torch.equal(program.module()(x), right)
        assert "cnnkernels.int8_weight_only_linear.default" in {str(node.target) for node in program.graph.nodes}
        assert torch.equal(torch.func.vmap(lambda row: layer(row[None])[0])(x[:3]), few)


def test_a_layer_streams_its_weight(recorded, device: str) -> None:
    layer = nn.Int8Linear.from_float(torch.nn.Linear(24, 10), mode="weight_only", activation="relu").to(device)
    with use_backend("cuda"), torch.no_grad():
        layer(floats((3, 24), 1).to(device))
    (call,) = recorded
    assert (call.backend, call.name) == ("cuda", "int8_weight_only_linear")
    assert call.arguments[1].dtype is torch.int8 and torch.equal(call.arguments[3].scale_b, layer.weight_scale)


X, W = torch.ones(2, 6), torch.ones(5, 6, dtype=torch.int8)
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "input of int8": (lambda: linear(X.to(torch.int8), W), RuntimeError, "expected input to be of dtype float32 or"),
    "input of a list": (lambda: linear([1.0], W), TypeError, "argument 'input' must be Tensor, not list"),  # type: ignore[arg-type]
    "weight of float": (lambda: linear(X, W.float()), RuntimeError, "expected weight to be of dtype int8"),
    "weight of 1 axis": (lambda: linear(X, W[0]), RuntimeError, "expected weight to have 2 dimensions"),
    "features": (lambda: linear(X, W[:, :5]), RuntimeError, "expected input to be of size [..., 5]"),
    "scale's sign": (lambda: linear(X, W, -1.0), ValueError, "weight_scale must be positive and finite"),
    "a scale of nan": (
        lambda: linear(X, W, torch.tensor([1.0, 1, 1, 1, torch.nan])), ValueError, "every element of weight_scale"
    ),
    "scale's size": (lambda: linear(X, W, torch.ones(4)), RuntimeError, "expected weight_scale to be of size [1]"),
    "scale's dtype": (lambda: linear(X, W, torch.ones(5).half()), RuntimeError, "weight_scale to be of dtype torch.fl"),
    "bias's size": (lambda: linear(X, W, 1.0, torch.ones(6)), RuntimeError, "expected bias to be of size [5]"),
    "bias with a gradient": (
        lambda: linear(X, W, 1.0, torch.ones(5, requires_grad=True)), RuntimeError, "bias requires grad"
    ),
    "residual's size": (lambda: linear(X, W, residual=torch.ones(5)), RuntimeError, "expected residual to be of size"),
    "out_dtype": (lambda: linear(X, W, out_dtype=torch.int8), ValueError, "out_dtype=torch.int8"),
    "activation": (lambda: linear(X, W, activation="swish"), ValueError, "'swish'"),
    "devices": (lambda: linear(X.to("meta"), W), RuntimeError, "input on meta and weight on cpu"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), WRONG.values(), ids=[name.replace(" ", "_") for name in WRONG])
def test_errors(recorded, call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value) and not recorded
