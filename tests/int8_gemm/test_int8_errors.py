"""Bad input to the INT8 functions: the type of the error, and that it names the argument and its value. No kernel is
reached."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from cnnkernels import functional as F
from cnnkernels import use_backend

A, B = torch.ones(4, 6, dtype=torch.int8), torch.ones(6, 5, dtype=torch.int8)
X, W = torch.ones(2, 4, 5, 5, dtype=torch.int8), torch.ones(6, 4, 3, 3, dtype=torch.int8)
I8, U8, F16, I32 = torch.int8, torch.uint8, torch.float16, torch.int32
Case = tuple[Callable[[], Any], type[Exception], str]


def gemm(**given: Any) -> Callable[[], Any]:
    return lambda: F.int8_gemm(A, B, **given)


def linear(*arguments: Any, **given: Any) -> Callable[[], Any]:
    return lambda: F.int8_linear(*arguments, **given)


def conv(*arguments: Any, **given: Any) -> Callable[[], Any]:
    return lambda: F.int8_conv2d(*(arguments or (X, W)), **given)


OPERANDS: dict[str, Case] = {
    "a of float": (lambda: F.int8_gemm(A.float(), B), RuntimeError, "expected a to be of dtype int8 or uint8, but got"),
    "a of int32": (lambda: F.int8_gemm(A.int(), B), RuntimeError, "torch.int32"),
    "b of uint8": (
        lambda: F.int8_gemm(A, B.to(U8)),
        RuntimeError,
        "expected b to be of dtype int8, but got torch.uint8",
    ),
    "a of None": (lambda: F.int8_gemm(None, B), TypeError, "argument 'a' must be Tensor, not NoneType"),
    "b of a list": (lambda: F.int8_gemm(A, [1]), TypeError, "argument 'b' must be Tensor, not list"),
    "a of 3 axes": (
        lambda: F.int8_gemm(A[None], B),
        RuntimeError,
        "expected a to have 2 dimensions, but got size [1, 4",
    ),
    "b of 1 axis": (lambda: F.int8_gemm(A, B[0]), RuntimeError, "expected b to have 2 dimensions, but got size [5]"),
    "inner sizes": (lambda: F.int8_gemm(A, B.t()), RuntimeError, "a and b cannot be multiplied (4x6 and 5x6)"),
    "int_mm of uint8": (lambda: F.int_mm(A.to(U8), B), RuntimeError, "expected self to be of dtype int8, but got"),
    "int_mm's out of int64": (
        lambda: F.int_mm(A, B, out=torch.ones(4, 5).long()),
        RuntimeError,
        "expected out to be of dtype int32, but got torch.int64",
    ),
    "int_mm's inner sizes": (lambda: F.int_mm(A, A), RuntimeError, "self and mat2 cannot be multiplied (4x6 and 4x6)"),
    "linear's input of int32": (linear(A.int(), B.t(), 1.0, 1.0), RuntimeError, "input to be of dtype int8 or uint8"),
    "linear's input of complex": (linear(A.cfloat(), B.t(), 1.0, 1.0), RuntimeError, "complex64"),
    "linear's features": (
        linear(A, B, 1.0, 1.0),
        RuntimeError,
        "input to be of size [..., 5] for weight of size [6, 5]",
    ),
    "linear's input without axes": (linear(A[0, 0], B, 1.0, 1.0), RuntimeError, "but got []"),
    "linear's weight of float": (
        linear(A, B.t().float(), 1.0, 1.0),
        RuntimeError,
        "expected weight to be of dtype int8",
    ),
    "linear of None": (linear(None, B, 1.0, 1.0), TypeError, "argument 'input' must be Tensor, not NoneType"),
    "conv's input of int32": (conv(X.int(), W), RuntimeError, "expected input to be of dtype int8 or uint8"),
    "conv's weight of uint8": (
        conv(X, W.to(U8)),
        RuntimeError,
        "expected weight to be of dtype int8, but got torch.uint8",
    ),
    "conv's input of 2 axes": (conv(X[0, 0], W), RuntimeError, "Expected 3D (unbatched) or 4D (batched) input"),
    "conv's weight of 3 axes": (
        conv(X, W[0]),
        RuntimeError,
        "expected weight to have 4 dimensions, but got size [4, 3",
    ),
    "conv's channels": (conv(X[:, :3], W), RuntimeError, "to have 4 channels, but got 3 channels"),
    "conv's groups": (conv(groups=3), RuntimeError, "groups=3"),
    "conv's groups of a float": (conv(groups=1.0), TypeError, "argument 'groups' must be int"),
    "conv's stride": (conv(stride=0), RuntimeError, "non-positive stride is not supported, but got stride=(0, 0)"),
    "conv's padding": (conv(padding=(1, 2, 3)), RuntimeError, "expected padding to be a single integer"),
    "conv's padding's name": (conv(padding="full"), RuntimeError, "Invalid padding string: 'full'"),
    "conv's window": (conv(X[:, :, :2], W), RuntimeError, "Kernel size can't be greater than actual input size"),
    "conv of None": (conv(None, W), TypeError, "argument 'input' must be Tensor, not NoneType"),
    "sums past int32": (
        lambda: F.int8_gemm(A[:, :1].expand(4, 131072), B[:1].expand(131072, 5)),
        ValueError,
        "K=131072 products could overflow int32; with a of int8 and b of int8 K is at most 131071",
    ),
    "sums past int32 of uint8": (
        lambda: F.int8_gemm(A[:, :1].to(U8).expand(4, 65794), B[:1].expand(65794, 5)),
        ValueError,
        "a of uint8 or with a zero point and b of int8 K is at most 65793",
    ),
    "sums past int32 with zero points": (
        lambda: F.int8_gemm(
            A[:, :1].expand(4, 33026),
            B[:1].expand(33026, 5),
            zero_point_a=torch.tensor([1], dtype=I32),
            zero_point_b=1,
        ),
        ValueError,
        "K is at most 33025",
    ),
}

SCALES: dict[str, Case] = {
    **{
        f"scale_a of {value}": (
            gemm(scale_a=value),
            ValueError,
            f"scale_a must be positive and finite {text}, but got {value}",
        )
        for value in (math.nan, math.inf, -math.inf, 0.0, -0.5, 1e-40, 1e39)
        for text in ("(1.2e-38 to 3.4e38)",)
    },
    **{
        f"scale_b with {value}": (
            gemm(scale_b=torch.tensor([1.0, 1.0, value, 1.0, 1.0])),
            ValueError,
            f"every element of scale_b must be positive and finite (1.2e-38 to 3.4e38), but got {value}",
        )
        for value in (math.nan, math.inf, 0.0, -2.0)
    },
    "scale_a by columns": (
        gemm(scale_a=torch.ones(5)),
        RuntimeError,
        "expected scale_a to be of size [1] or [4] or [4, 1]",
    ),
    "scale_a across": (gemm(scale_a=torch.ones(1, 4)), RuntimeError, "but got [1, 4]"),
    "scale_b by rows": (
        gemm(scale_b=torch.ones(4)),
        RuntimeError,
        "scale_b to be of size [1] or [5] or [1, 5], but got [4]",
    ),
    "scale_a of fp16": (
        gemm(scale_a=torch.ones(4).half()),
        RuntimeError,
        "scale_a to be of dtype torch.float32, but got",
    ),
    "scale_b of fp64": (gemm(scale_b=torch.ones(5).double()), RuntimeError, "torch.float64"),
    "scale_a of a string": (gemm(scale_a="1"), TypeError, "argument 'scale_a' must be float or Tensor, not str"),
    "scale_b of True": (gemm(scale_b=True), TypeError, "argument 'scale_b' must be float or Tensor, not bool"),
    "scale_a elsewhere": (gemm(scale_a=torch.ones(4, device="meta")), RuntimeError, "scale_a on meta"),
    "out_scale of 0": (gemm(out_scale=0.0), ValueError, "out_scale must be positive and finite"),
    "out_scale of nan": (gemm(out_scale=torch.tensor(math.nan)), ValueError, "out_scale must be positive and finite"),
    "out_scale by columns": (gemm(out_scale=torch.ones(5)), RuntimeError, "out_scale to be of size [1], but got [5]"),
    "input_scale by columns": (
        linear(A, B.t(), torch.ones(6), 1.0),
        RuntimeError,
        "expected input_scale to be of size",
    ),
    "input_scale of 0": (linear(A.float(), B.t(), 0.0, 1.0), ValueError, "input_scale must be positive and finite"),
    "input_scale by rows of floats": (
        linear(A.float(), B.t(), torch.ones(4), 1.0),
        RuntimeError,
        "expected input_scale to be of size [1], but got [4]",
    ),
    "weight_scale of nan": (linear(A, B.t(), 1.0, math.nan), ValueError, "weight_scale must be positive and finite"),
    "weight_scale by features": (
        linear(A, B.t(), 1.0, torch.ones(6)),
        RuntimeError,
        "[1] or [5] or [5, 1], but got [6]",
    ),
    "conv's weight_scale": (conv(weight_scale=torch.ones(4)), RuntimeError, "[1] or [6] or [6, 1, 1, 1], but got [4]"),
    "conv's input_scale": (conv(input_scale=torch.ones(2)), RuntimeError, "input_scale to be of size [1], but got [2]"),
    "conv's input_scale below 0": (conv(input_scale=-1), ValueError, "input_scale must be positive and finite"),
    "conv's floating input": (conv(X.float(), W), ValueError, "an input of torch.float32 needs input_scale"),
}

REST: dict[str, Case] = {
    "zero_point_a": (gemm(zero_point_a=128), ValueError, "zero_point_a must be -128 to 127 for torch.int8, but got"),
    "zero_point_b": (gemm(zero_point_b=-129), ValueError, "zero_point_b=-129"),
    "zero_point_a of uint8": (
        lambda: F.int8_gemm(A.to(U8), B, zero_point_a=-1),
        ValueError,
        "must be 0 to 255 for torch.uint8, but got zero_point_a=-1",
    ),
    "zero_point_a of a float": (gemm(zero_point_a=1.5), TypeError, "argument 'zero_point_a' must be int, not float"),
    "zero_point_a of int64": (
        gemm(zero_point_a=torch.ones(4).long()),
        RuntimeError,
        "zero_point_a to be of dtype torch.int32",
    ),
    "zero_point_a with 200": (
        gemm(zero_point_a=torch.tensor([0, 0, 200, 0], dtype=I32)),
        ValueError,
        "zero_point_a=200",
    ),
    "zero_point_b by rows": (
        gemm(zero_point_b=torch.ones(4, dtype=I32)),
        RuntimeError,
        "expected zero_point_b to be of size",
    ),
    "input_zero_point": (linear(A, B.t(), 1.0, 1.0, input_zero_point=300), ValueError, "input_zero_point=300"),
    "dynamic input_zero_point": (
        linear(A.float(), B.t(), None, 1.0, input_zero_point=3),
        ValueError,
        "input_zero_point=3 needs input_scale",
    ),
    "conv's input_zero_point": (conv(input_zero_point=-200), ValueError, "input_zero_point=-200"),
    "conv's input_zero_point of a float": (conv(input_zero_point=0.5), TypeError, "input_zero_point=0.5"),
    "bias by rows": (gemm(bias=torch.ones(4)), RuntimeError, "expected bias to be of size [5], but got [4]"),
    "bias of fp16": (
        gemm(bias=torch.ones(5).half()),
        RuntimeError,
        "bias to be of dtype torch.float32, but got torch.float16",
    ),
    "bias of a number": (gemm(bias=1.0), TypeError, "argument 'bias' must be Tensor or None, not float"),
    "bias elsewhere": (gemm(bias=torch.ones(5, device="meta")), RuntimeError, "but got a on cpu and bias on meta"),
    "b elsewhere": (lambda: F.int8_gemm(A, B.to("meta")), RuntimeError, "but got a on cpu and b on meta"),
    "conv's weight elsewhere": (conv(X, W.to("meta")), RuntimeError, "but got input on cpu and weight on meta"),
    "residual's size": (
        gemm(residual=torch.ones(5)),
        RuntimeError,
        "expected residual to be of size [4, 5], but got [5]",
    ),
    "residual of fp64": (
        gemm(residual=torch.ones(4, 5).double()),
        RuntimeError,
        "residual to be of dtype float32, float16",
    ),
    "residual of a number": (gemm(residual=2), TypeError, "argument 'residual' must be Tensor or None, not int"),
    "residual elsewhere": (gemm(residual=torch.ones(4, 5, device="meta")), RuntimeError, "residual on meta"),
    "residual of int8 without a scale": (
        gemm(residual=torch.ones(4, 5, dtype=I8)),
        TypeError,
        "'residual_scale' must be float for a residual of torch.int8",
    ),
    "residual_scale of nan": (
        gemm(residual=torch.ones(4, 5, dtype=I8), residual_scale=math.nan),
        ValueError,
        "residual_scale must be positive",
    ),
    "residual_zero_point": (
        gemm(residual=torch.ones(4, 5, dtype=U8), residual_scale=1.0, residual_zero_point=-1),
        ValueError,
        "residual_zero_point must be 0 to 255 for torch.uint8, but got residual_zero_point=-1",
    ),
    "residual_scale for nothing": (
        gemm(residual_scale=1.0),
        ValueError,
        "residual_scale=1.0 is for a residual of int8",
    ),
    "residual_scale for floats": (
        gemm(residual=torch.ones(4, 5), residual_scale=2.0),
        ValueError,
        "but residual is torch.float32",
    ),
    "linear's residual": (
        linear(A, B.t(), 1.0, 1.0, residual=torch.ones(5, 4)),
        RuntimeError,
        "expected residual to be of size [4, 5], but got",
    ),
    "conv's residual": (
        conv(residual=torch.ones(2, 6, 5, 5)),
        RuntimeError,
        "expected residual to be of size [2, 6, 3, 3]",
    ),
    "conv's weight_sum": (
        conv(weight_sum=torch.ones(6)),
        RuntimeError,
        "weight_sum to be of dtype torch.int32, but got",
    ),
    "linear's weight_sum": (
        linear(A, B.t(), 1.0, 1.0, weight_sum=torch.ones(4, dtype=I32)),
        RuntimeError,
        "weight_sum to be of size [5]",
    ),
    "activation": (gemm(activation="swish"), ValueError, "but got 'swish'"),
    "activation of a number": (gemm(activation=1), TypeError, "argument 'activation' must be str or None, not int"),
    "negative_slope": (gemm(activation="leaky_relu", negative_slope="x"), TypeError, "'negative_slope' must be float"),
    "out_dtype of fp64": (gemm(out_dtype=torch.float64), ValueError, "out_dtype=torch.float64"),
    "out_dtype of a name": (gemm(out_dtype="int8"), TypeError, "argument 'out_dtype' must be torch.dtype, not str"),
    "int8 without out_scale": (gemm(out_dtype=I8), ValueError, "out_dtype=torch.int8 needs out_scale"),
    "out_scale of a float": (
        gemm(out_dtype=F16, out_scale=1.0),
        ValueError,
        "out_scale=1.0 is for out_dtype int8 or uint8",
    ),
    "out_zero_point of a float": (
        gemm(out_dtype=F16, out_zero_point=0),
        ValueError,
        "out_zero_point=0 is for out_dtype",
    ),
    "out_zero_point": (gemm(out_scale=1.0, out_zero_point=128), ValueError, "out_zero_point=128"),
    "out_zero_point of uint8": (
        gemm(out_scale=1.0, out_dtype=U8, out_zero_point=-1),
        ValueError,
        "must be 0 to 255 for torch.uint8",
    ),
    **{
        f"int32 with {name}": (gemm(out_dtype=I32, **{name: value}), ValueError, "out_dtype=torch.int32 gives the sums")
        for name, value in (
            ("scale_a", 1.0),
            ("scale_b", torch.ones(5)),
            ("bias", torch.ones(5)),
            ("activation", "relu"),
            ("residual", torch.ones(4, 5)),
            ("out_scale", 1.0),
            ("out_zero_point", 0),
        )
    },
}

ALL = OPERANDS | SCALES | REST


@pytest.mark.parametrize("name", ["cuda", "reference"])
@pytest.mark.parametrize(("call", "error", "words"), ALL.values(), ids=[label.replace(" ", "_") for label in ALL])
def test_error(recorded, name: str, call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with use_backend(name), pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error
    assert words in str(raised.value)
    assert not recorded


GRADIENTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "scale_a": lambda one: F.int8_gemm(A, B, scale_a=one[:1]),
    "scale_b": lambda one: F.int8_gemm(A, B, scale_b=one[:1]),
    "bias": lambda one: F.int8_gemm(A, B, bias=one),
    "residual": lambda one: F.int8_gemm(A, B, residual=one.expand(4, 5)),
    "out_scale": lambda one: F.int8_gemm(A, B, out_scale=one[:1]),
    "input": lambda one: F.int8_linear(one, B, 1.0, 1.0),
    "input_scale": lambda one: F.int8_conv2d(X, W, input_scale=one[:1]),
    "weight_scale": lambda one: F.int8_linear(A, B.t(), None, one),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_refused(recorded, name: str) -> None:
    """And what asks for none is served."""
    wants = torch.ones(5, requires_grad=True)
    with use_backend("cuda"):
        with pytest.raises(RuntimeError, match=f"{name} requires grad, .* torch.no_grad.*quantization-aware training"):
            GRADIENTS[name](wants)
        assert not recorded
        with torch.no_grad():
            GRADIENTS[name](wants)
        GRADIENTS[name](wants.detach())
    assert [call.name for call in recorded if call.name in ("int8_gemm", "int8_conv")] != []


def test_the_size_of_out(recorded) -> None:
    with (
        use_backend("cuda"),
        pytest.raises(RuntimeError, match=r"expected out to be of size \[4, 5\], but got \[5, 4\]"),
    ):
        F.int_mm(A, B, out=torch.ones(5, 4, dtype=I32))


def test_a_floating_operand_is_no_reason_to_fall_back(recorded) -> None:
    """Not even where the choice is free: PyTorch's operators would give another result."""
    with use_backend("auto"), pytest.raises(RuntimeError, match="expected a to be of dtype int8 or uint8"):
        F.int8_gemm(A.half(), B.half())


def test_scales_on_a_gpu_are_not_looked_at(recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is anything else: on meta there is nothing to look at."""
    a, b = A.to("meta"), B.to("meta")
    with use_backend("cuda"):
        c = F.int8_gemm(
            a, b, scale_a=torch.ones(4, device="meta"), zero_point_b=torch.ones(1, 5, dtype=I32, device="meta")
        )
    assert c.shape == (4, 5) and c.dtype is torch.float32 and c.device.type == "meta"
