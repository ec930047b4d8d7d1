"""Units: a convolution or linear layer with what one INT8 kernel does with its sums before it stores them.

    layer [-> batch norm] [-> dropped in training] [-> + residual] [-> activation]

A unit takes in what follows a layer as long as nobody else reads the value between. Of two layers whose results are
added, the later one takes the addition, and the earlier one's result is its residual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from .. import nn as ours
from ..activation import NEGATIVE_SLOPE, activate
from ..convert import trace
from ..convert.chains import Chain, module_of, take_addition
from ..convert.dropped import Dropped
from ..convert.fold import folded
from ..convert.fused import FusedConv2dForInference
from ..convert.graph import LAYERS, Piece
from ..convert.layers import add_module
from ..convert.trace import ACTIVATIONS, hooked
from ..dtypes import FLOATING_DTYPES
from ..nn.int8 import folded_weight
from .formulas import fake_quantize_weight

# int32 sums of products of an int8 weight and an affine activation, whose distance from its zero point is up to 255.
LONGEST_SUM = (2**31 - 1) // (128 * 255)


class Unit(nn.Module):
    """A layer with what follows it, in float.

    Attributes:
        layer: Conv2d or Linear.
        norm: the batch norm after it, or None.
        activation, negative_slope: as `cnnkernels.activation` names them.
        drop: what is dropped at random behind them in training, or None.
        trains: rounds the weight to its code, with a gradient. A batch norm multiplies each filter by a number, and
            rounding with a scale for each filter passes such a number through: what is trained is what folding gives.
        codes: of the input and of the residual, once they have some (`FakeQuantize`). With them a unit that trains
            computes in evaluation what its INT8 layer does, with the same exact sums; its gradient stays the float's.
        names: of the modules it is made of, in the model.
    """

    def __init__(self, layer: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.layer: Any = layer
        self.norm: Any = None
        self.drop: Any = None
        self.activation, self.negative_slope = "none", NEGATIVE_SLOPE
        self.trains = False
        self.codes: list[Any] = []
        self.names = names

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        learns = self.training or (self.norm is not None and self.norm.training)
        if not self.trains or not self.codes or learns:
            return self._in_float(input, residual)
        exact = self._in_integers(input, residual)
        return _With.apply(self._in_float(input, residual), exact) if torch.is_grad_enabled() else exact

    def _in_float(self, input: Tensor, residual: Tensor | None) -> Tensor:
        y = self._with_rounded_weight(input) if self.trains else self.layer(input)
        if self.norm is not None:
            y = self.norm(y)
        if self.drop is not None:
            y = self.drop(y)
        if residual is not None:
            y = y + residual
        return activate(y, self.activation, self.negative_slope)

    def _with_rounded_weight(self, input: Tensor) -> Tensor:
        weight = fake_quantize_weight(self.layer.weight)
        if isinstance(self.layer, nn.Conv2d):
            return self.layer._conv_forward(input, weight, self.layer.bias)
        return nn.functional.linear(input, weight, self.layer.bias)

    @torch.no_grad()
    def _in_integers(self, input: Tensor, residual: Tensor | None) -> Tensor:
        layer = self.int8(*(watch.code() for watch in self.codes), out_dtype=torch.float32)
        return layer(input, residual)  # which has numbers of a code: the layer finds the code again

    def int8(
        self, input: tuple[float, int], residual: tuple[float | None, int] = (None, 0), **numbers: Any
    ) -> ours.Int8Conv2d | ours.Int8Linear:
        """The INT8 layer for operands of these codes (scale and zero point).

        Args:
            numbers: of its output, as `nn.Int8Conv2d` takes them.
        """
        kind: Any = ours.Int8Conv2d if isinstance(self.layer, nn.Conv2d) else ours.Int8Linear
        numbers |= {"activation": self.activation, "negative_slope": self.negative_slope}
        numbers |= {"input_scale": input[0], "input_zero_point": input[1]}
        numbers |= {"residual_scale": residual[0], "residual_zero_point": residual[1]}
        return kind.from_float(self.folded(), **numbers).eval()

    def folded(self) -> nn.Module:
        """The layer with the batch norm in its filters and bias, for inference; rounded to the code where it trains."""
        weight = fake_quantize_weight(self.layer.weight.detach()) if self.trains else self.layer.weight.detach()
        rounded = _bare(self.layer, weight, self.layer.bias)
        return _bare(self.layer, *folded(rounded, self.norm))

    def extra_repr(self) -> str:
        return f"activation={self.activation}"


class _With(torch.autograd.Function):
    """A value, with the gradient of another that is the same up to rounding."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, value: Tensor) -> Tensor:
        ctx.dtype = input.dtype
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None]:
        return grad_outputs[0].to(ctx.dtype), None


def _finished(layer: ours.Conv2dAct, name: str) -> Unit:
    """The unit that a Conv2dAct is by itself, its scale and shift in the filters."""
    unit = Unit(_bare(layer, *folded_weight(layer, layer.weight.detach(), layer.bias)), [name])
    unit.activation, unit.negative_slope = layer.activation or "none", layer.negative_slope
    return unit


def _bare(layer: Any, weight: Tensor, bias: Tensor | None) -> Any:
    """A layer of torch.nn with the sizes of `layer` around other parameters."""
    kind: Any
    if isinstance(layer, nn.Conv2d):
        kind = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,  # type: ignore[arg-type]
            layer.groups, bias is not None, layer.padding_mode, device="meta",
        )  # fmt: skip
    else:
        kind = nn.Linear(layer.in_features, layer.out_features, bias is not None, device="meta")
    kind.weight = nn.Parameter(weight.detach(), requires_grad=False)
    kind.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    return kind


class Matcher:
    """Finds a piece's units and puts them into its graph.

    Args:
        left_out: says of a layer and its name why the caller wants it in float, "" where he does not.
        trains: for quantization-aware training.
    """

    def __init__(self, piece: Piece, left_out: Callable[[nn.Module, str], str], trains: bool) -> None:
        self.piece, self.left_out, self.trains = piece, left_out, trains
        self.graph = piece.module.graph
        self.order = {node: i for i, node in enumerate(self.graph.nodes)}

    def run(self) -> None:
        """Makes one node of each unit; a layer that stays in float keeps the reason as its attribute int8_reason."""
        chains: dict[fx.Node, Chain] = {}  # by their last link
        units: list[tuple[Unit, Chain]] = []
        for node in self.graph.nodes:
            layer = module_of(self.piece, node)
            if not isinstance(layer, LAYERS):
                continue
            if reason := self.why_not(node, layer):
                layer.int8_reason = reason  # type: ignore[assignment]
                continue
            chain = Chain(self.piece, node)
            if isinstance(layer, ours.Conv2dAct) and (layer.activation not in (None, "none") or len(node.args) > 1):
                units.append((_finished(layer, self.name(node)), chain))
                continue
            if not isinstance(layer, ours.Conv2dAct):
                chain.take_norm(self.trains)
                chain.take_drop()
            chains[chain.nodes[-1]] = chain
        for node in self.graph.nodes:
            take_addition(self.piece, node, chains, self.order)
        for chain in chains.values():
            chain.take_activation()
            units.append((self.unit(chain), chain))
        for unit, chain in units:
            self.put(unit, chain)
        self.graph.lint()
        self.piece.module.delete_all_unused_submodules()
        self.piece.module.recompile()

    def unit(self, chain: Chain) -> Unit:
        layer, names = chain.layer, [self.name(node) for node in chain.nodes if self.is_named(node)]
        unit = _finished(layer, names[0]) if isinstance(layer, ours.Conv2dAct) else Unit(layer, names)
        unit.names, unit.norm, unit.drop, unit.trains = names, chain.norm, chain.drop, self.trains
        unit.activation, unit.negative_slope = chain.activation, chain.negative_slope
        return unit

    def is_named(self, node: fx.Node) -> bool:
        """Whether a link is a layer that the report names: what drops at random does nothing in INT8."""
        layer = module_of(self.piece, node)
        return layer is not None and not isinstance(layer, Dropped)

    def name(self, node: fx.Node) -> str:
        return self.piece.prefix[:-1] if self.piece.alone else self.piece.prefix + str(node.target)

    def why_not(self, node: fx.Node, layer: Any) -> str:
        """The reason to leave a layer in float, "" where there is none."""
        if reason := self.left_out(layer, self.name(node)):
            return reason
        if hooked(layer):
            return "it has hooks, which would see another tensor"
        if nn.utils.parametrize.is_parametrized(layer):
            return "it is parametrized"
        if own_arithmetic(layer):
            return f"{type(layer).__qualname__} has arithmetic of its own"
        if layer.weight.dtype not in FLOATING_DTYPES:
            return f"its weight is {layer.weight.dtype}"
        if node not in self.piece.shapes:
            return "the example input does not run it"
        if isinstance(layer, ours.Conv2dAct) and self.trains:
            return "Conv2dAct, which is finished with what follows it, is for quantize"
        most = 2 if isinstance(layer, ours.Conv2dAct) else 1
        if len(node.args) > most or node.kwargs or not all(isinstance(value, fx.Node) for value in node.args):
            return "it is called with more than an input"
        if isinstance(layer, nn.Conv2d) and len(self.piece.shapes[node]) != 4:
            return "its input has no batch dimension"
        longest = layer.weight[0].numel()
        if longest > LONGEST_SUM:
            return f"its sums are of {longest} products, above {LONGEST_SUM} they may leave int32"
        return ""

    def put(self, unit: Unit, chain: Chain) -> None:
        """One node in the place of the last link, where all that it reads is there."""
        first, last = chain.nodes[0], chain.nodes[-1]
        unit.training = self.piece.module.training
        target = add_module(self.piece.module, f"{first.target!s}_unit", unit)
        inputs = list(first.args)
        if chain.addition is not None:
            inputs.append(chain.addition.args[chain.residual])
        with self.graph.inserting_before(last):
            node = self.graph.call_module(target, tuple(inputs))
        for values in (self.piece.shapes, self.piece.dtypes):
            values[node] = values[last]  # type: ignore[index, assignment]
        last.replace_all_uses_with(node)
        for old in reversed(chain.nodes):
            self.graph.erase_node(old)


_BASES: tuple[type[nn.Module], ...] = (
    FusedConv2dForInference, ours.Conv2dAct, ours.Conv2d, nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d,
    ours.MaxPool2d, nn.MaxPool2d, ours.AvgPool2d, nn.AvgPool2d, ours.AdaptiveAvgPool2d, nn.AdaptiveAvgPool2d,
    nn.Flatten, nn.Identity, Dropped, *ACTIVATIONS,
)  # fmt: skip


def own_arithmetic(module: nn.Module) -> bool:
    """Whether a module computes something else than the layer it inherits from."""
    return not isinstance(module, _BASES) or trace.own_arithmetic(module, *_BASES)
