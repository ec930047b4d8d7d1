"""functional.depthwise_separable_conv2d and its layer: values, derivatives of any order, memory, tracing, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

import cnnkernels
from cnnkernels import functional, use_backend
from cnnkernels.activation import ACTIVATIONS
from cnnkernels.ops import depthwise_separable_conv as ops
from cnnkernels.testing.numerics import UNIT_ROUNDOFF, small_integers

NCHW, NHWC = torch.contiguous_format, torch.channels_last
formats = pytest.mark.parametrize("memory_format", [NCHW, NHWC], ids=["nchw", "nhwc"])
FAST = {"fast_mode": True}
SHAPES = (1, 2, 4, 3), (4, 1, 2, 3), (3, 4, 1, 1), (4,), (3,)  # a channel multiplier of 2
GEOMETRY: dict[str, Any] = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}


@pytest.fixture
def without_tf32() -> Iterator[None]:
    conv = torch.backends.cudnn.conv
    before, conv.fp32_precision = conv.fp32_precision, "ieee"
    yield
    conv.fp32_precision = before


def leaves(device: str, memory_format: torch.memory_format = NCHW, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in SHAPES]
    made = [t.contiguous(memory_format=memory_format) if t.dim() == 4 else t for t in made]
    return [t.requires_grad_() for t in made]


def call(backend: str, **options: Any) -> Callable[..., Tensor]:
    def run(*tensors: Tensor) -> Tensor:
        with use_backend(backend):
            return functional.depthwise_separable_conv2d(*tensors, **GEOMETRY, **options)

    return run


@formats
@pytest.mark.parametrize("save", [False, True], ids=["", "save"])
@pytest.mark.parametrize(("first", "second"), list(zip(ACTIVATIONS, [*ACTIVATIONS[3:], *ACTIVATIONS[:3]], strict=True)))
def test_first_and_second_derivative(device, first: str, second: str, save: bool, memory_format) -> None:
    options = {"depthwise_activation": first, "pointwise_activation": second, "save_intermediate": save}
    tensors, f = leaves(device, memory_format), call("cuda", **options)
    assert gradcheck(f, tensors, **FAST)
    if save or memory_format is NCHW:
        assert gradgradcheck(f, tensors, **FAST)


def test_every_axis(device) -> None:
    """The full Jacobians, tangents, and the batching rule under gradients."""
    f = call("cuda", depthwise_activation="silu", pointwise_activation="hardswish")
    assert gradcheck(f, leaves(device), check_batched_grad=True, check_forward_ad=True)


@formats
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_gradients_err_little_more_than_the_two_layers_own(
    device, without_tf32, dtype: torch.dtype, memory_format
) -> None:
    options = {"depthwise_activation": "hardswish", "pointwise_activation": "relu6"}

    def gradients(backend: str, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        y = call(backend, **options)(*tensors)
        return torch.autograd.grad(y, tensors, torch.ones_like(y))

    tensors = leaves(device, memory_format, dtype)
    exact = gradients("reference", [t.detach().double().requires_grad_() for t in tensors])
    theirs, ours = gradients("reference", tensors), gradients("cuda", tensors)
    for tensor, mine, their, true in zip(tensors, ours, theirs, exact, strict=True):
        assert mine.dtype is dtype and mine.stride() == tensor.stride()
        bound = 2 * (their - true).abs().max() + 4 * UNIT_ROUNDOFF[dtype] * true.abs().max()
        assert (mine - true).abs().max() <= bound


@pytest.mark.parametrize("second", ["none", "silu"])
def test_saving_the_intermediate_changes_no_bit(device, second: str) -> None:
    tensors = leaves(device, NHWC, torch.bfloat16)
    results = []
    for save in (False, True):
        y = call("cuda", depthwise_activation="gelu", pointwise_activation=second, save_intermediate=save)(*tensors)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), tensors)))
    for recomputed, saved in zip(*results, strict=True):
        assert torch.equal(recomputed, saved)


def saved_elements(f: Callable[[], Tensor], parameters: tuple[Tensor, ...]) -> int:
    """Elements kept for the backward pass, the parameters themselves not counted."""
    kept: dict[int, int] = {}
    known = {p.data_ptr() for p in parameters}

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in known:
            kept[t.data_ptr()] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        alive = f()
    assert alive.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("first", ["none", "relu", "silu"])
def test_memory_kept_for_the_backward_pass(device, first: str) -> None:
    """The input alone, where two layers keep the intermediate too, and beside a smooth activation twice."""
    x = torch.randn(2, 8, 6, 6, device=device)
    layer = cnnkernels.nn.DepthwiseSeparableConv2d(8, 4, 3, padding=1, depthwise_activation=first).to(device)
    parameters = tuple(layer.parameters())

    def kept(backend: str) -> int:
        layer.backend = backend
        return saved_elements(lambda: layer(x), parameters)

    size = x.numel()  # the intermediate is as large
    assert kept("cuda") == size
    assert kept("reference") == {"none": 2, "relu": 2, "silu": 3}[first] * size
    layer.save_intermediate = True
    assert kept("cuda") == 2 * size


def test_nothing_is_saved_that_nobody_needs(recorded) -> None:
    x, first, second, *_ = (torch.zeros(shape) for shape in SHAPES)

    def saved(*tensors: Tensor, **options: Any) -> list[int]:
        y = call("cuda", **options)(*tensors)
        return [t.data_ptr() for t in y.grad_fn.saved_tensors if t is not None]

    assert saved(x.requires_grad_(), first, second) == [first.data_ptr(), second.data_ptr()]
    x = x.detach()
    assert saved(x, first, second, None, torch.zeros(3, requires_grad=True)) == []
    assert saved(x, first, second.requires_grad_()) == [x.data_ptr(), first.data_ptr()]


def test_only_wanted_gradients_are_computed(recorded) -> None:
    tensors = [torch.zeros(shape) for shape in SHAPES]
    asked = "depthwise_separable_conv_fuses_backward"  # to which the recorder gives no answer
    names = asked, "depthwise_separable_conv_intermediate", "conv_backward_weight", "conv_backward_bias"
    wanted = {2: names[:3], 4: names[3:]}
    for place, expected in wanted.items():
        recorded.clear()
        leaf = [t.detach().requires_grad_(i == place) for i, t in enumerate(tensors)]
        call("cuda")(*leaf).sum().backward()
        assert [c.name for c in recorded[1:]] == list(expected)


def test_the_fused_backward_is_for_the_last_derivative(device, monkeypatch) -> None:
    """It has no derivative: whoever differentiates further, in whatever way, gets the composed one."""
    calls: list[tuple[bool, ...]] = []
    real = ops.depthwise_separable_conv_backward

    def spy(*arguments: Any) -> Any:
        calls.append((arguments[5] is not None, *arguments[6:8]))
        return real(*arguments)

    monkeypatch.setattr(ops, "depthwise_separable_conv_backward", spy)
    f = call("cuda", depthwise_activation="gelu", pointwise_activation="relu")
    tensors = leaves(device)
    torch.autograd.grad(f(*tensors).sum(), tensors)
    for place in (2, 1):
        f(*(t.detach().requires_grad_(i == place) for i, t in enumerate(tensors))).sum().backward()
    call("cuda", depthwise_activation="gelu", save_intermediate=True)(*tensors).sum().backward()
    assert calls == [(False, True, True), (False, False, True), (False, True, False), (True, True, True)]
    torch.autograd.grad(f(*tensors).sum(), tensors, create_graph=True)
    grad(lambda *t: f(*t).sum(), (0, 2))(*(t.detach() for t in tensors))
    with torch.autograd.forward_ad.dual_level():
        dual = [torch.autograd.forward_ad.make_dual(t, torch.ones_like(t)) for t in tensors]
        torch.autograd.grad(f(*dual).sum(), dual)
    assert len(calls) == 4
    without_middle = call("cuda")
    without_middle(tensors[0], *(t.detach() for t in tensors[1:])).sum().backward()  # needs no z: a plain product
    tensors = leaves(device, dtype=torch.float32)
    with_tf32 = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.autograd.grad(f(*tensors).sum(), tensors)
    torch.backends.cudnn.conv.fp32_precision = with_tf32
    assert len(calls) == 4


@pytest.mark.parametrize("dims", [(0, None, None, None, None), (1, 0, None, None, 0), (None, None, 0, None, None)])
def test_vmap(device, dims: tuple[int | None, ...]) -> None:
    """Sample by sample, whichever arguments have samples."""
    arguments = []
    for seed, (shape, dim) in enumerate(zip(SHAPES, dims, strict=True)):
        batched = small_integers((3, *shape), torch.float64, seed).to(device)
        arguments.append(batched[0] if dim is None else batched.movedim(0, dim))

    def loss(backend: str) -> Callable[..., Tensor]:
        return lambda *tensors: call(backend, depthwise_activation="relu")(*tensors).square().sum()

    for transform in (loss, lambda backend: grad(loss(backend), (0, 1, 2, 3, 4))):
        ours, theirs = (vmap(transform(backend), dims)(*arguments) for backend in ("cuda", "reference"))
        for mine, their in zip(*((r if isinstance(r, tuple) else (r,)) for r in (ours, theirs)), strict=True):
            assert torch.equal(mine, their)


@formats
@pytest.mark.parametrize("save", [False, True], ids=["", "save"])
def test_compile(device, save: bool, memory_format) -> None:
    torch.compiler.reset()
    f = call("cuda", depthwise_activation="relu", pointwise_activation="relu6", save_intermediate=save)
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    results = []
    for function in (f, compiled):
        tensors = [small_integers(shape, torch.float64, i).to(device) for i, shape in enumerate(SHAPES)]
        tensors[0] = tensors[0].contiguous(memory_format=memory_format)
        tensors = [t.requires_grad_() for t in tensors]
        y = function(*tensors)
        results.append((y, *torch.autograd.grad(y.square().sum(), tensors)))
    for eager, traced in zip(*results, strict=True):
        assert torch.equal(eager, traced) and eager.stride() == traced.stride()


def test_autocast(device) -> None:
    tensors = leaves(device, NCHW, torch.float32)
    with torch.autocast(device, dtype=torch.bfloat16):
        y = call("cuda")(*tensors)
        direct = torch.ops.cnnkernels.depthwise_separable_conv_forward(
            *tensors, False, [2, 1], [1, 1, 2, 2], [1, 2], 2, "none", "none", 0.01, "cuda"
        )[0]
    assert y.dtype is torch.bfloat16 and torch.equal(y, direct)
    y.float().sum().backward()
    assert all(t.grad.dtype is torch.float32 for t in tensors)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_words_and_unbatched_inputs(device, padding: str) -> None:
    x = small_integers((2, 5, 6), torch.float32, 1).to(device)
    first, second = (small_integers(shape, torch.float32, 2).to(device) for shape in ((2, 1, 3, 2), (5, 2, 1, 1)))
    ours, theirs = (
        use_backend(name)(functional.depthwise_separable_conv2d)(x, first, second, padding=padding)
        for name in ("cuda", "reference")
    )
    assert ours.shape[0] == 5 and torch.equal(ours, theirs)


def test_views_expanded_and_empty_inputs(device) -> None:
    tensors = leaves(device)
    wide = torch.randn(1, 4, 4, 3, device=device, dtype=torch.float64)
    for x in (wide[:, ::2], wide[:, :1].expand(3, 2, 4, 3), wide[:0, :2]):
        ours, theirs = (call(backend)(x, *tensors[1:]) for backend in ("cuda", "reference"))
        torch.testing.assert_close(ours, theirs)


def test_an_empty_batch_has_a_gradient_of_zeros(device) -> None:
    x, first, second, *_ = (t.detach() for t in leaves(device))
    y, z = torch.empty(0, 3, 5, 5), torch.empty(0, 4, 5, 5)
    error, gradient = torch.ops.cnnkernels.depthwise_separable_conv_backward(
        y.to(x), x[:0], first, second, None, None, True, True, z.shape, z.stride(), second.shape, second.stride(),
        [2, 1], [1, 1, 2, 2], [1, 2], 2, "relu", 0.01, "cuda",
    )  # fmt: skip
    assert error.shape == z.shape and torch.equal(gradient, torch.zeros_like(second))


def test_the_layer_has_two_convolutions_parameters(device) -> None:
    layer = cnnkernels.nn.DepthwiseSeparableConv2d(
        4, 6, 3, 2, 1, channel_multiplier=2, depthwise_activation="leaky_relu", negative_slope=0.25,
        device=device, dtype=torch.float64,
    )  # fmt: skip
    pair = torch.nn.Sequential()
    pair.depthwise = torch.nn.Conv2d(4, 8, 3, 2, 1, groups=4)
    pair.activation = torch.nn.LeakyReLU(0.25)
    pair.pointwise = torch.nn.Conv2d(8, 6, 1)
    pair.to(device).double().load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 7, 6, device=device, dtype=torch.float64)
    layer.backend = "cuda"
    torch.testing.assert_close(layer(x), pair(x))
    assert "backend=cuda" in repr(layer) and "depthwise_activation=leaky_relu" in repr(layer)


ERRORS = [
    (RuntimeError, "input of size: [4, 3]", {0: (4, 3)}),
    (RuntimeError, "depthwise_weight should be [2 * multiplier, 1, R, S]", {1: (3, 1, 2, 3)}),
    (RuntimeError, "but got depthwise_weight of size [4, 2, 2, 3]", {1: (4, 2, 2, 3)}),
    (RuntimeError, "pointwise_weight should be [K, 4, 1, 1]", {2: (3, 4, 1, 2)}),
    (RuntimeError, "but got pointwise_weight of size [3, 5, 1, 1]", {2: (3, 5, 1, 1)}),
    (RuntimeError, "depthwise_bias should be [4], but got depthwise_bias of size [3]", {3: (3,)}),
    (RuntimeError, "pointwise_bias should be [3], but got pointwise_bias of size [4]", {4: (4,)}),
    (RuntimeError, "Kernel size can't be greater than actual input size", {0: (1, 2, 1, 1), 1: (4, 1, 9, 9)}),
]


@pytest.mark.parametrize(("kind", "message", "shapes"), ERRORS, ids=[message for _, message, _ in ERRORS])
def test_errors_of_shapes(device, backend: str, kind: type[Exception], message: str, shapes: dict) -> None:
    tensors = [torch.zeros(shapes.get(i, shape), device=device) for i, shape in enumerate(SHAPES)]
    with pytest.raises(kind) as error:
        call(backend)(*tensors)
    if backend != "reference" or "Kernel size" not in message:
        assert message in str(error.value)


@pytest.mark.parametrize(
    ("kind", "message", "options"),
    [
        (ValueError, "depthwise_activation must be None or one of none, relu", {"depthwise_activation": "swish"}),
        (TypeError, "argument 'pointwise_activation' must be str or None, not int", {"pointwise_activation": 3}),
        (TypeError, "argument 'save_intermediate' must be bool, but got 1", {"save_intermediate": 1}),
        (TypeError, "argument 'negative_slope' must be float", {"negative_slope": "steep"}),
    ],
)
def test_errors_of_options(device, backend: str, kind: type[Exception], message: str, options: dict) -> None:
    with pytest.raises(kind) as error:
        call(backend, **options)(*leaves(device))
    assert message in str(error.value)
    with use_backend("cuda"), pytest.raises(RuntimeError, match=r"stride=\(0, 1\)"):
        functional.depthwise_separable_conv2d(*leaves(device), stride=(0, 1))


def test_errors_of_types(device) -> None:
    tensors = leaves(device)
    with pytest.raises(RuntimeError, match=r"pointwise_weight type \(torch.float32\) should be the same"):
        call("cuda")(*tensors[:2], tensors[2].float(), *tensors[3:])
    with pytest.raises(TypeError, match="argument 'depthwise_weight' must be Tensor, not int"):
        call("cuda")(tensors[0], 3, tensors[2])
    with pytest.raises(NotImplementedError, match="not int32"):
        call("cuda")(*(t.detach().int() for t in tensors))
