"""The activations that an epilogue may apply: names, and PyTorch's own functions of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# The order is csrc/common/activation.h's.
ACTIVATIONS = ("none", "relu", "relu6", "leaky_relu", "silu", "gelu", "hardswish")
NEGATIVE_SLOPE = 0.01  # torch.nn.LeakyReLU's


def activate(x: Tensor, activation: str, negative_slope: float = NEGATIVE_SLOPE) -> Tensor:
    """The activation of every element, by PyTorch's own function."""
    F = torch.nn.functional
    if activation == "none":
        return x
    if activation == "leaky_relu":
        return F.leaky_relu(x, negative_slope)
    functions: dict[str, Any] = {
        "relu": F.relu, "relu6": F.relu6, "silu": F.silu, "gelu": F.gelu, "hardswish": F.hardswish
    }  # fmt: skip
    return functions[activation](x)


def activation_backward(grad: Tensor, x: Tensor, activation: str, negative_slope: float = NEGATIVE_SLOPE) -> Tensor:
    """grad times the activation's derivative at the pre-activation x; differentiable in both."""
    aten = torch.ops.aten
    if activation == "none":
        return grad
    if activation == "relu":
        return aten.threshold_backward(grad, x, 0)
    if activation == "relu6":
        return aten.hardtanh_backward(grad, x, 0, 6)
    if activation == "leaky_relu":
        return aten.leaky_relu_backward(grad, x, negative_slope, False)
    if activation == "silu":
        if not torch.is_grad_enabled():
            return aten.silu_backward(grad, x)
        sigmoid = torch.sigmoid(x)  # silu_backward itself has no derivative
        return grad * sigmoid * (1 + x * (1 - sigmoid))
    if activation == "gelu":
        return aten.gelu_backward(grad, x)
    return aten.hardswish_backward(grad, x)


def known_from_output(activation: str, negative_slope: float = NEGATIVE_SLOPE) -> bool:
    """Whether the derivative can be read off the activation's own value, so that no pre-activation is needed.

    That holds where the function keeps apart what its derivative keeps apart: `activation_backward` at the value is
    then what it is at the pre-activation.
    """
    return activation in ("none", "relu", "relu6") or (activation == "leaky_relu" and negative_slope >= 0)
