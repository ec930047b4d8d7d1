"""Makes layers of a captured graph's operators, so that there is one form to look for whatever the code's spelling.

A convolution, linear layer, batch norm, activation or pool becomes the layer of torch.nn that computes it, under the
name of the module whose code it is; what computes nothing in evaluation goes. Where the graph is of training, batch
norms and what drops at random know both modes, and weights stay parameters. The graph is functional, so a copy is what
it copies, and a view may become a reshape: what was contiguous in the float model is channels_last in INT8.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from .dropped import Dropped, alike, drops, erase
from .in_place import DROPOUTS

aten = torch.ops.aten

_NOTHING = (
    aten.clone.default, aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default, aten.contiguous.default
)  # fmt: skip
_RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
_METHODS = {
    aten.squeeze.default: "squeeze",
    aten.squeeze.dim: "squeeze",
    aten.squeeze.dims: "squeeze",
    aten.unsqueeze.default: "unsqueeze",
}
_POOLS = {  # the layer, and which of its arguments are the operator's
    aten.max_pool2d.default: (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
    aten.avg_pool2d.default: (
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    aten.adaptive_avg_pool2d.default: (nn.AdaptiveAvgPool2d, ("output_size",)),
}
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def as_layers(module: fx.GraphModule, original: nn.Module, trains: bool = False) -> dict[nn.Module, nn.Module]:
    """Brings a captured graph into that form.

    Args:
        module: from `capture`.
        original: the module that was captured; its parts' names become the layers', and where the graph is of
            training, their modes too.
        trains: it is of training.

    Returns:
        Whose code each of the layers made is.
    """
    homes: dict[nn.Module, nn.Module] = {}
    graph = module.graph
    changed = {node.args[0] for node in graph.nodes if node.target is aten.copy_.default}
    for node in graph.nodes:
        _name(node, original)
    gone: set[fx.Node] = set()
    # What has numbers of its own first: they may be computed by what else would become a layer.
    for node in sorted(graph.nodes, key=lambda node: (not _has_weight(node), node.target is not aten.mul.Tensor)):
        if node.op != "call_function" or node in gone or not (node.users or node.is_impure()):
            continue
        if (same := _computes_nothing(node)) is not None:
            if not any(reader.op == "output" for reader in node.users):
                node.replace_all_uses_with(same)
                graph.erase_node(node)
            continue
        made = drops(node) if trains else None
        made = made or _layer(module, node, changed, trains)
        if made is None:
            _respell(node)
            continue
        layer, input, result = made
        home = original.get_submodule(str(node.meta.get("home", "")))
        layer.train(trains and home.training)
        homes[layer] = home
        if trains and isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.num_batches_tracked = getattr(home, "num_batches_tracked", None)
        name = _free(module, node, layer)
        with graph.inserting_before(result):
            call = graph.call_module(name, (input,))
        call.meta = dict(node.meta)
        result.replace_all_uses_with(call)
        if isinstance(layer, Dropped) or _has_weight(node) or node is not result:
            gone |= erase(result)
    module.training = trains and original.training
    graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    for node in graph.nodes:
        node.meta = {key: value for key, value in node.meta.items() if key in ("home", "calls", "layer", "why")}
    graph.lint()
    module.recompile()
    return homes


def _name(node: fx.Node, original: nn.Module) -> None:
    """Notes whose code a node is: "home"; all "calls" that it is part of, each with its module's name; and as "layer"
    what it is, where that is a layer of torch.nn."""
    stack = [
        (call, str(path).removeprefix("module").removeprefix("."))
        for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items()
    ]
    node.meta["calls"] = tuple((call, name) for call, name in stack if name)
    home = stack[-1][1] if stack else ""
    try:
        module = original.get_submodule(home)
    except AttributeError:  # a module that the code makes
        return
    node.meta["home"] = home
    if type(module).__module__.startswith("torch.nn.modules") and not any(True for _ in module.children()):
        node.meta["layer"] = f"{type(module).__name__}({module.extra_repr()})"
    node.meta["whole"] = not any(True for _ in module.children())


def _free(module: fx.GraphModule, node: fx.Node, layer: nn.Module) -> str:
    """Where the layer goes: one that is there already and does the same serves both."""
    home = node.meta.get("home", "")
    name = home if home and node.meta.get("whole") else f"{home}.{node.name}".lstrip(".")
    there = dict(module.named_modules()).get(name)
    if there is not None and type(there) is type(layer) and there.extra_repr() == layer.extra_repr():
        mine, its = (dict(part.named_parameters()) | dict(part.named_buffers()) for part in (layer, there))
        if mine.keys() == its.keys() and all(mine[key] is its[key] for key in mine):
            return name
    return add_module(module, name, layer)


def add_module(module: fx.GraphModule, name: str, part: nn.Module) -> str:
    """Adds `part` under `name`, or under the first of name_1, name_2, ... that is free; returns which."""
    taken = {n for n, _ in module.named_modules(remove_duplicate=False)} | set(vars(module)) | set(dir(type(module)))
    free, count = name, 0
    while free in taken or (("." not in free) and hasattr(module, free)):
        count += 1
        free = f"{name}_{count}"
    module.add_submodule(free, part)
    return free


def _has_weight(node: fx.Node) -> bool:
    return node.target in (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)


def _computes_nothing(node: fx.Node) -> Any:
    """The value that a node gives back as it is, None where it computes something."""
    first: Any = node.args[0] if node.args else None
    if node.target in _NOTHING or (node.target in DROPOUTS and node.args[2] is False):
        return first
    if node.target is aten.copy.default and alike(node.args[1], first):
        return node.args[1]  # what a value becomes where all of it is written
    if node.target is aten.slice.Tensor:
        arguments = _arguments(node)
        if arguments["start"] in (0, None) and arguments["end"] == 2**63 - 1 and arguments["step"] == 1:
            return first
    return None


def _arguments(node: fx.Node) -> dict[str, Any]:
    """An operator's arguments by name, defaults included."""
    schema = node.target._schema  # type: ignore[union-attr]
    found = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    found.update(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return found | node.kwargs


def _respell(node: fx.Node) -> None:
    """Of what stays a function, what works on codes too becomes a method."""
    if node.target in _RESHAPES:
        node.op, node.target = "call_method", "reshape"
    elif node.target in _METHODS:
        node.op, node.target = "call_method", _METHODS[node.target]


def _layer(
    module: fx.GraphModule, node: fx.Node, changed: set[Any], trains: bool
) -> tuple[nn.Module, fx.Node, fx.Node] | None:
    """The layer that a node is, what it reads, and the node that is its result."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return None
    arguments = _arguments(node)
    input: Any = node.args[0]
    layer: nn.Module | None = None
    result = node
    if node.target in _ACTIVATIONS:
        layer = _ACTIVATIONS[node.target](arguments)
    elif node.target in _POOLS:
        kind, names = _POOLS[node.target]
        layer = kind(**{name: _pair(arguments[name]) for name in names if arguments[name] != []})
    elif node.target in _RESHAPES and _flattens(node):
        layer = nn.Flatten()
    elif _has_weight(node):
        weight, bias = (_constant(module, arguments[name], changed, trains) for name in ("weight", "bias"))
        if weight is not None and (bias is not None or arguments["bias"] is None):
            layer = _with_weight(node, arguments, weight, bias)
        elif trains:
            node.meta["why"] = "its weight is computed, of parameters that are trained"
    elif node.target is aten.mean.dim and _is_average(arguments):
        layer = nn.AdaptiveAvgPool2d(1)
    elif node.target is aten.mul.Tensor:
        return _affine(module, node, changed, trains)
    elif node.target is aten.flatten.using_ints:
        layer = nn.Flatten(arguments["start_dim"], arguments["end_dim"])
    elif node.target is aten.batch_norm.default:
        if trains or not arguments["training"] or arguments["running_mean"] is None:
            layer = _norm(module, node, arguments, changed)
    elif node.target in (aten._native_batch_norm_legit_no_training.default, aten._native_batch_norm_legit.no_stats):
        layer = _norm(module, node, arguments, changed)
        readers = list(node.users)
        if [(reader.target, reader.args[1]) for reader in readers] != [(operator.getitem, 0)]:
            return None
        result = readers[0]
    return None if layer is None else (layer, input, result)


_ACTIVATIONS: dict[Any, Callable[[dict[str, Any]], nn.Module | None]] = {
    aten.relu.default: lambda a: nn.ReLU(),
    aten.relu6.default: lambda a: nn.ReLU6(),
    aten.hardtanh.default: lambda a: nn.ReLU6() if (a["min_val"], a["max_val"]) == (0, 6) else None,
    aten.leaky_relu.default: lambda a: nn.LeakyReLU(a["negative_slope"]),
    aten.silu.default: lambda a: nn.SiLU(),
    aten.gelu.default: lambda a: nn.GELU(a["approximate"]),
    aten.hardswish.default: lambda a: nn.Hardswish(),
}


def _is_average(arguments: dict[str, Any]) -> bool:
    """Whether a mean is an image's, of one number a channel."""
    input = arguments["self"].meta.get("val")
    if input is None or input.dim() != 4 or not arguments["keepdim"] or arguments["dtype"] is not None:
        return False
    return sorted(dim % 4 for dim in arguments["dim"] or ()) == [2, 3]


def _affine(
    module: fx.GraphModule, node: fx.Node, changed: set[Any], trains: bool
) -> tuple[nn.Module, fx.Node, fx.Node] | None:
    """A batch norm, of a convolution's result times one constant a channel plus another, as a frozen one computes."""
    conv, scale = node.args
    reader = next(iter(node.users), None)
    if reader is None or len(node.users) != 1 or reader.target is not aten.add.Tensor or reader.kwargs:
        return None
    if not isinstance(conv, fx.Node) or conv.op != "call_module" or reader.args[0] is not node:
        return None
    layer: Any = module.get_submodule(str(conv.target))
    numbers: list[Any] = [_constant(module, value, changed, trains) for value in (scale, reader.args[1])]
    if not isinstance(layer, nn.Conv2d) or any(number is None for number in numbers):
        return None
    if any(
        tuple(number.shape) not in ((1, layer.out_channels, 1, 1), (layer.out_channels, 1, 1)) for number in numbers
    ):
        return None
    norm: Any = nn.BatchNorm2d(layer.out_channels, eps=0.0, device=numbers[0].device, dtype=numbers[0].dtype)
    norm.weight, norm.bias = (_parameter(number.flatten()) for number in numbers)
    return norm, conv, reader


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _flattens(node: fx.Node) -> bool:
    """Whether a view keeps the first dimension and makes one of the others."""
    input: Any = node.args[0]
    before, after = input.meta.get("val"), node.meta.get("val")
    if before is None or after is None:
        return False
    return before.dim() > 2 == after.dim() and str(before.shape[0]) == str(after.shape[0])


def _constant(module: fx.GraphModule, node: Any, changed: set[Any], trains: bool = False) -> Any:
    """The value of what is made of the model's own tensors alone, as a normalized weight is; None of anything else.

    In training these change, and only they themselves are such.
    """
    if not isinstance(node, fx.Node) or node in changed:
        return None
    if node.op == "get_attr":
        return getattr(module, str(node.target))
    if trains or node.op != "call_function" or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return None
    values = {read: _constant(module, read, changed) for read in node.all_input_nodes}
    if not values or any(value is None for value in values.values()):
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda read: values[read])
    with torch.no_grad():
        made = node.target(*args, **kwargs)  # type: ignore[operator]
    return made


def _parameter(value: Tensor | None) -> nn.Parameter | None:
    if value is None or isinstance(value, nn.Parameter):
        return value
    return nn.Parameter(value.detach(), requires_grad=False)


def _with_weight(node: fx.Node, arguments: dict[str, Any], weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer: Any
    if node.target is aten.linear.default:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    else:
        groups = arguments["groups"]
        stride, padding, dilation = (_pair(arguments[name]) for name in ("stride", "padding", "dilation"))
        layer = nn.Conv2d(
            weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), stride, padding, dilation, groups,  # type: ignore[arg-type]
            bias is not None, device="meta",
        )  # fmt: skip
    layer.weight, layer.bias = _parameter(weight), _parameter(bias)
    return layer


def _norm(module: fx.GraphModule, node: fx.Node, arguments: dict[str, Any], changed: set[Any]) -> nn.Module | None:
    names = ["weight", "bias", *(("running_mean", "running_var") if _keeps_statistics(arguments) else ())]
    tensors = {name: _constant(module, arguments[name], changed) for name in names}
    if any(tensors[name] is None and arguments[name] is not None for name in names):
        return None
    input = arguments["input"].meta["val"]
    norm: Any = _NORMS[input.dim()](
        int(input.shape[1]), arguments["eps"], arguments["momentum"], affine=False,
        track_running_stats=_keeps_statistics(arguments), device="meta",
    )  # fmt: skip
    norm.weight, norm.bias = _parameter(tensors["weight"]), _parameter(tensors["bias"])
    if _keeps_statistics(arguments):
        norm.running_mean, norm.running_var = tensors["running_mean"], tensors["running_var"]
        norm.num_batches_tracked = None
    return norm


def _keeps_statistics(arguments: dict[str, Any]) -> bool:
    return arguments.get("running_mean") is not None
