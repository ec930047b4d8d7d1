"""The layers that chains become, for inference and training, around the parameters of the layers they are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import nn
from .chains import Chain
from .fold import folded


def _refuse_training(layer: torch.nn.Module) -> None:
    if layer.training:
        raise RuntimeError(
            "this layer was fused for inference, as batch norms are folded there: call eval(), "
            "or convert the model without fuse=True to train it"
        )


class FusedForInference(nn.DepthwiseSeparableConv2d):
    """A depthwise convolution and its 1x1 of a model in eval, batch norms folded into their filters."""

    def forward(self, input: Tensor) -> Tensor:
        _refuse_training(self)
        return super().forward(input)


class FusedConv2dForInference(nn.Conv2dAct):
    """A convolution of a model in eval with its activation, its batch norm folded into the filter."""

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        _refuse_training(self)
        return super().forward(input, residual)


class FusedBatchNorm2dForInference(nn.BatchNorm2dAct):
    """A batch norm of a model in eval with its activation."""

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        _refuse_training(self)
        return super().forward(input, residual)


def pair_of(first: Chain, second: Chain, sources: list[Any]) -> FusedForInference:
    dw, pw = sources
    slope = second.negative_slope if second.activation == "leaky_relu" else first.negative_slope
    layer = FusedForInference(
        dw.in_channels, pw.out_channels, dw.kernel_size, dw.stride, dw.padding, dw.dilation,
        channel_multiplier=dw.out_channels // dw.in_channels, depthwise_activation=first.activation,
        pointwise_activation=second.activation, negative_slope=slope, device="meta",
    )  # fmt: skip
    for conv, source, norm in ((layer.depthwise, dw, first.norm), (layer.pointwise, pw, second.norm)):
        conv.weight, conv.bias = folded(source, norm)
    return layer.eval()


def conv_act(chain: Chain, conv: Any, trains: bool) -> Any:
    """A convolution with what follows it, around its own parameters."""
    layer = _of_sizes(nn.Conv2dAct if trains else FusedConv2dForInference, chain, conv)
    layer.weight, layer.bias = conv.weight, conv.bias
    for name, value in vars(conv).items():  # what its owner has given it
        vars(layer).setdefault(name, value)
    return layer.train(conv.training)


def norm_act(chain: Chain, norm: Any, trains: bool) -> Any:
    """A batch norm with what follows it, around its own parameters and statistics."""
    layer: Any = (nn.BatchNorm2dAct if trains else FusedBatchNorm2dForInference)(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta",
        activation=chain.activation, negative_slope=chain.negative_slope,
    )  # fmt: skip
    for name, tensor in (*norm._parameters.items(), *norm._buffers.items()):
        setattr(layer, name, tensor)
    for name, value in vars(norm).items():  # what its owner has given it
        vars(layer).setdefault(name, value)
    return layer.train(norm.training)


def same_numbers(layer: Any, norm: Any) -> bool:
    """Whether a batch norm in a graph is one of the model, whatever the code of that does."""
    if (layer.eps, layer.momentum) != (norm.eps, norm.momentum):
        return False
    pairs = [(getattr(layer, name), getattr(norm, name)) for name in ("weight", "bias", "running_mean", "running_var")]
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    return all(a is None or b.is_meta or torch.equal(a, b) for a, b in pairs)


def folded_convolution(chain: Chain, conv: Any) -> nn.Conv2dAct:
    layer: Any = _of_sizes(FusedConv2dForInference, chain, conv)
    layer.weight, layer.bias = folded(conv, chain.norm)
    return layer.eval()


def _of_sizes(kind: type[nn.Conv2dAct], chain: Chain, conv: Any) -> Any:
    return kind(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,
        padding_mode=conv.padding_mode, device="meta", activation=chain.activation, negative_slope=chain.negative_slope,
    )  # fmt: skip
