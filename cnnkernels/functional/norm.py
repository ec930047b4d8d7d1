"""Batch normalization with what follows it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE, activate
from ..backends import serving
from ..ops.norm import batch_norm_forward
from ..ops.norm_parts import batch_norm_statistics, batch_norm_track, wide
from .arguments import check_device, check_is_tensor, check_like, checked_activation

_NUMBERS = "running_mean", "running_var", "weight", "bias"


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
    negative_slope: float = NEGATIVE_SLOPE,
) -> Tensor:
    """Batch normalization, as `torch.nn.functional.batch_norm`, with what follows it.

        output = activation(weight[c] (input - mean[c]) / sqrt(var[c] + eps) + bias[c] + residual)

    Args:
        input: [N, C] or [N, C, ...] of any number of spatial axes; float64, float32, float16 or bfloat16 ("reference"
            takes more). Sums are in fp32, in fp64 for float64, in an order that is the shape's alone.
        running_mean, running_var: [C] each or both None. In training mean and var are input's own, var that of all
            elements over their number; running ones become (1 - momentum) running + momentum new, var's new one over
            their number less one. Else they are mean and var.
        weight, bias: [C] or None; of these and the running ones each is of input's dtype, or float32 of a 16-bit input.
        training, momentum, eps: as PyTorch's.
        activation: None, "relu", "relu6", "leaky_relu", "silu", "gelu" or "hardswish".
        residual: of input's size and dtype.
        negative_slope: leaky_relu's factor below zero.

    Returns:
        A tensor of input's size, channels_last where input is. The gradients have the strides of what they are of.

    Raises:
        TypeError, ValueError, RuntimeError: where `torch.nn.functional.batch_norm` raises them; for a residual of
            another size, dtype or device; for what is no activation.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.

    Example:
        >>> samples = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
        >>> cnnkernels.functional.batch_norm(samples, torch.tensor([1.0, 10.0]), torch.tensor([4.0, 4.0]), eps=0.0)
        tensor([[ 0.,  0.],
                [ 1., 10.]])
    """
    numbers = running_mean, running_var, weight, bias
    if has_torch_function_variadic(input, *numbers, residual):
        fused: dict[str, Any] = {"activation": activation, "residual": residual}
        fused = {name: value for name, value in fused.items() if value is not None}
        if negative_slope != NEGATIVE_SLOPE:
            fused["negative_slope"] = negative_slope
        return handle_torch_function(
            batch_norm, (input, *numbers, residual), input, running_mean, running_var, weight=weight, bias=bias,
            training=training, momentum=momentum, eps=eps, **fused,
        )  # fmt: skip
    op = "batch_norm"
    check_is_tensor(op, "input", input)
    backend = serving(op, input.device, input.dtype)
    if not isinstance(backend, str):
        backend = backend.choose(
            (input, *numbers, training, momentum, eps, activation, residual, negative_slope), _again
        )
    name, slope = checked_activation(op, activation, negative_slope)
    if residual is not None:
        _check_residual(op, residual, input)
    if backend == "reference" or input.numel() == 0 or input.dim() < 2:
        output = functional.batch_norm(input, *numbers, training, momentum, eps)
        return activate(output if residual is None else output + residual, name, slope)
    _check(op, input, dict(zip(_NUMBERS, numbers, strict=True)), training, eps)
    images = as_images(input)
    with_numbers = weight, bias, None if residual is None else as_images(residual)
    if not training:
        mean, var = running_mean, running_var
    elif running_mean is None or running_var is None:
        mean, var = batch_norm_statistics(images.detach(), backend)
    else:
        mean, var = batch_norm_track(images.detach(), running_mean, running_var, float(momentum), backend)
    output = batch_norm_forward(images, mean, var, *with_numbers, training, float(eps), name, slope, backend)
    return output.view(input.shape)


def _again(input: Tensor, *arguments: Any) -> Tensor:
    """A call by the order of its arguments."""
    *plain, activation, residual, slope = arguments
    return batch_norm(input, *plain, activation=activation, residual=residual, negative_slope=slope)


def as_images(input: Tensor) -> Tensor:
    """[N, C, H, W], whose order in memory is input's: a view of all but what lies in an order of its own."""
    n, c, *spatial = input.shape
    if len(spatial) == 2:
        return input
    if len(spatial) < 2:
        return input.reshape(n, c, 1, spatial[0] if spatial else 1)
    return input.flatten(2, -2)


def _check_residual(op: str, residual: Any, input: Tensor) -> None:
    check_is_tensor(op, "residual", residual)
    if residual.shape != input.shape:
        raise RuntimeError(f"{op}: expected residual to be of size {[*input.shape]}, but got {[*residual.shape]}")
    check_like("residual", residual, input)


def _check(op: str, input: Tensor, numbers: dict[str, Tensor | None], training: bool, eps: float) -> None:
    if training and input.numel() == input.shape[1]:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    if training and eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    if eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    for name in ("running_mean", "running_var"):
        if not training and numbers[name] is None:
            raise RuntimeError(f"{name} must be defined in evaluation mode")
    if (numbers["running_mean"] is None) != (numbers["running_var"] is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    channels, types = input.shape[1], {input.dtype, wide(input.dtype)}
    for name, tensor in numbers.items():
        if tensor is None:
            continue
        check_is_tensor(op, name, tensor)
        if tensor.numel() != channels:
            raise RuntimeError(f"{name} should contain {channels} elements not {tensor.numel()}")
        if tensor.dtype not in types:
            wanted = " or ".join(str(dtype) for dtype in (input.dtype, *types - {input.dtype}))
            raise RuntimeError(f"{op}: expected {name} of an input of {input.dtype} to be {wanted}, not {tensor.dtype}")
        check_device(name, tensor, "input", input.device)
        if tensor.requires_grad and name.startswith("running"):
            raise RuntimeError(f"The function '{op}' is not differentiable with respect to argument '{name}'")
