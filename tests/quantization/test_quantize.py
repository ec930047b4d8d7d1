"""quantize_per_tensor, per_channel, per_token and dequantize: memory, groups, errors, and whoever looks on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cnnkernels import functional as F
from cnnkernels import use_backend

NCHW, NHWC = torch.contiguous_format, torch.channels_last


def expected(x: Tensor, scale: Tensor, zero_point: Tensor | int = 0, dtype: torch.dtype = torch.int8) -> Tensor:
    limits = torch.iinfo(dtype)
    steps = torch.round(x.float() * (1 / scale)).nan_to_num(0.0) + zero_point
    return steps.clamp(limits.min, limits.max).to(dtype)


def scale_of(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.float().abs().amax(axes, keepdim=True) / torch.full((), 127.0)


def random(*size: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return (torch.randn(size, generator=torch.Generator().manual_seed(sum(size))) * 5).to(dtype).to(device)


@pytest.mark.parametrize("memory_format", [NCHW, NHWC], ids=["nchw", "nhwc"])
def test_every_axis(backend, device, memory_format) -> None:
    x = random(2, 5, 3, 4, device=device).to(memory_format=memory_format)
    with use_backend(backend):
        for axis in (0, 1, 2, 3, -1):
            others = tuple(i for i in range(4) if i != axis % 4)
            scale = scale_of(x.cpu(), others)
            q, found = F.quantize_per_channel(x, axis)
            assert torch.equal(found.cpu(), scale.flatten())
            assert torch.equal(q.cpu(), expected(x.cpu(), scale))
            zero_points = torch.arange(x.shape[axis], dtype=torch.int32)
            unsigned, given = F.quantize_per_channel(x, axis, found, zero_points.to(device), torch.uint8)
            shape = [-1 if i == axis % 4 else 1 for i in range(4)]
            assert given is found
            assert torch.equal(unsigned.cpu(), expected(x.cpu(), scale, zero_points.view(shape), torch.uint8))
            y = F.dequantize(unsigned, found, zero_points.to(device), axis)
            assert torch.equal(y.cpu(), (unsigned.cpu().int() - zero_points.view(shape)).float() * scale)
            assert q.is_contiguous(memory_format=memory_format)
            assert unsigned.is_contiguous(memory_format=memory_format)
            assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=["fp64", "fp16", "bf16"])
def test_tensor_and_tokens(backend, device, dtype: torch.dtype) -> None:
    x = random(3, 4, 21, dtype=dtype, device=device)
    cpu = x.cpu()
    with use_backend(backend):
        q, scale = F.quantize_per_tensor(x)
        assert scale.shape == ()
        assert torch.equal(scale.cpu(), scale_of(cpu, (0, 1, 2)).view(()))
        assert torch.equal(q.cpu(), expected(cpu, scale.cpu()))
        tokens, scales = F.quantize_per_token(x)
        assert scales.shape == (3, 4, 1)
        assert torch.equal(scales.cpu(), scale_of(cpu, (2,)))
        assert torch.equal(tokens.cpu(), expected(cpu, scales.cpu()))
        for integers, by in ((q, scale), (tokens, scales)):
            y = F.dequantize(integers, by, dtype=dtype)
            assert y.dtype is dtype
            assert torch.equal(y.cpu(), (integers.cpu().float() * by.cpu()).to(dtype))
            error = (y.cpu().double() - cpu.double()).abs()
            assert (error <= by.cpu() * 0.51 + cpu.double().abs() * torch.finfo(dtype).eps).all()
        static, number = F.quantize_per_tensor(x, 0.1, 100, torch.uint8)
        assert number == 0.1
        assert torch.equal(static.cpu(), expected(cpu, torch.tensor(0.1), 100, torch.uint8))
        one = torch.tensor([7], dtype=torch.int32, device=device)
        static, _ = F.quantize_per_channel(x, 2, 0.1, one)
        assert torch.equal(static.cpu(), expected(cpu, torch.tensor(0.1), 7))


def test_views(backend, device) -> None:
    """Offset, strided, expanded and transposed inputs, and one without dimensions."""
    base = random(9, 10, 11, device=device)
    with use_backend(backend):
        for x in (base[1:], base[:, ::2], base[0].t(), base[:, :1].expand(9, 4, 11), base[0, 0, 0], base[:, 3:7, 1:]):
            q, scale = F.quantize_per_tensor(x)
            cpu = x.cpu()
            assert q.shape == x.shape
            assert torch.equal(q.cpu(), expected(cpu, scale.cpu()))
            assert torch.equal(F.dequantize(q, 0.5, 3).cpu(), (q.cpu().int() - 3) * 0.5)
            assert torch.equal(
                F.dequantize(q.t() if q.dim() == 2 else q, 0.5).cpu().flatten().sum(), q.cpu().sum() * 0.5
            )


def test_empty(backend, device) -> None:
    with use_backend(backend):
        q, scale = F.quantize_per_tensor(torch.empty(0, 3, device=device))
        assert q.shape == (0, 3) and scale.item() == 1
        q, scale = F.quantize_per_channel(torch.empty(4, 0, device=device))
        assert q.shape == (4, 0) and scale.tolist() == [1] * 4
        q, scale = F.quantize_per_token(torch.empty(2, 0, 5, device=device))
        assert q.shape == (2, 0, 5) and scale.shape == (2, 0, 1)
        assert F.dequantize(q, 0.5).shape == (2, 0, 5)


@pytest.mark.filterwarnings("ignore:.* encountered in")  # Triton's interpreter computes in numpy
def test_what_dynamic_scales_give_is_taken_back(backend, device) -> None:
    """The way there and back of infinities, subnormals, zeros and NaN, and into a product: an infinity stays one."""
    x = torch.tensor([[math.inf, 1.0, -math.inf], [1e-45, 0.0, -2e-38], [0.0] * 3, [math.nan, 2.0, -254.0]])
    there = torch.tensor([[math.inf, 0.0, -math.inf], [0.0, 0.0, -2.0 * 2.0**-126], [0.0] * 3, [0.0, 2.0, -254.0]])
    x, w = x.to(device), torch.tensor([[2, -1, 0], [0, 0, 3]], dtype=torch.int8, device=device)
    with use_backend(backend):
        q, scale = F.quantize_per_token(x)
        assert torch.equal(F.dequantize(q, scale).cpu(), there)
        q, scales = F.quantize_per_channel(x, 0)
        assert torch.equal(F.dequantize(q, scales, axis=0).cpu(), there)
        for i in range(4):
            q, one = F.quantize_per_tensor(x[i])
            assert torch.equal(F.dequantize(q, one).cpu(), there[i])
        y = F.int8_linear(x, w, None, 1.0).cpu()
        assert torch.equal(y, F.int8_linear(F.quantize_per_token(x)[0], w, scale, 1.0).cpu())
    assert y.tolist() == [[math.inf, -math.inf], [0.0, -6.0 * 2.0**-126], [0.0, 0.0], [-2.0, -762.0]]


def test_a_call_is_a_kernel(recorded, device) -> None:
    """Numbers are passed by value, and the backend asked for is the one that is called."""
    for name in ("cuda", "triton"):
        recorded.clear()
        with use_backend(name):
            F.quantize_per_tensor(torch.ones(2, 3, device=device), 0.5, 3)
            F.dequantize(torch.ones(2, 3, dtype=torch.int8, device=device), 0.5, 3)
            F.quantize_per_token(torch.ones(2, 3, device=device))
        assert [(call.backend, call.name) for call in recorded] == [
            (name, "quantize"),
            (name, "dequantize"),
            (name, "quantize"),
        ]
        assert recorded[0].arguments[2:] == (0.5, 3) == recorded[1].arguments[2:]
        assert recorded[2].arguments[3:] == (0, True)


X, Q = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int8)
INT = torch.tensor([1, 2, 300], dtype=torch.int32)
ERRORS = [
    (lambda: F.quantize_per_tensor(X, 0.0), ValueError, "scale must be positive and finite.*0.0"),
    (lambda: F.quantize_per_tensor(X, -1.0), ValueError, "scale.*-1.0"),
    (lambda: F.quantize_per_tensor(X, math.nan), ValueError, "scale.*nan"),
    (lambda: F.quantize_per_tensor(X, math.inf), ValueError, "scale.*inf"),
    (lambda: F.quantize_per_tensor(X, 1e-46), ValueError, "scale.*1e-46"),
    (lambda: F.quantize_per_tensor(X, torch.tensor([math.nan])), ValueError, "scale.*nan"),
    (lambda: F.quantize_per_tensor(X, torch.tensor([-2.0])), ValueError, "scale.*-2.0"),
    (lambda: F.quantize_per_tensor(X, torch.ones(3)), RuntimeError, r"scale to be of size \[1\].*\[3\]"),
    (lambda: F.quantize_per_tensor(X, torch.ones(1).double()), RuntimeError, "scale.*float32.*float64"),
    (lambda: F.quantize_per_tensor(X, "1"), TypeError, "scale.*str"),
    (lambda: F.quantize_per_tensor(X, 1.0, 128), ValueError, "zero_point=128"),
    (lambda: F.quantize_per_tensor(X, 1.0, -1, torch.uint8), ValueError, "zero_point=-1"),
    (lambda: F.quantize_per_tensor(X, 1.0, 0.5), TypeError, "zero_point.*float"),
    (lambda: F.quantize_per_tensor(X, 1.0, 0, torch.int16), ValueError, "dtype=torch.int16"),
    (lambda: F.quantize_per_tensor(X, None, 1), ValueError, "zero_point=1 needs a scale"),
    (lambda: F.quantize_per_tensor(X, dtype=torch.uint8), ValueError, "dtype=torch.uint8 needs a scale"),
    (lambda: F.quantize_per_tensor(X.int()), RuntimeError, "input.*torch.int32"),
    (lambda: F.quantize_per_tensor([1.0]), TypeError, "input.*list"),
    (lambda: F.quantize_per_channel(X, 2), IndexError, "got 2"),
    (lambda: F.quantize_per_channel(X, 1, torch.ones(2)), RuntimeError, r"scale to be of size.*\[3\].*\[2\]"),
    (lambda: F.quantize_per_channel(X, 1, torch.tensor([1.0, 0.0, 1.0])), ValueError, "scale.*0.0"),
    (lambda: F.quantize_per_channel(X, 1, torch.ones(3), INT), ValueError, "zero_point=300"),
    (lambda: F.quantize_per_channel(X, 1, torch.ones(3), INT.long()), RuntimeError, "zero_point.*int32.*int64"),
    (lambda: F.quantize_per_token(torch.ones(())), RuntimeError, r"size \[\]"),
    (lambda: F.dequantize(X, 1.0), RuntimeError, "q to be of dtype int8 or uint8.*float32"),
    (lambda: F.dequantize(Q, None), TypeError, "scale.*NoneType"),
    (lambda: F.dequantize(Q, 1.0, dtype=torch.int32), ValueError, "dtype=torch.int32"),
    (lambda: F.dequantize(Q, torch.ones(3)), RuntimeError, r"scale to be of size \[1\] or \[2, 1\].*\[3\]"),
    (lambda: F.dequantize(Q, torch.ones(3), axis=-3), IndexError, "got -3"),
    (lambda: F.quantize_per_tensor(X.clone().requires_grad_()), RuntimeError, "input requires grad"),
    (lambda: F.dequantize(Q, torch.ones(1, requires_grad=True)), RuntimeError, "scale requires grad"),
]  # fmt: skip


@pytest.mark.parametrize("call, kind, message", ERRORS, ids=[str(i) for i in range(len(ERRORS))])
def test_errors(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def chain(x: Tensor, scale: Tensor, zero_point: Tensor) -> tuple[Tensor, ...]:
    q, found = F.quantize_per_channel(x, 1)
    u, _ = F.quantize_per_channel(x, 1, scale, zero_point, torch.uint8)
    t, scales = F.quantize_per_token(x)
    s, _ = F.quantize_per_tensor(x, 0.1, 3)
    tensors = F.dequantize(q, found, axis=1), F.dequantize(u, scale, zero_point, 1), F.dequantize(t, scales)
    return (*tensors, F.dequantize(s, 0.1, 3, dtype=torch.float16))


@pytest.mark.parametrize("memory_format", [NCHW, NHWC], ids=["nchw", "nhwc"])
def test_compile(kernel_backend, device, memory_format) -> None:
    torch.compiler.reset()
    x = random(2, 3, 4, 5, device=device).to(memory_format=memory_format)
    scale = torch.tensor([0.1, 0.2, 0.3], device=device)
    zero_point = torch.tensor([0, 1, 128], dtype=torch.int32, device=device)
    with use_backend(kernel_backend):
        eager = chain(x, scale, zero_point)
        compiled = torch.compile(chain, fullgraph=True, backend="aot_eager")(x, scale, zero_point)
    for ours, theirs in zip(compiled, eager, strict=True):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()


def test_vmap(device) -> None:
    x = random(4, 3, 5, device=device)
    q, scale = torch.func.vmap(lambda t: F.quantize_per_channel(t, 0))(x)
    y = torch.func.vmap(lambda t, s: F.dequantize(t, s, axis=0))(q, scale)
    for i in range(4):
        alone, its_scale = F.quantize_per_channel(x[i], 0)
        assert torch.equal(q[i], alone) and torch.equal(scale[i], its_scale)
        assert torch.equal(y[i], F.dequantize(alone, its_scale, axis=0))
