"""What code does in training alone: dropout, and paths that are dropped at random.

In a graph captured in training both are operators that draw random numbers. Each becomes a module that runs them in
training and gives back its input in evaluation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from .in_place import DROPOUTS, trains

aten = torch.ops.aten

# What asks a tensor for its shape, type and device alone.
_LIKE = (
    aten.new_empty.default, aten.empty_like.default, aten.rand_like.default, aten.new_ones.default,
    aten.ones_like.default, aten.new_full.default, aten.full_like.default,
)  # fmt: skip
_PRODUCTS = (aten.mul.Tensor, aten.div.Tensor)


class Dropped(nn.Module):
    """Runs a part of the code in training; in evaluation that part does nothing.

    Args:
        code: of one argument.
    """

    def __init__(self, code: fx.GraphModule) -> None:
        super().__init__()
        self.code = code

    def forward(self, input: Tensor) -> Tensor:
        return self.code(input) if self.training else input

    def extra_repr(self) -> str:
        return ", ".join(str(n.target) for n in self.code.graph.nodes if n.op == "call_function")


def erase(result: fx.Node) -> set[fx.Node]:
    """Takes what nobody reads any more out of a graph: what draws random numbers is not dead to torch.fx."""
    unread, gone = [result], set()
    while unread:
        node = unread.pop()
        if node in gone or node.users or node.op != "call_function":
            continue
        unread += node.all_input_nodes
        node.graph.erase_node(node)
        gone.add(node)
    return gone


def drops(node: fx.Node) -> tuple[nn.Module, fx.Node, fx.Node] | None:
    """The module that a random node is in training, what it reads, and the node that is its result; None where it is
    not seen to do nothing in evaluation."""
    if node.target in DROPOUTS:
        read: Any = node.args[0]
        return (_dropped(node, read), read, node) if trains(node) else None
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return None
    found = _product(node)
    if found is None:
        return None
    input, result = found
    try:
        return _dropped(result, input), input, result
    except _OfSomethingElse:
        return None


def _product(random: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """What is multiplied by nothing but random numbers and constants, and the product."""
    noise, last = {random}, random
    while len(last.users) == 1:
        reader = next(iter(last.users))
        others = [n for n in reader.all_input_nodes if n not in noise and isinstance(n.meta.get("val"), Tensor)]
        if not others:
            noise.add(reader)
            last = reader
            continue
        divides = reader.target is aten.div.Tensor and reader.args[1] is last
        if len(others) != 1 or not (divides or reader.target is aten.mul.Tensor):
            return None
        input, result = others[0], reader
        while len(result.users) == 1 and (then := next(iter(result.users))).target in _PRODUCTS:
            if then.args[0] is not result or isinstance(then.args[1], fx.Node):
                break
            result = then
        return input, result
    return None


class _OfSomethingElse(Exception):
    """The part reads more than its input."""


def _dropped(result: fx.Node, input: Any) -> Dropped:
    """The code from a value to what it becomes, as a module of its own."""
    graph = fx.Graph()
    here: dict[fx.Node, Any] = {input: graph.placeholder("input")}

    def size(value: fx.Node) -> fx.Node:
        for dim, length in enumerate(input.meta["val"].shape):
            if str(length) == str(value.meta.get("val")):
                return graph.call_function(aten.sym_size.int, (here[input], dim))
        raise _OfSomethingElse

    def copied(value: fx.Node) -> Any:
        if value not in here:
            kind = value.meta.get("val")
            if isinstance(kind, torch.SymInt):
                here[value] = size(value)
            elif value.target is getattr and value.args[1] == "device":  # the model's, wherever it moves
                here[value] = graph.call_function(getattr, (here[input], "device"))
            elif value.op != "call_function":
                raise _OfSomethingElse
            else:
                given = value.args
                if value.target in _LIKE and alike(given[0], input):
                    given = (input, *given[1:])
                args, kwargs = fx.map_arg((given, value.kwargs), copied)
                here[value] = graph.call_function(value.target, args, kwargs)  # type: ignore[arg-type]
        return here[value]

    graph.output(copied(result))
    graph.lint()
    return Dropped(fx.GraphModule(nn.Module(), graph))


def alike(value: Any, other: fx.Node) -> bool:
    """Whether two values are of one shape, type and device."""
    a, b = value.meta.get("val"), other.meta.get("val")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return str(a.shape) == str(b.shape) and a.dtype is b.dtype and a.device == b.device
