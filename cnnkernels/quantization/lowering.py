"""Makes the INT8 graph of a piece whose taps have seen data.

Every value of the graph has a float form, an INT8 form, or both, each made once and only where somebody reads it:
units and what carries INT8 read and leave INT8; `Quantize` leads in and `Dequantize` out. A unit that nobody reads as
INT8 leaves the float itself.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from .. import nn as ours
from ..convert.capture import attribute
from ..convert.graph_module import InPlaceOf, adopt, copy_of_pieces
from ..convert.inputs import Sizes
from ..convert.replace import Layer
from ..convert.trace import hooked
from ..nn.numbered import NumberedLayer
from . import kept
from .prepare import Tap, carried, carries, pads_with_zeros, part, tabled, wanted
from .tables import Int8Activation
from .units import Unit

_ASKING = ("size", "dim", "numel", "ndimension")  # a tensor for its shape, whatever its type


class Code(NamedTuple):
    """What an int8 q stands for: (q - zero_point) scale."""

    scale: float
    zero_point: int


class Value(NamedTuple):
    """A value of the model that was watched: where it is in the float and in the INT8 model, its range and code.

    Attributes:
        names: the modules that make it.
        tap: the module that it goes through in the float model with observers.
        module: the module that makes it in the INT8 model.
        low, high: the range given to the code.
        code: scale and zero point; None where the INT8 model leaves it in float.
    """

    names: tuple[str, ...]
    tap: str
    module: str
    low: float
    high: float
    code: Code | None


class Int8ReLU(NumberedLayer):
    """max(q, zero_point): the ReLU of what q stands for, in the same code."""

    zero_point_names = ("zero_point",)

    def __init__(self, zero_point: int) -> None:
        super().__init__()
        self.zero_point = zero_point

    def forward(self, input: Tensor) -> Tensor:
        return input.clamp(min=self.zero_point)

    def extra_repr(self) -> str:
        return f"zero_point={self.zero_point}"


class Conversion:
    """The INT8 form of one piece, made node by node.

    Attributes:
        quantized, kept: lines for the report.
        values: what was watched.
    """

    def __init__(self, source: fx.GraphModule, prefix: str) -> None:
        self.source, self.prefix = source, prefix
        self.want = wanted(source)
        self.graph = fx.Graph()
        self.modules: dict[str, Any] = {}
        self.floats: dict[fx.Node, fx.Node] = {}
        self.int8s: dict[fx.Node, fx.Node] = {}
        self.codes: dict[fx.Node, Code] = {}
        self.dtypes: dict[fx.Node, torch.dtype] = {}  # what a code's numbers are in the float model
        self.weights: dict[int, Any] = {}
        self.quantized: list[Layer] = []
        self.kept: list[Layer] = []
        self.values: list[Value] = []

    def run(self) -> nn.Module:
        """The piece's INT8 module: one that runs a graph, or the layer itself where it is all there is."""
        for node in self.source.graph.nodes:
            if (unit := part(self.source, node, Unit)) is not None:
                self.unit(node, unit)
            elif (tap := part(self.source, node, Tap)) is not None:
                self.tap(node, tap)
            elif self.is_carrier(node):
                self.carrier(node)
            elif self.is_tabled(node):
                self.table(node)
            else:
                self.float(node)
        if (layer := self.only_layer()) is not None:
            self.values = [value._replace(module=self.prefix[:-1]) for value in self.values if value.code is None]
            return layer
        made = InPlaceOf(self.modules, self.graph, type(self.source).__name__)
        made.graph.lint()
        made.eval()
        if "attributes" in self.source.meta:
            adopt(made, self.source)
        return made

    def only_layer(self) -> nn.Module | None:
        """The INT8 layer that is all there is to a piece inside a model: it quantizes its input itself."""
        if not self.prefix or hooked(self.source) or self.source.meta.get("asked"):
            return None  # code around it may see it, or ask more of it than to be called
        called = [node for node in self.graph.nodes if node.op == "call_module"]
        parts = [part for node in called if not isinstance(part := self.modules[str(node.target)], Sizes)]
        if [node.op for node in self.graph.nodes if node.op != "call_module"] != ["placeholder", "output"]:
            return None
        if len(parts) != 2:
            return None
        into, layer = parts
        whole = isinstance(into, ours.Quantize) and isinstance(layer, (ours.Int8Conv2d, ours.Int8Linear))
        return layer if whole else None

    def unit(self, node: fx.Node, unit: Unit) -> None:
        tap = part(self.source, next(iter(node.users)), Tap)
        values: Any = node.args  # an input and perhaps a residual, which may be the same
        numbers: dict[str, Any] = {}
        if tap.coded:
            numbers["out_scale"], numbers["out_zero_point"] = tap.watch.code()
        else:
            numbers["out_dtype"] = _stored(tap.dtype)
        layer = unit.int8(*(self.codes[value] for value in values), **numbers)
        self.share(unit, layer)
        name = self.add(unit.names[0].removeprefix(self.prefix) or "layer", layer)
        made = self.graph.call_module(name, tuple(self.int8s[value] for value in values))
        if tap.coded:
            self.int8s[node] = made
        else:
            self.floats[node] = self.widened(made, tap.dtype)
        self.quantized.append(
            Layer((" + ".join(unit.names) or "(the model)",), f"{type(layer).__name__}({layer.extra_repr()})")
        )

    def share(self, unit: Unit, layer: Any) -> None:
        """A layer called at several places keeps one weight, unless the batch norms behind it differ."""
        first = self.weights.setdefault(id(unit.layer), layer)
        if torch.equal(first.weight, layer.weight) and torch.equal(first.weight_scale, layer.weight_scale):
            layer.weight, layer.weight_scale, layer.weight_sum = first.weight, first.weight_scale, first.weight_sum

    def tap(self, node: fx.Node, tap: Tap) -> None:
        value = node.args[0]
        if not isinstance(value, fx.Node):
            raise TypeError(f"a tap of {tap.names} reads no value")
        if node.kwargs:  # around an average, which INT8 takes of codes anyway
            self.pass_on(value, node)
            return
        if tap.coded:
            self.codes[node], self.dtypes[node] = Code(*tap.watch.code()), tap.dtype
            if value not in self.int8s:
                name = self.add(f"quantize_{value.name}", ours.Quantize(*self.codes[node]))
                self.int8s[value] = self.graph.call_module(name, (self.as_float(value),))
            self.int8s[node] = self.int8s[value]
        if value in self.floats:
            self.floats[node] = self.floats[value]
        maker = self.int8s[node] if tap.coded else self.floats[node]
        while maker.op != "call_module":
            maker = maker.all_input_nodes[0]
        low, high = tap.watch.range()
        self.values.append(
            Value(
                names=tuple(tap.names),
                tap=self.prefix + str(node.target),
                module=self.prefix + str(maker.target),
                low=low,
                high=high,
                code=self.codes.get(node),
            )
        )

    def pass_on(self, value: fx.Node, node: fx.Node) -> None:
        forms: Any
        for forms in (self.int8s, self.floats, self.codes, self.dtypes):
            if value in forms:
                forms[node] = forms[value]

    def is_carrier(self, node: fx.Node) -> bool:
        """Whether an operation works on codes here; of a list of codes, whatever reads a part."""
        if not carries(self.source, node) or not all(v in self.int8s and v in self.codes for v in carried(node)):
            return False
        one_code = len({self.codes[value] for value in carried(node)}) == 1
        return one_code and (node in self.want or node.target is operator.getitem)

    def is_tabled(self, node: fx.Node) -> bool:
        """Whether an activation gets codes here and is to leave some."""
        value, readers = node.args[:1], list(node.users)
        given = tabled(self.source, node) and value[0] in self.int8s and value[0] in self.codes
        return given and len(readers) == 1 and getattr(part(self.source, readers[0], Tap), "coded", False)

    def table(self, node: fx.Node) -> None:
        value: Any = node.args[0]
        tap = part(self.source, next(iter(node.users)), Tap)
        function = self.source.get_submodule(str(node.target))
        layer = Int8Activation(function, self.codes[value], tap.watch.code(), self.dtypes[value])
        self.int8s[node] = self.graph.call_module(self.add(str(node.target), layer), (self.int8s[value],))

    def carrier(self, node: fx.Node) -> None:
        value = carried(node)[0]
        self.pass_on(value, node)
        self.floats.pop(node, None)
        if node.op != "call_module":
            self.int8s[node] = self.graph.node_copy(node, self.as_read)
            if pads_with_zeros(node):
                mode = ("constant",) if node.target is torch.ops.aten.pad.default else ()
                self.int8s[node].args = (*self.int8s[node].args[:2], *mode, float(self.codes[value].zero_point))
            return
        layer = _carried(self.source.get_submodule(str(node.target)), self.codes[value])
        if layer is not None:
            self.int8s[node] = self.graph.call_module(self.add(str(node.target), layer), (self.int8s[value],))

    def float(self, node: fx.Node) -> None:
        """Copies an operation as it is, reading floats; one that asks for a shape alone reads what there is."""
        if node.op == "output":
            self.graph.output(fx.map_arg(node.args[0], self.as_float))
            return
        asks = (node.op == "call_method" and node.target in _ASKING) or (
            node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim", "device")
        )
        asks = asks or node.target is torch.ops.aten.sym_size.int
        if not asks:
            self.tell(node)
        self.floats[node] = self.graph.node_copy(node, self.as_read if asks else self.as_float)
        if node.op == "call_module":
            self.floats[node].target = self.add(str(node.target), self.source.get_submodule(str(node.target)))
        elif node.op == "get_attr":
            self.modules[str(node.target)] = attribute(self.source, str(node.target))

    def tell(self, node: fx.Node) -> None:
        """The report's line of an operation that stays in float."""
        line = kept.line(self.source, self.prefix, node, any(value in self.int8s for value in node.all_input_nodes))
        if line is not None and line not in self.kept:
            self.kept.append(line)

    def as_read(self, value: fx.Node) -> fx.Node:
        return self.int8s[value] if value in self.int8s else self.floats[value]

    def as_float(self, value: fx.Node) -> fx.Node:
        if value not in self.floats:
            dtype = self.dtypes[value]
            layer = ours.Dequantize(*self.codes[value], _stored(dtype))
            name = self.add(f"dequantize_{value.name.removesuffix('_tap')}", layer)
            self.floats[value] = self.widened(self.graph.call_module(name, (self.int8s[value],)), dtype)
        return self.floats[value]

    def widened(self, made: fx.Node, dtype: torch.dtype) -> fx.Node:
        return self.graph.call_method("to", (made, dtype)) if _stored(dtype) is not dtype else made

    def add(self, name: str, layer: nn.Module) -> str:
        free, count = name, 0
        while self.modules.get(free, layer) is not layer:
            count += 1
            free = f"{name}_{count}"
        self.modules[free] = layer
        return free


def convert(prepared: nn.Module) -> tuple[nn.Module, list[Conversion]]:
    """The INT8 form of a model whose taps have seen data; a copy, with what stays float around the same tensors."""
    model = copy_of_pieces(prepared)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, fx.GraphModule) and any(part(module, node, Tap) for node in module.graph.nodes)
    ]
    conversions = []
    for name in sorted(names, key=len, reverse=True):  # those inside others first
        piece: Any = model.get_submodule(name)
        conversion = Conversion(piece, f"{name}." if name else "")
        made = conversion.run()
        conversions.append(conversion)
        if name:
            model.set_submodule(name, made)
        else:
            model = made
    return model, sorted(conversions, key=lambda conversion: names.index(conversion.prefix[:-1]))


def _stored(dtype: torch.dtype) -> torch.dtype:
    """What INT8's kernels leave for a model in `dtype`: float32 at most."""
    return torch.float32 if dtype is torch.float64 else dtype


def _carried(layer: nn.Module, code: Code) -> nn.Module | None:
    """The layer that does to a code what `layer` does to its numbers; None where that is nothing."""
    pool: Any = layer
    if isinstance(layer, nn.ReLU):
        return Int8ReLU(code.zero_point)
    if isinstance(layer, nn.Flatten):
        return layer
    if isinstance(layer, nn.MaxPool2d):
        return ours.Int8MaxPool2d(pool.kernel_size, pool.stride, pool.padding, pool.dilation, ceil_mode=pool.ceil_mode)
    if isinstance(layer, nn.AvgPool2d):
        return ours.Int8AvgPool2d(
            pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad, pool.divisor_override,
            zero_point=code.zero_point,
        )  # fmt: skip
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return ours.Int8AdaptiveAvgPool2d(code.zero_point)
    return None
