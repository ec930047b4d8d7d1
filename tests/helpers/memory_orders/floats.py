"""The floating operators on operands in random orders of memory, beside PyTorch's on contiguous ones in fp64.

Each function makes one trial: it draws a problem, of whose sizes many are 1, and compares the forward, gradients,
second derivatives, tangents or a batch of calls under vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional, use_backend
from cnnkernels.activation import activate
from helpers.memory_orders.trial import FLOATS, Trial, exact, plain, watched

DIRECTIONS = ("forward", "backward", "double", "tangent", "batched")
ACTIVATIONS = (None, "relu", "relu6", "leaky_relu")
Function = Callable[..., Tensor]


def draw_dtype(trial: Trial) -> torch.dtype:
    """Second derivatives are fp32's and fp64's: their sums soon leave 8 bits of mantissa."""
    return trial.choose(*FLOATS[:2] if trial.direction == "double" else FLOATS)


def bound_of(dtype: torch.dtype) -> int:
    return 1 if dtype in (torch.float16, torch.bfloat16) else 2


def differentiate(
    trial: Trial,
    call: Function,
    reference: Function,
    operands: dict[str, Tensor | None],
    dtype: torch.dtype,
    wanted: tuple[str, ...],
    lies: Callable[[Tensor], None],
) -> None:
    """Compares call(**operands) with reference(**operands), and what the direction asks for.

    Args:
        wanted: the operands whose gradient has its tensor's strides.
        lies: checks how the output lies.
    """
    if trial.direction in ("batched", "tangent"):
        of_direction = _batch if trial.direction == "batched" else _push_forward
        of_direction(trial, call, reference, operands, dtype)
        return
    order = trial.direction
    names = [name for name, tensor in operands.items() if tensor is not None and tensor.is_floating_point()]
    chosen = [] if order == "forward" else trial.some(names)
    theirs = {name: plain(tensor) for name, tensor in operands.items()}
    for name in chosen:
        theirs[name].requires_grad_()
    expected = reference(**theirs)
    exact(dtype, expected.detach())
    grad = trial.integers(expected.shape, dtype, -bound_of(dtype), bound_of(dtype))
    gradients: tuple[Tensor, ...] = ()
    seconds: tuple[Tensor | None, ...] = ()
    leaves = [theirs[name] for name in chosen]
    cotangents: list[Tensor] = []
    if chosen:
        by = plain(grad).requires_grad_(order == "double")
        gradients = torch.autograd.grad(expected, leaves, by, create_graph=order == "double")
        exact(dtype, *(gradient.detach() for gradient in gradients))
    if order == "double":
        cotangents = [trial.integers(gradient.shape, dtype, -1, 1) for gradient in gradients]
        seconds = _second(gradients, [*leaves, by], [plain(tensor) for tensor in cotangents])
        exact(dtype, *seconds)

    ours = dict(operands)
    for name in chosen:
        ours[name] = operands[name].detach().requires_grad_()
    grad = grad.detach().requires_grad_(order == "double")
    with watched(trial.happens(0.3)):
        with use_backend(trial.backend):
            output = call(**ours)
        trial.equal("output", output.detach(), expected.detach())
        lies(output.detach())
        if not chosen:
            return
        leaves = [ours[name] for name in chosen]
        results = torch.autograd.grad(output, leaves, grad, create_graph=order == "double")
        for name, result, gradient, leaf in zip(chosen, results, gradients, leaves, strict=True):
            trial.equal(f"gradient of {name}", result.detach(), gradient.detach())
            if name in wanted:
                trial.lies_as_gradient(f"gradient of {name}", result.detach(), leaf.detach())
        if order == "double":
            again = _second(results, [*leaves, grad], cotangents)
            for name, result, second in zip([*chosen, "grad_output"], again, seconds, strict=True):
                zeros = [t for t in (result, second) if t is not None]
                if zeros:
                    both = (torch.zeros_like(zeros[0]) if t is None else t for t in (result, second))
                    trial.equal(f"second derivative by {name}", *both)


def _second(gradients: Any, leaves: list[Tensor], cotangents: list[Tensor]) -> tuple[Tensor | None, ...]:
    pairs = [(g, c) for g, c in zip(gradients, cotangents, strict=True) if g.requires_grad]
    if not pairs:
        return (None,) * len(leaves)
    outputs, by = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, leaves, by, allow_unused=True)


def _push_forward(
    trial: Trial, call: Function, reference: Function, operands: dict[str, Tensor | None], dtype: torch.dtype
) -> None:
    """The tangent of the output, of tangents of some operands."""
    names = [name for name, tensor in operands.items() if tensor is not None and tensor.is_floating_point()]
    chosen = trial.some(names)
    operands = operands | {name: trial.lay(operands[name].cpu()) for name in chosen}  # PyTorch takes none expanded
    tangents = [trial.integers(operands[name].shape, dtype, -1, 1) for name in chosen]

    def pushed(function: Function, tensors: dict[str, Any], by: list[Tensor]) -> tuple[Tensor, Tensor]:
        def of_chosen(*primals: Tensor) -> Tensor:
            return function(**tensors | dict(zip(chosen, primals, strict=True)))

        return torch.func.jvp(of_chosen, tuple(tensors[name] for name in chosen), tuple(by))

    theirs = {name: plain(tensor) for name, tensor in operands.items()}
    expected = pushed(reference, theirs, [plain(tangent) for tangent in tangents])
    exact(dtype, *expected)
    with watched(False), use_backend(trial.backend):
        results = pushed(call, operands, tangents)
    for name, result, wanted in zip(("output", f"tangent by {chosen}"), results, expected, strict=True):
        trial.equal(name, result, wanted)


def _batch(
    trial: Trial, call: Function, reference: Function, operands: dict[str, Tensor | None], dtype: torch.dtype
) -> None:
    """Two samples under vmap, the batch axis anywhere: outputs, and gradients by all floating operands."""
    names = [name for name, tensor in operands.items() if tensor is not None]
    floating = [i for i, name in enumerate(names) if operands[name].is_floating_point()]
    given: list[Tensor] = [operands[name] for name in names]
    axes: list[int | None] = [None] * len(names)
    for name in trial.some(names):
        at = names.index(name)
        axis = axes[at] = trial.choose(*range(given[at].dim() + 1))
        first = given[at].cpu()  # indices too are as good in another plane
        given[at] = trial.lay(torch.stack([first, first.flip(tuple(range(first.dim())))], axis))
    samples = [
        [plain(t if axis is None else t.select(axis, i)) for t, axis in zip(given, axes, strict=True)] for i in range(2)
    ]

    def called(function: Function, by: Tensor | None) -> Callable[..., tuple[Tensor, ...]]:
        def forward(*tensors: Tensor) -> Tensor:
            return function(**dict.fromkeys(operands) | dict(zip(names, tensors, strict=True)))

        def both(*tensors: Tensor) -> tuple[Tensor, ...]:
            if by is None:
                return (forward(*tensors),)

            def of_floating(*leaves: Tensor) -> Tensor:
                every = list(tensors)
                for at, leaf in zip(floating, leaves, strict=True):
                    every[at] = leaf
                return forward(*every)

            output, vjp = torch.func.vjp(of_floating, *(tensors[i] for i in floating))
            return output, *vjp(by.to(output.device, output.dtype))

        return both

    size = reference(**dict.fromkeys(operands) | dict(zip(names, samples[0], strict=True))).shape
    by = trial.integers(size, dtype, -1, 1) if trial.happens(0.6) else None
    expected = [called(reference, None if by is None else plain(by))(*sample) for sample in samples]
    stacked = [torch.stack(parts) for parts in zip(*expected, strict=True)]
    exact(dtype, *stacked)
    with watched(False), use_backend(trial.backend):
        results = torch.func.vmap(called(call, by), tuple(axes))(*given)
    for at, (result, wanted) in enumerate(zip(results, stacked, strict=True)):
        name = "output" if at == 0 else f"gradient of {names[floating[at - 1]]}"
        trial.equal(f"batched {name}, in_dims {axes}", result, wanted)


def axis_of_windows(trial: Trial, modes: bool = False) -> tuple[int, int, int, int, int]:
    """Extent, taps, stride, padding, dilation of an axis that has an output."""
    taps = trial.choose(1, 1, 1, 2, 3)
    stride, padding, dilation = trial.choose(1, 1, 2, 3), trial.choose(0, 0, 1, 2), trial.choose(1, 1, 1, 2)
    least = max(1, dilation * (taps - 1) + 1 - 2 * padding, padding + 1 if modes else 1)
    return max(least, trial.choose(1, 1, 2, 3, 4, 6)), taps, stride, padding, dilation


def images(trial: Trial, channels: int, h: int, w: int, dtype: torch.dtype) -> Tensor:
    """[N, C, H, W], or one image without a batch."""
    batch = () if trial.direction != "batched" and trial.happens(0.1) else (trial.choose(1, 1, 2, 3),)
    return trial.integers((*batch, channels, h, w), dtype, -bound_of(dtype), bound_of(dtype))


def _convolution(trial: Trial, depthwise: bool) -> tuple[dict[str, Tensor | None], dict[str, Any], torch.dtype]:
    dtype = draw_dtype(trial)
    bound = bound_of(dtype)
    mode = trial.choose("reflect", "replicate", "circular") if not depthwise and trial.happens(0.15) else "zeros"
    (h, r, stride_h, pad_h, dilation_h), (w, s, stride_w, pad_w, dilation_w) = (
        axis_of_windows(trial, mode != "zeros") for _ in range(2)
    )
    groups = trial.choose(1, 2, 3, 8) if depthwise else trial.choose(1, 1, 1, 2, 4)
    each = 1 if depthwise else trial.choose(1, 1, 2, 3, 4, 8, 16)
    c, k = groups * each, groups * trial.choose(1, 1, 2, 3, 8)
    operands = {
        "input": images(trial, c, h, w, dtype),
        "weight": trial.integers((k, each, r, s), dtype, -bound, bound),
        "bias": trial.integers((k,), dtype, -2, 2) if trial.happens(0.5) else None,
    }
    stride, padding = (stride_h, stride_w), (pad_h, pad_w)
    options = {"stride": stride, "padding": padding, "dilation": (dilation_h, dilation_w)}
    if stride == (1, 1) and mode == "zeros" and trial.happens(0.1):
        options["padding"] = "same"
    if not depthwise:
        options["groups"] = groups
    if mode != "zeros":
        options["padding_mode"] = mode
    return operands, options, dtype


def conv2d(trial: Trial) -> None:
    operands, options, dtype = _convolution(trial, depthwise=False)
    _convolve(trial, functional.conv2d, operands, options, dtype)


def depthwise_conv2d(trial: Trial) -> None:
    operands, options, dtype = _convolution(trial, depthwise=True)
    _convolve(trial, functional.depthwise_conv2d, operands, options, dtype)


def _theirs(operands: dict[str, Any], options: dict[str, Any]) -> Tensor:
    """PyTorch's convolution of options that are ours."""
    options = {"groups": operands["input"].shape[-3]} | options
    input, mode = operands["input"], options.pop("padding_mode", "zeros")
    if mode != "zeros":
        (rows, columns), options["padding"] = options["padding"], 0
        batch = input if input.dim() == 4 else input.unsqueeze(0)
        padded = F.pad(batch, (columns, columns, rows, rows), mode)
        input = padded if input.dim() == 4 else padded.squeeze(0)
    return F.conv2d(input, operands["weight"], operands["bias"], **options)


def _convolve(trial: Trial, function: Any, operands: Any, options: Any, dtype: torch.dtype) -> None:
    differentiate(
        trial,
        lambda **tensors: function(**tensors, **options),
        lambda **tensors: _theirs(tensors, options),
        operands,
        dtype,
        ("input", "weight", "bias"),
        lambda output: trial.lies_dense("output", output, operands["input"], operands["weight"]),
    )


def conv_epilogue(trial: Trial) -> None:
    operands, options, dtype = _convolution(trial, depthwise=trial.happens(0.2))
    options.setdefault("groups", operands["input"].shape[-3])
    k = operands["weight"].shape[0]
    size = _theirs({name: plain(tensor) for name, tensor in operands.items()}, options).shape
    operands["scale"] = trial.integers((k,), dtype, -1, 2) if trial.happens(0.5) else None
    operands["shift"] = trial.integers((k,), dtype, -2, 2) if trial.happens(0.5) else None
    operands["residual"] = trial.integers(size, dtype, -2, 2) if trial.happens(0.6) else None
    activation, slope = trial.choose(*ACTIVATIONS), trial.choose(0.5, -0.5)

    def reference(scale: Any, shift: Any, residual: Any, **tensors: Any) -> Tensor:
        output = _theirs(tensors, options)
        output = output if scale is None else output * scale[:, None, None]
        output = output if shift is None else output + shift[:, None, None]
        output = output if residual is None else output + residual
        return activate(output, activation or "none", slope)

    differentiate(
        trial,
        lambda **tensors: functional.conv2d(**tensors, **options, activation=activation, negative_slope=slope),
        reference,
        operands,
        dtype,
        ("input", "weight", "bias", "scale", "shift"),
        lambda output: trial.lies_dense("output", output, operands["input"], operands["weight"]),
    )


def depthwise_separable_conv2d(trial: Trial) -> None:
    dtype = draw_dtype(trial)
    (h, r, stride_h, pad_h, dilation_h), (w, s, stride_w, pad_w, dilation_w) = (
        axis_of_windows(trial) for _ in range(2)
    )
    c = trial.choose(1, 1, 2, 3, 4, 8)
    m, k = c * trial.choose(1, 1, 2), trial.choose(1, 1, 2, 3, 4, 8)
    operands = {
        "input": images(trial, c, h, w, dtype),
        "depthwise_weight": trial.integers((m, 1, r, s), dtype, -1, 1),
        "pointwise_weight": trial.integers((k, m, 1, 1), dtype, -1, 1),
        "depthwise_bias": trial.integers((m,), dtype, -1, 1) if trial.happens(0.5) else None,
        "pointwise_bias": trial.integers((k,), dtype, -1, 1) if trial.happens(0.5) else None,
    }
    options = {"stride": (stride_h, stride_w), "padding": (pad_h, pad_w), "dilation": (dilation_h, dilation_w)}
    first, second, slope = trial.choose(*ACTIVATIONS), trial.choose(*ACTIVATIONS), trial.choose(0.5, -0.5)
    save = trial.happens(0.4)

    def reference(depthwise_bias: Any, pointwise_bias: Any, **t: Any) -> Tensor:
        z = F.conv2d(t["input"], t["depthwise_weight"], depthwise_bias, **options, groups=c)
        exact(dtype, z.detach())
        y = F.conv2d(activate(z, first or "none", slope), t["pointwise_weight"], pointwise_bias)
        return activate(y, second or "none", slope)

    filters = operands["input"], operands["depthwise_weight"], operands["pointwise_weight"]
    differentiate(
        trial,
        lambda **tensors: functional.depthwise_separable_conv2d(
            **tensors, **options, depthwise_activation=first, pointwise_activation=second, save_intermediate=save,
            negative_slope=slope,
        ),
        reference,
        operands,
        dtype,
        tuple(operands),
        lambda output: trial.lies_dense("output", output, *filters),
    )  # fmt: skip


OPERATORS = {
    function.__name__: function for function in (conv2d, conv_epilogue, depthwise_conv2d, depthwise_separable_conv2d)
}
