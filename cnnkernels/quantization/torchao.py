"""torchao's way of quantizing (PT2E) with the codes and the kernels of cnnkernels. Needs the extra `[torchao]`.

    model = torch.export.export(model.eval(), (images,)).module()
    prepared = prepare_pt2e(model, Int8Quantizer())  # of torchao.quantization.pt2e.quantize_pt2e, as convert_pt2e
    prepared(images)
    int8 = lower(convert_pt2e(prepared))

`cnnkernels.quantize` takes more into INT8 (sums, pools) and is right where PT2E is not, as on in-place changes; this is
for programs that are built on torchao.
"""

from __future__ import annotations

from typing import Any

import torch
import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401  registers quantized_decomposed
from torch import fx, nn
from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from .. import nn as ours
from ..convert.capture import attribute
from .canonical import add_module

aten, decomposed = torch.ops.aten, torch.ops.quantized_decomposed
_LAYERS = (aten.conv2d.default, aten.linear.default)
_ACTIVATIONS = {aten.relu.default: "relu", aten.relu_.default: "relu"}
_INTO = (decomposed.quantize_per_tensor.default, decomposed.quantize_per_tensor.tensor)
_OUT_OF = (decomposed.dequantize_per_tensor.default, decomposed.dequantize_per_tensor.tensor)
_ANNOTATION = "quantization_annotation"  # the key of a node's meta that torchao reads

ACTIVATION = QuantizationSpec(
    torch.int8, MinMaxObserver.with_args(eps=2**-40), -128, 127, torch.per_tensor_affine, is_dynamic=False
)
WEIGHT = QuantizationSpec(
    torch.int8, PerChannelMinMaxObserver.with_args(eps=2**-40), -127, 127, torch.per_channel_symmetric, ch_axis=0
)


class Int8Quantizer(Quantizer):
    """Convolutions and linear layers, each with the ReLU behind it: activations affine, weights symmetric with a scale
    for each filter. What the model returns stays float."""

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        for node in model.graph.nodes:
            if node.target not in _LAYERS:
                continue
            input, weight, *_ = node.args
            if weight.op != "get_attr":
                continue  # computed anew in each call: it has no code of its own
            last = _with_activation(node)[0]
            returned = any(reader.op == "output" for reader in last.users)
            inputs = QuantizationAnnotation({input: ACTIVATION, weight: WEIGHT}, _annotated=True)
            if last is not node:
                last.meta[_ANNOTATION] = QuantizationAnnotation(_annotated=True)
            node.meta[_ANNOTATION] = inputs
            (inputs if last is node else last.meta[_ANNOTATION]).output_qspec = None if returned else ACTIVATION
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Nothing is annotated that `lower` has no kernel for."""


def _with_activation(node: fx.Node) -> tuple[fx.Node, str]:
    """The node whose value a layer leaves, and the activation in it."""
    readers = list(node.users)
    if len(readers) == 1 and readers[0].target in _ACTIVATIONS:
        return readers[0], _ACTIVATIONS[readers[0].target]
    return node, "none"


def lower(model: fx.GraphModule) -> fx.GraphModule:
    """What `convert_pt2e` returned, on cnnkernels' INT8 layers; in place, for inference.

    Layers whose input and weight have codes become `nn.Int8Conv2d` and `nn.Int8Linear`, everything else goes on as it
    is, between `nn.Quantize` and `nn.Dequantize`.

    Raises:
        TypeError: `model` is no GraphModule.
        ValueError: nothing in it was quantized to int8.
    """
    if not isinstance(model, fx.GraphModule):
        raise TypeError(f"lower(): argument 'model' must be what convert_pt2e returned, not {type(model).__name__}")
    if not any(node.target in _INTO for node in model.graph.nodes):
        raise ValueError("lower: expected a model from convert_pt2e with something quantized, but nothing is")
    for node in list(model.graph.nodes):
        if node.target in _LAYERS:
            _lower_layer(model, node)
    model.graph.eliminate_dead_code()
    for node in list(model.graph.nodes):
        if node.target in (*_INTO, *_OUT_OF):
            scale, zero_point, dtype = _code(model, node)
            kind: Any = ours.Quantize if node.target in _INTO else ours.Dequantize
            layer = kind(scale, zero_point, *((dtype,) if node.target in _INTO else ()))
            _replace(model, node, layer, node.args[0])
    model.graph.eliminate_dead_code()
    model.delete_all_unused_submodules()
    model.graph.lint()
    model.recompile()
    return model


def _lower_layer(model: fx.GraphModule, node: Any) -> None:
    rest: list[Any]
    input, weight, *rest = node.args
    if input.target not in _OUT_OF or weight.target is not decomposed.dequantize_per_channel.default:
        return
    integers, scales, zero_points, axis = (
        attribute(model, str(value.target)) if isinstance(value, fx.Node) else value for value in weight.args[:4]
    )
    in_scale, in_zero_point, in_dtype = _code(model, input)
    if axis != 0 or integers.dtype is not torch.int8 or in_dtype is not torch.int8 or zero_points.any():
        return
    bias = rest[0] if rest else None
    if bias is not None and bias.op != "get_attr":
        return
    last, activation = _with_activation(node)
    chain = [node] if last is node else [node, last]
    readers = list(last.users)
    numbers: dict[str, Any] = {"input_scale": in_scale, "input_zero_point": in_zero_point, "activation": activation}
    if len(readers) == 1 and readers[0].target in _INTO:
        last = readers[0]
        chain.append(last)
        numbers["out_scale"], numbers["out_zero_point"], numbers["out_dtype"] = _code(model, last)
    layer: Any
    if node.target is aten.linear.default:
        layer = ours.Int8Linear(integers.shape[1], integers.shape[0], bias is not None, integers.device, **numbers)
    else:
        given: list[Any] = [*rest[1:], *([1, 1], [0, 0], [1, 1], 1)[len(rest[1:]) :]]
        *pairs, groups = given
        stride, padding, dilation = map(tuple, pairs)
        layer = ours.Int8Conv2d(
            integers.shape[1] * groups, integers.shape[0], tuple(integers.shape[2:]), stride, padding, dilation, groups,
            bias is not None, device=integers.device, **numbers,
        )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(integers)
        layer.weight_scale.copy_(scales)
        layer.weight_sum.copy_(integers.flatten(1).sum(1))
        if bias is not None:
            layer.bias.copy_(attribute(model, str(bias.target)))
    _replace(model, last, layer, input.args[0])
    for old in reversed(chain):  # by hand, as one may work in place
        model.graph.erase_node(old)


def _code(model: fx.GraphModule, node: Any) -> tuple[float, int, torch.dtype]:
    """Scale, zero point and type of the integers of a node that goes into INT8 or out of it."""
    numbers = [attribute(model, str(n.target)) if isinstance(n, fx.Node) else n for n in node.args[1:3]]
    return float(numbers[0]), int(numbers[1]), node.args[5]


def _replace(model: fx.GraphModule, node: fx.Node, layer: nn.Module, input: Any) -> None:
    with model.graph.inserting_before(node):
        made = model.graph.call_module(add_module(model, f"int8_{node.name}", layer.eval()), (input,))
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
