"""Why an operation of a piece stays in float: the report's lines beside those of layers by name."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn

from ..convert import trace
from ..convert.dropped import Dropped
from ..convert.graph import LAYERS
from ..convert.inputs import Fixed, Sizes
from ..convert.outputs import Order, Rebuilt
from ..convert.replace import Layer
from ..convert.trace import hooked
from .prepare import Tap, carries, part, sums, tabled
from .units import Unit

aten = torch.ops.aten
# They compute nothing: a shape, a part of a tuple, a tensor of the code's own.
_SILENT: tuple[Any, ...] = (
    operator.getitem, getattr, aten.sym_size.int, aten.arange.default, aten.arange.start, aten.arange.start_step,
    aten.zeros.default, aten.ones.default, aten.full.default, aten.copy_.default, "size", "dim", "to",
)  # fmt: skip
# Told of by their names, or computing nothing.
_NOT_TOLD: tuple[type[nn.Module], ...] = (
    *LAYERS, nn.modules.conv._ConvNd, fx.GraphModule, Sizes, Fixed, Rebuilt, Order, nn.Flatten, nn.Identity,
    Dropped,
)  # fmt: skip


def line(source: fx.GraphModule, prefix: str, node: fx.Node, reads_int8: bool) -> Layer | None:
    """The report's line of a node that stays in float, None where it computes nothing.

    Args:
        source: the piece, with units and taps.
        prefix: of the names in it.
        reads_int8: whether something that it reads is INT8.
    """
    if node.op in ("call_function", "call_method"):
        return _of_function(source, prefix, node)
    if node.op != "call_module":
        return None
    layer = source.get_submodule(str(node.target))
    if isinstance(layer, _NOT_TOLD):
        return None
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        reason = _of_norm(source, node, layer)
    elif isinstance(layer, nn.AvgPool2d) and sums(layer):
        reason = f"its divisor {layer.divisor_override} makes sums, which leave the range of what is summed"
    elif hooked(layer):
        reason = "it has hooks, which would see another tensor"
    elif not carries(source, node) and not tabled(source, node):
        reason = "no INT8 kernel"
    else:
        reason = "no INT8 layer reads its result" if reads_int8 else "what it reads is made in float"
    return Layer((prefix + str(node.target),), f"{type(layer).__name__}({layer.extra_repr()})", reason)


def _of_function(source: fx.GraphModule, prefix: str, node: fx.Node) -> Layer | None:
    home = str(node.meta.get("home", ""))
    if "layer" in node.meta:
        return Layer((prefix + home,), node.meta["layer"], node.meta.get("why", "no INT8 kernel"))
    symbols = isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "_operator"
    if symbols or node.target in _SILENT or getattr(node.target, "__module__", "") in ("_operator", "math", "builtins"):
        return None
    if "why" not in node.meta and not _reads_the_input(node):
        return None  # it computes a parameter
    what = str(getattr(node.target, "__name__", node.target))
    reason = "what it reads is made in float" if carries(source, node) else "no INT8 kernel: it reads floats"
    return Layer(((prefix + f"{home}.{node.name}".lstrip(".")),), what, node.meta.get("why", reason))


def _reads_the_input(node: fx.Node) -> bool:
    seen: set[fx.Node] = set()
    unread = [node]
    while unread:
        value = unread.pop()
        if value.op == "placeholder":
            return True
        unread += set(value.all_input_nodes) - seen
        seen |= set(value.all_input_nodes)
    return False


def _of_norm(source: fx.GraphModule, node: fx.Node, norm: nn.Module) -> str:
    if hooked(norm):
        return "it has hooks, which would see another tensor"
    if trace.own_arithmetic(norm, nn.modules.batchnorm._BatchNorm):
        return f"{type(norm).__qualname__} has arithmetic of its own"
    before = node.all_input_nodes[0]
    readers = len(before.users)
    while part(source, before, Tap) is not None:
        before = before.all_input_nodes[0]
        readers = max(readers, len(before.users))
    if part(source, before, LAYERS[0]) is not None or part(source, before, LAYERS[1]) is not None:
        return "the layer before it stays in float"
    unit = part(source, before, Unit)
    if unit is not None and unit.norm is None and unit.activation == "none" and readers > 1:
        return "others read what it normalizes, too"
    return "it does not stand behind a layer that could take it in"
