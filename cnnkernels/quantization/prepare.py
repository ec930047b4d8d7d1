"""Says which values of a piece become INT8, and puts a tap on each: a module that sees it go by.

A value is worth a code where a unit reads it, directly or through operations that carry INT8 (pooling, ReLU, flatten,
...: they pick, bound or average values of one code, so the code stays what it was; or an activation, which gives each
code another one). A code begins behind a unit or such an activation, or where a unit reads a value that was made in
float.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from ..convert.dropped import Dropped
from ..convert.graph import Piece
from ..convert.layers import add_module
from ..convert.trace import hooked
from .units import Unit, own_arithmetic

aten = torch.ops.aten

_CARRYING_METHODS = ("reshape", "contiguous", "squeeze", "unsqueeze")
_CARRYING = (
    aten.permute.default, aten.transpose.int, aten.slice.Tensor, aten.select.int, aten.narrow.default,
    aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int, aten.expand.default,
    aten.pixel_shuffle.default, aten.channel_shuffle.default, aten.flip.default, aten.roll.default,
)  # fmt: skip


_TABLED = nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish


class Tap(nn.Module):
    """Around what watches (or rounds) one value of the graph.

    Attributes:
        watch: an observer, or in training a fake quantizer.
        names: the modules that make the value, as the report names them; for the model's input that of the graph.
        coded: the value becomes INT8; False where it is only watched.
        dtype: the value's in the float model.
        open: lets the value by, unseen and as it is.
    """

    def __init__(self, watch: nn.Module, names: list[str], coded: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.watch: Any = watch
        self.names, self.coded, self.dtype = names, coded, dtype
        self.open = False

    def forward(self, input: Any, average: str = "") -> Any:
        """The value; or, around an average in training, what goes into it as codes, or comes out of it as a number."""
        if self.open:
            return input
        if average:
            return self.watch.codes(input) if average == "in" else self.watch.numbers(input)
        return self.watch(input).to(self.dtype)

    def extra_repr(self) -> str:
        return f"of {' + '.join(self.names)}"


def carries(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an operation takes the code of its first argument to its result."""
    if node.op == "call_method":
        return node.target in _CARRYING_METHODS
    if node.op == "call_function":
        if node.target is operator.getitem:
            return isinstance(node.args[0], fx.Node) and carries(module, node.args[0])
        return node.target in (*_CARRYING, aten.cat.default) or pads_with_zeros(node)
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    layer = module.get_submodule(str(node.target))
    if hooked(layer) or own_arithmetic(layer):
        return False
    if isinstance(layer, nn.MaxPool2d):
        return not layer.return_indices
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return layer.output_size in (1, (1, 1), [1, 1])
    if isinstance(layer, nn.AvgPool2d):
        return not sums(layer)
    passing = nn.ReLU, nn.Flatten, nn.Identity, Dropped
    return isinstance(layer, passing)


def tabled(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an operation gives each code of its argument another one, which a table knows."""
    layer = part(module, node, nn.Module)
    return isinstance(layer, _TABLED) and not hooked(layer) and not own_arithmetic(layer)


def carried(node: fx.Node) -> list[fx.Node]:
    """The values whose code an operation takes to its result: one, but for a concatenation, whose have one code."""
    values: Any = node.args[0] if node.target is aten.cat.default else node.args[:1]
    return list(values)


def pads_with_zeros(node: fx.Node) -> bool:
    """Whether a node puts zeros around a value, which in a code are its zero point."""
    if node.target is aten.constant_pad_nd.default:
        return node.args[2:] in ((), (0,), (0.0,))
    if node.target is aten.pad.default:
        return node.args[2:] in ((), ("constant",), ("constant", None), ("constant", 0), ("constant", 0.0))
    return False


def sums(pool: nn.AvgPool2d) -> bool:
    """Whether a pool's divisor makes more of its values than their average, which may leave the range of their code."""
    size = pool.kernel_size
    window = size * size if isinstance(size, int) else size[0] * size[-1]
    return pool.divisor_override is not None and not pool.divisor_override >= window


def averages(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an operation makes new values, which must be rounded to the code again."""
    kinds = nn.AvgPool2d, nn.AdaptiveAvgPool2d
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), kinds)


def part(module: fx.GraphModule, node: fx.Node, kind: type[nn.Module]) -> Any:
    """The module of that kind which a node calls, or None."""
    found = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    return found if isinstance(found, kind) else None


def wanted(module: fx.GraphModule) -> set[fx.Node]:
    """The values that a unit reads, directly or through what carries INT8."""
    found: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        for reader in node.users:
            works = carries(module, reader) or tabled(module, reader)
            through = reader in found and (works or part(module, reader, Tap) is not None)
            if part(module, reader, Unit) is not None or through:
                found.add(node)
    return found


def put_taps(piece: Piece, watch: Callable[[bool], nn.Module], inside: bool) -> None:
    """Puts a tap behind every unit and on every value made in float that a unit reads.

    Args:
        watch: makes what watches a value; told whether it is to be coded.
        inside: lets averages be taken and rounded as INT8 does, and units know their operands' codes.
    """
    module = piece.module
    want = wanted(module)
    tap_of: dict[fx.Node, fx.Node] = {}  # of the values that have a code, the tap it is from

    def tap(value: fx.Node, names: list[str], coded: bool) -> fx.Node:
        target = add_module(
            module, f"{value.name.removesuffix('_unit')}_tap", Tap(watch(coded), names, coded, piece.dtypes[value])
        )
        with module.graph.inserting_after(value):
            node = module.graph.call_module(target, (value,))
        tap_of[node] = node
        return node

    def named(value: fx.Node) -> str:
        return piece.prefix + (str(value.target) if value.op in ("call_module", "placeholder") else value.name)

    together: list[list[fx.Node]] = []  # taps whose values have one code
    for node in list(module.graph.nodes):
        unit = part(module, node, Unit)
        readers = list(node.users)
        if unit is not None:
            behind = tap(node, unit.names, node in want)
            if node not in want:
                del tap_of[behind]
        elif carries(module, node) and node in want and any(value in tap_of for value in carried(node)):
            for value in carried(node):
                if value not in tap_of:
                    node.replace_input_with(value, tap(value, [named(value)], True))
            together.append([tap_of[value] for value in carried(node)])
            tap_of[node] = together[-1][0]
            if inside and averages(module, node):
                _average_codes(module, node, tap_of)
            continue
        elif tabled(module, node) and node in want and node.args[0] in tap_of:
            behind = tap(node, [named(node)], True)
        elif any(part(module, reader, Unit) is not None for reader in readers):
            # Who works on codes reads this code too, not the float beside it: a value has one.
            readers = [r for r in readers if part(module, r, Unit) is not None or (r in want and carries(module, r))]
            behind = tap(node, [named(node)], True)
        else:
            continue
        for reader in readers:
            reader.replace_input_with(node, behind)
    _share(module, together)
    for node in module.graph.nodes:
        if inside and (unit := part(module, node, Unit)) is not None:
            unit.codes = [module.get_submodule(str(tap_of[value].target)).watch for value in node.args]
    module.graph.lint()
    module.recompile()


def _share(module: fx.GraphModule, together: list[list[fx.Node]]) -> None:
    """Gives one code to the taps of a list, and to those of lists that have one in common."""
    groups: list[set[str]] = []
    for nodes in together:
        group = {str(node.target) for node in nodes}
        groups = [*(g for g in groups if not g & group), group.union(*(g for g in groups if g & group))]
    for group in groups:
        taps = [module.get_submodule(name) for name in sorted(group)]
        first: Any = taps[0].watch
        for tap, watch in zip(taps, first.shared([tap.watch for tap in taps]), strict=True):
            tap.watch = watch


def _average_codes(module: fx.GraphModule, node: fx.Node, tap_of: dict[fx.Node, fx.Node]) -> None:
    """Lets an average be taken of codes, whose sums are exact: rounding must not decide where it is half a code."""
    tap, value, readers = str(tap_of[node].target), node.all_input_nodes[0], list(node.users)
    with module.graph.inserting_before(node):
        node.replace_input_with(value, module.graph.call_module(tap, (value,), {"average": "in"}))
    with module.graph.inserting_after(node):
        number = module.graph.call_module(tap, (node,), {"average": "out"})
    tap_of[number] = tap_of[node]
    for reader in readers:
        reader.replace_input_with(node, number)
