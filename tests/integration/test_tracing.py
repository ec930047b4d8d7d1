"""Whoever looks on: torch.compile, torch.export, opcheck, torch.func, autocast, modes and checkpoints."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

from cnnkernels import functional, use_backend
from cnnkernels.testing.numerics import small_integers

OPS = torch.ops.cnnkernels
NCHW, NHWC = torch.contiguous_format, torch.channels_last
formats = pytest.mark.parametrize("memory_format", [NCHW, NHWC], ids=["nchw", "nhwc"])


def integers(shape: tuple[int, ...], device: str, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return small_integers(shape, dtype, seed).to(device)


class Net(nn.Module):
    """Two convolutions and two poolings by the functions of a namespace, from the same integer weights."""

    def __init__(self, namespace, device: str) -> None:
        super().__init__()
        self.namespace = namespace
        self.first = nn.Parameter(integers((4, 2, 3, 3), device, 1))
        self.second = nn.Parameter(integers((4, 2, 2, 2), device, 2))
        self.bias = nn.Parameter(integers((4,), device, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.namespace
        x = f.max_pool2d(f.conv2d(x, self.first, self.bias, padding="same"), 2)
        return f.max_pool2d(f.conv2d(x, self.second, None, 1, 1, 1, 2), 3, 2, ceil_mode=True, return_indices=True)


def agrees(net: nn.Module, traced, x: Tensor) -> None:
    """Values, indices and gradients of the traced net are PyTorch's, and each gradient has its tensor's strides."""
    theirs = Net(F, x.device.type)
    results = []
    for call, module in ((theirs, theirs), (traced, net)):
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        values, indices = call(leaf)
        grads = torch.autograd.grad((values * values).sum(), (leaf, *module.parameters()))
        results.append((values, indices, *grads))
        for tensor, gradient in zip((leaf, *module.parameters()), grads, strict=True):
            # PyTorch's own have the layout of the computation instead
            assert module is theirs or gradient.stride() == tensor.stride()
    for ours, expected in zip(results[1], results[0], strict=True):
        assert torch.equal(ours, expected)


@formats
def test_compile(kernel_backend, device, memory_format) -> None:
    torch.compiler.reset()
    net = Net(functional, device)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with use_backend(kernel_backend):
        agrees(net, compiled, integers((2, 2, 6, 7), device, 4).to(memory_format=memory_format))


def test_compile_with_inductor_and_dynamic_batches(device) -> None:
    """Inductor keeps the operators' strides; one graph serves every batch."""
    torch.compiler.reset()
    net = Net(functional, device)
    compiled = torch.compile(net, fullgraph=True, dynamic=True)
    with use_backend("cuda"):
        for batch in (3, 2):
            agrees(net, compiled, integers((batch, 2, 6, 7), device, batch).to(memory_format=NHWC))


def test_compiled_code_follows_the_scope(recorded, device) -> None:
    torch.compiler.reset()
    weight = torch.zeros(1, 1, 2, 2, device=device)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def call(x: Tensor) -> Tensor:
        with use_backend("triton"):
            inner = functional.conv2d(x, weight)
        return inner + functional.conv2d(x, weight)

    x = torch.zeros(1, 1, 3, 3, device=device)
    for scope in ("cuda", "triton", "cuda"):
        recorded.clear()
        with use_backend(scope):
            call(x)
        assert [name for name, *_ in recorded] == ["triton", scope]
    with use_backend("reference"):
        recorded.clear()
        call(x)
    assert [name for name, *_ in recorded] == ["triton"]


@pytest.mark.parametrize("strict", [False, True])
def test_export(device, strict: bool) -> None:
    """A batch of any size, through a file, by the names of the operators."""
    net = Net(functional, device).eval()
    batch = {"x": {0: torch.export.Dim("batch", min=2, max=64)}}
    x = integers((2, 2, 6, 7), device, 4)
    with use_backend("cuda"):
        program = torch.export.export(net, (x,), dynamic_shapes=batch, strict=strict)
    called = [str(node.target) for node in program.graph.nodes if "cnnkernels" in str(node.target)]
    assert called == [
        "cnnkernels.conv_forward.default",
        "cnnkernels.max_pool_forward.default",
        "cnnkernels.conv_forward.default",
        "cnnkernels.max_pool_forward.default",
        "cnnkernels.max_pool_indices.default",
    ]
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    wider = integers((3, 2, 6, 7), device, 5)
    for ours, theirs in zip(loaded(wider), Net(F, device)(wider), strict=True):
        assert torch.equal(ours, theirs)


def operator_calls(memory_format: torch.memory_format, device: str, backend: str):  # type: ignore[no-untyped-def]
    """One call of every operator, by name."""
    x = torch.randn(2, 4, 5, 5, device=device).to(memory_format=memory_format).requires_grad_()
    w = torch.randn(6, 2, 3, 3, device=device).to(memory_format=memory_format).requires_grad_()
    conv = ([2, 1], [1, 1, 1, 2], [1, 1], 2, backend)
    y = torch.randn(2, 6, 3, 6, device=device).to(memory_format=memory_format).requires_grad_()
    pool = ([2, 2], [2, 1], [1, 0], [1, 1], True, backend)
    averages = ([2, 2], [2, 1], [1, 0], True, False, None, backend)
    places = torch.randint(2, 4, (2, 4, 3, 4), dtype=torch.uint8, device=device).to(memory_format=memory_format)
    pooled = torch.randn(2, 4, 3, 4, device=device).to(memory_format=memory_format).requires_grad_()
    indices = torch.arange(12, device=device).view(3, 4).expand(2, 4, 3, 4).contiguous(memory_format=memory_format)
    first = torch.randn(8, 1, 3, 3, device=device).to(memory_format=memory_format).requires_grad_()
    second = torch.randn(6, 8, 1, 1, device=device).requires_grad_()
    biases = [torch.randn(size, device=device, requires_grad=True) for size in (8, 6)]
    pair = ([2, 1], [1, 1, 1, 2], [1, 1], 4)
    a, b = (torch.randint(-128, 128, size, dtype=torch.int8, device=device) for size in ((2, 4, 5, 5), (6, 4, 3, 3)))
    epilogue = (None, torch.rand(6, device=device), *[None] * 6, 0.5, 1.0, 3, 0, 2.0, 1.0, 0, "relu", 0.1, -4)
    integers_of = torch.rand(4, device=device), 1.0, torch.ones(4, dtype=torch.int32, device=device), 0, "channel", 1
    images = a.to(memory_format=memory_format)
    statistics = torch.zeros(4, device=device), torch.ones(4, device=device)
    numbers = [torch.randn(4, device=device, requires_grad=True) for _ in range(2)]
    residual = torch.randn_like(x).requires_grad_()
    normalized = (True, 1e-5, "relu", 0.0, backend)
    return {
        "quantize": (x.detach(), *integers_of, torch.uint8, backend),
        "quantize_dynamic": (x.detach(), "channel", 1, backend),
        "dequantize": (images, *integers_of, torch.float16, backend),
        "int8_max_pool": (images, *pool),
        "int8_avg_pool": (images, *pool[:-1], 3, False, None, backend),
        "int8_gemm": (a.view(20, 10), b.view(36, 6)[:10], *epilogue, torch.int8, "reference"),
        "int8_conv": (a, b, *conv[:3], 1, *epilogue, torch.float16, "reference"),
        "int8_weight_only_linear": (x.detach()[0, 0], b.view(8, 27)[:6, :5], *epilogue, torch.float16, "reference"),
        "pad_border": (x, [1, 2, 2, 1], "reflect"),
        "fold_border": (x, [1, 1, 0, 1], "circular"),
        "depthwise_separable_conv_forward": (x, first, second, *biases, True, *pair, "silu", "relu", 0.1, backend),
        "depthwise_separable_conv_intermediate": (x, first, biases[0], *pair, backend),
        "depthwise_separable_conv_backward": (
            *(y.detach(), x.detach(), first.detach(), second.detach(), None, None, True, True, (2, 8, 3, 6)),
            *(torch.empty(2, 8, 3, 6).to(memory_format=memory_format).stride(), second.shape, second.stride()),
            *(*pair, "silu", 0.1, backend),
        ),
        "conv_forward": (x, w, torch.randn(6, device=device, requires_grad=True), *conv),
        "conv_epilogue_forward": (
            *(x, w),
            *(torch.randn(6, device=device, requires_grad=True) for _ in range(3)),
            *(y, "silu", 0.1),
            *conv,
        ),
        "conv_transpose_forward": (
            *(y, w),
            *(torch.randn(4, device=device, requires_grad=True) for _ in range(3)),
            *(x, "silu", 0.1),
            *conv,
        ),
        "conv_backward_input": (y, w, x.shape, x.stride(), *conv),
        "conv_backward_weight": (y, x, w.shape, w.stride(), *conv),
        "conv_backward_bias": (y, backend),
        "max_pool_forward": (x, *pool),
        "max_pool_backward": (pooled, places, x.shape, x.stride(), *pool),
        "max_pool_gather": (x, places, *pool),
        "max_pool_indices": (places, x.shape, *pool),
        "max_unpool_forward": (pooled, indices, (5, 5), backend),
        "avg_pool_forward": (x, *averages),
        "avg_pool_backward": (pooled, x.shape, x.stride(), *averages),
        "adaptive_avg_pool_forward": (x, (3, 4), backend),
        "adaptive_avg_pool_backward": (pooled, x.shape, x.stride(), (3, 4), backend),
        "batch_norm_forward": (x, *statistics, *numbers, residual, *normalized),
        "batch_norm_backward": (
            *(residual.detach(), x.detach(), *statistics, *(n.detach() for n in numbers), None, None, *normalized),
            *(True, True, True, False, x.stride(), x.stride()),
        ),
        "batch_norm_statistics": (x, backend),
        "batch_norm_track": (x.detach(), *statistics, 0.5, backend),
        "batch_norm_sums": (x, residual, statistics[0], backend),
        "batch_norm_combine": (x, residual, None, numbers[0], statistics[0], numbers[1], numbers[0], None, backend),
        "max_unpool_backward": (x, indices, pooled.stride(), backend),
    }


@pytest.mark.parametrize("name", operator_calls(NCHW, "cpu", "cuda"))
@formats
def test_opcheck(device, name: str, memory_format) -> None:
    """Schema, registration of the derivative, fake strides, and the derivative under tracing with dynamic shapes."""
    torch.library.opcheck(getattr(OPS, name).default, operator_calls(memory_format, device, "cuda")[name])


def test_every_operator_is_checked() -> None:
    """But for overloads: what torch.jit.trace records (test_torchscript.py)."""
    names = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("cnnkernels::")}
    assert {name.removeprefix("cnnkernels::").removesuffix(".traced") for name in names} == set(
        operator_calls(NCHW, "cpu", "cuda")
    )


@pytest.mark.parametrize(
    "dims", [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0), (0, 0, None), (1, 2, 1)]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_vmap_of_conv_and_its_gradients(device, dims: tuple[int | None, ...], groups: int) -> None:
    """Sample by sample, whichever arguments have samples."""
    shapes = (2, 4, 4, 5), (6, 4 // groups, 3, 3), (6,)
    args = []
    for seed, (shape, dim) in enumerate(zip(shapes, dims, strict=True)):
        batched = integers((3, *shape), device, seed, torch.float64)
        args.append(batched[0] if dim is None else batched.movedim(0, dim))

    def loss(conv2d):  # type: ignore[no-untyped-def]
        return lambda x, w, b: (conv2d(x, w, b, 2, 1, 1, groups) ** 2).sum()

    with use_backend("cuda"):
        ours = vmap(lambda x, w, b: functional.conv2d(x, w, b, 2, 1, 1, groups), dims)(*args)
        assert torch.equal(ours, vmap(lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, groups), dims)(*args))
        ours = vmap(grad(loss(functional.conv2d), (0, 1, 2)), dims)(*args)
    for mine, theirs in zip(ours, vmap(grad(loss(F.conv2d), (0, 1, 2)), dims)(*args), strict=True):
        assert torch.equal(mine, theirs)


def test_vmap_of_pooling(device) -> None:
    x = torch.randperm(3 * 2 * 2 * 36, device=device).double().view(3, 2, 2, 6, 6)

    def loss(f):  # type: ignore[no-untyped-def]
        def call(x: Tensor) -> Tensor:
            values, indices = f.max_pool2d(x, 2, 2, return_indices=True)
            averages = (f.avg_pool2d(x, 4, 2, 2) ** 2).sum() + (f.adaptive_avg_pool2d(x, (3, 6)) ** 2).sum()
            pooled = (f.max_unpool2d(values, indices, 2) ** 2).sum() + (f.max_pool2d(x, 3, 2, 1) ** 2).sum()
            return averages + pooled

        return call

    with use_backend("cuda"):
        assert torch.equal(vmap(loss(functional))(x), vmap(loss(F))(x))
        assert torch.equal(vmap(grad(loss(functional)))(x), vmap(grad(loss(F)))(x))


@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian], ids=["jacrev", "jacfwd", "hessian"])
def test_jacobians(device, transform) -> None:  # type: ignore[no-untyped-def]
    x, w = integers((1, 2, 3, 3), device, 1, torch.float64), integers((2, 2, 2, 2), device, 2, torch.float64)

    def cube(f):  # type: ignore[no-untyped-def]
        # the small term keeps the maxima apart
        apart = torch.arange(4.0, device=device).view(2, 2) / 64
        return lambda w: f.max_pool2d(f.conv2d(x, w) + apart, 2) ** 3

    with use_backend("cuda"):
        assert torch.equal(transform(cube(functional))(w), transform(cube(F))(w))


def test_forward_mode(kernel_backend, device) -> None:
    x, w = integers((1, 2, 4, 4), device, 1, torch.float64), integers((2, 2, 2, 2), device, 2, torch.float64)
    b = integers((2,), device, 3, torch.float64)
    with use_backend(kernel_backend):
        ours = jvp(functional.conv2d, (x, w, b), (x, w, b))
    assert all(torch.equal(a, b) for a, b in zip(ours, jvp(F.conv2d, (x, w, b), (x, w, b)), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_as_pytorch(device, dtype: torch.dtype) -> None:
    """conv2d computes in autocast's dtype, float64 and poolings in their own; gradients have their tensors' dtypes."""
    x, w = integers((1, 2, 4, 4), device, 1), integers((2, 2, 3, 3), device, 2)

    def dtypes(f) -> list[torch.dtype]:  # type: ignore[no-untyped-def]
        weight = w.clone().requires_grad_()
        with torch.autocast(device, dtype=dtype):
            y = f.conv2d(x, weight, torch.zeros(2, device=device), padding=1)
            values, indices = f.max_pool2d(y, 2, return_indices=True)
            found = [y.dtype, values.dtype, indices.dtype, f.max_unpool2d(values, indices, 2).dtype]
            found += [f.avg_pool2d(z, 2).dtype for z in (x, y, x.double())]
            found += [f.adaptive_avg_pool2d(z, size).dtype for z in (x, y) for size in (1, 2)]
            found += [f.max_pool2d(x, 2).dtype, f.conv2d(x.double(), w.double()).dtype]
            found += [f.conv2d(x.to(dtype), w).dtype]
            found += [f.batch_norm(z, None, None, training=True).dtype for z in (x, y, x.double())]
        y.float().sum().backward()
        return [*found, weight.grad.dtype]

    with use_backend("cuda"):
        assert dtypes(functional) == dtypes(F)


def test_autocast_of_the_operator_and_of_compiled_code(device) -> None:
    torch.compiler.reset()
    x, w = integers((1, 2, 4, 4), device, 1), integers((2, 2, 3, 3), device, 2).requires_grad_()
    compiled = torch.compile(functional.conv2d, fullgraph=True, backend="aot_eager")
    with use_backend("cuda"), torch.autocast(device, dtype=torch.bfloat16):
        assert compiled(x, w).dtype is torch.bfloat16
        direct = OPS.conv_forward(x, w, None, [1, 1], [0, 0, 0, 0], [1, 1], 1, "cuda")
    assert direct.dtype is torch.bfloat16
    direct.sum().backward()
    assert w.grad.dtype is torch.float32


def test_autocast_leaves_mixed_float64_an_error(device) -> None:
    x, w = integers((1, 2, 4, 4), device, 1), integers((2, 2, 3, 3), device, 2)
    with use_backend("cuda"), torch.autocast(device, dtype=torch.bfloat16), pytest.raises(RuntimeError, match="type"):
        functional.conv2d(x, w.double())


def test_traces_name_the_operator(device) -> None:
    x, w = integers((1, 1, 4, 4), device, 1), integers((1, 1, 2, 2), device, 2)

    def call(x: Tensor) -> Tensor:
        return functional.conv2d(x, w)

    with use_backend("cuda"):
        names = [str(node.target) for node in make_fx(call)(x).graph.nodes]
        assert "cnnkernels.conv_forward.default" in names
        assert functional.conv2d in [node.target for node in torch.fx.symbolic_trace(call).graph.nodes]
        traced = torch.jit.trace(call, (x,))
    assert torch.equal(traced(2 * x), F.conv2d(2 * x, w))


def test_checkpoint(device) -> None:
    net = Net(functional, device)

    def through_checkpoint(x: Tensor) -> tuple[Tensor, Tensor]:
        return checkpoint(net, x, use_reentrant=False)

    with use_backend("cuda"):
        agrees(net, through_checkpoint, integers((2, 2, 6, 7), device, 4))


def test_saved_tensor_hooks_see_what_is_saved(recorded) -> None:
    packed: list[torch.dtype] = []
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.dtype) or t, lambda t: t),
        use_backend("cuda"),
    ):
        functional.max_pool2d(x, 2)
    assert packed == [torch.uint8]


def test_deterministic_algorithms_need_nothing(device) -> None:
    net = Net(functional, device)
    torch.use_deterministic_algorithms(True)
    try:
        with use_backend("cuda"):
            agrees(net, net, integers((2, 2, 6, 7), device, 4))
    finally:
        torch.use_deterministic_algorithms(False)
