"""Brings a traced graph into one form: a layer where there is one for a function, nothing that works in place."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..convert.trace import hooked

_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


def follow_in_place(graph: fx.Graph) -> None:
    """Lets who reads a value after an operation changed it in place read the operation's result."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not node.args or not isinstance(node.args[0], fx.Node) or not works_in_place(node):
            continue
        changed = node.args[0]
        for reader in list(changed.users):
            if order[reader] > order[node]:
                reader.replace_input_with(changed, node)


def works_in_place(node: fx.Node) -> bool:
    """Whether a node is seen to change its first argument."""
    if node.op == "call_function":
        return node.target in _IN_PLACE or bool(_argument(node, "inplace"))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op == "call_module":
        owner = node.graph.owning_module
        return owner is not None and bool(getattr(owner.get_submodule(str(node.target)), "inplace", False))
    return False


def _argument(node: fx.Node, name: str) -> Any:
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a builtin, which says nothing of its arguments
        return None
    return bound.arguments.get(name)


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:  # fmt: skip
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, return_indices, ceil_mode)


_FUNCTIONS: dict[Any, Callable[..., nn.Module]] = {
    F.relu: lambda inplace=False: nn.ReLU(),
    F.relu_: nn.ReLU,
    torch.relu: nn.ReLU,
    torch.relu_: nn.ReLU,
    F.relu6: lambda inplace=False: nn.ReLU6(),
    F.leaky_relu: lambda negative_slope=0.01, inplace=False: nn.LeakyReLU(negative_slope),
    F.silu: lambda inplace=False: nn.SiLU(),
    F.gelu: nn.GELU,
    F.hardswish: lambda inplace=False: nn.Hardswish(),
    F.dropout: lambda p=0.5, training=True, inplace=False: nn.Dropout(p) if training else nn.Identity(),
    F.max_pool2d: _max_pool,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    torch.flatten: lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim),
}
_METHODS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    "flatten": _FUNCTIONS[torch.flatten],
}


def as_modules(module: fx.GraphModule) -> None:
    """Makes layers of the functions that have one, so that there is one form to look for, and drops Identity.

    A dropout traced in training becomes one that knows both modes. A view becomes a reshape: what was contiguous in the
    float model may be channels_last in the INT8 one.
    """
    for node in list(module.graph.nodes):
        node.type = None  # an annotation is code's, which a copy of the graph cannot look up
        if node.op == "call_module" and type(layer := module.get_submodule(str(node.target))) is nn.Identity:
            if not hooked(layer):
                node.replace_all_uses_with(node.all_input_nodes[0])
                module.graph.erase_node(node)
            continue
        if node.op == "call_method" and node.target == "view":
            if not any(isinstance(argument, torch.dtype) for argument in node.args):
                node.target = "reshape"
            continue
        makers: dict[Any, Callable[..., nn.Module]] = {"call_function": _FUNCTIONS, "call_method": _METHODS}.get(
            node.op, {}
        )
        if node.target not in makers:
            continue
        if node.target is F.dropout and _argument(node, "training") is not False and not module.training:
            continue  # asked for in evaluation too
        options = dict(node.kwargs)
        arguments = list(node.args) or [options.pop("input", None)]
        if not isinstance(arguments[0], fx.Node) or len(node.all_input_nodes) != 1:
            continue
        layer = makers[node.target](*arguments[1:], **options).train(module.training)
        with module.graph.inserting_before(node):
            made = module.graph.call_module(add_module(module, node.name, layer), (arguments[0],))
        node.replace_all_uses_with(made)
        module.graph.erase_node(node)
    module.recompile()


def add_module(module: fx.GraphModule, name: str, part: nn.Module) -> str:
    """Adds `part` under `name`, or under the first of name_1, name_2, ... that is free; returns which."""
    taken = {n for n, _ in module.named_modules(remove_duplicate=False)} | set(vars(module)) | set(dir(type(module)))
    free, count = name, 0
    while free in taken or (("." not in free) and hasattr(module, free)):
        count += 1
        free = f"{name}_{count}"
    module.add_submodule(free, part)
    return free
