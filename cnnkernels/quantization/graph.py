"""The graphs of a model's code: torch.fx's, of the whole model or of its parts, in the form the other files expect.

The model is cut into pieces. One piece is the whole model where its code can be traced. Where it cannot (control flow
on values, state that it keeps), its parts are traced one by one. A module with hooks is a piece of its own, so that
they see what they saw: its float input and output.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from .. import fusion
from ..convert import _copy_sharing_tensors

LAYERS = (nn.Conv2d, nn.Linear)
_WHOLE = (*LAYERS, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.MaxPool2d, nn.AvgPool2d)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


@dataclass
class Piece:
    """A part of the model that has a graph.

    Attributes:
        prefix: its name in the model and a dot; "" is the whole model.
        module: runs the graph.
        alone: it is one layer, which code around it calls.
        shapes: of the values that are tensors, by node, as they were for the example input.
        dtypes: likewise.
    """

    prefix: str
    module: fx.GraphModule
    alone: bool
    shapes: dict[fx.Node, torch.Size] = field(default_factory=dict)
    dtypes: dict[fx.Node, torch.dtype] = field(default_factory=dict)


@dataclass
class Pieces:
    """A model cut into pieces, which stand where their modules stood, and why it was cut."""

    model: nn.Module
    pieces: list[Piece]
    obstacles: list[tuple[str, str]]


class _Tracer(fusion._Tracer):
    """Takes whole what may become INT8, and what has hooks."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _WHOLE) or hooked(m) or super().is_leaf_module(m, module_qualified_name)


def hooked(module: nn.Module) -> bool:
    return any(getattr(module, hooks, None) for hooks in fusion._HOOKS)


def cut(model: nn.Module) -> Pieces:
    """Cuts a copy of `model` into pieces; its parameters and buffers are the model's own."""
    whole = Pieces(_copy_sharing_tensors(model), [], [])
    # Tracing runs code on stand-ins for tensors, which it may keep: another copy is for that.
    _cut(whole, _copy_sharing_tensors(model), "")
    return whole


def _cut(whole: Pieces, replica: nn.Module, name: str) -> None:
    if not any(isinstance(module, LAYERS) for module in replica.modules()):
        return
    original = whole.model.get_submodule(name)
    prefix = f"{name}." if name else ""
    alone = isinstance(replica, LAYERS)
    try:
        graph = _Tracer().trace(nn.Sequential(replica) if alone else replica)
        _refuse_kept(replica)
    except Exception as error:  # whatever the model's code does with what is not a tensor
        if any(True for _ in replica.children()):
            if type(replica) not in (nn.ModuleList, nn.ModuleDict):
                whole.obstacles.append((name, f"{type(error).__name__}: {error}".splitlines()[0]))
            for child, module in replica.named_children():
                if type(module) is not nn.Sequential or fusion._only_calls(type(replica), child):
                    _cut(whole, module, prefix + child)
        return
    module = fx.GraphModule(nn.Sequential(original) if alone else original, graph, type(original).__name__)
    if alone:
        module.training = original.training
    else:
        adopt(module, original)
    _put(whole, name, module)
    follow_in_place(graph)
    _as_modules(module)
    whole.pieces.append(Piece(prefix, module, alone))
    inner = {str(n.target) for n in graph.nodes if n.op == "call_module"}
    for target in sorted(inner):
        part = module.get_submodule(target)
        if not alone and hooked(part) and any(True for _ in part.children()):
            _cut(whole, replica.get_submodule(target), prefix + target)


def _refuse_kept(replica: nn.Module) -> None:
    for name, module in replica.named_modules():
        for attribute, value in {**vars(module), **module._buffers}.items():
            if isinstance(value, fx.Proxy):
                raise TypeError(f"its code keeps a tensor in {f'{name}.{attribute}'.lstrip('.')}")


def adopt(module: fx.GraphModule, original: nn.Module) -> None:
    """Gives the module that runs a graph what code around it may ask of the original, and its hooks."""
    plain = {name: value for name, value in vars(original).items() if not name.startswith("_")}
    if isinstance(original, fx.GraphModule):
        plain = original.meta["attributes"]
    module.meta["attributes"] = plain
    for name, value in plain.items():
        if name not in vars(module):
            setattr(module, name, value)
    for name, value in vars(original).items():
        if name.startswith("_") and "hooks" in name and value:
            vars(module)[name] = value.copy()


def _put(whole: Pieces, name: str, module: nn.Module) -> None:
    if name:
        whole.model.set_submodule(name, module)
    else:
        whole.model = module


def follow_in_place(graph: fx.Graph) -> None:
    """Lets who reads a value after an operation changed it in place read the operation's result."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not node.args or not isinstance(node.args[0], fx.Node) or not _works_in_place(node):
            continue
        changed = node.args[0]
        for reader in list(changed.users):
            if order[reader] > order[node]:
                reader.replace_input_with(changed, node)


def _works_in_place(node: fx.Node) -> bool:
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


def _as_modules(module: fx.GraphModule) -> None:
    """Makes layers of the functions that have one, so that there is one form to look for.

    A dropout traced in training becomes one that knows both modes. A view becomes a reshape: what was contiguous in the
    float model may be channels_last in the INT8 one.
    """
    for node in list(module.graph.nodes):
        node.type = None  # an annotation is code's, which a copy of the graph cannot look up
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


class _Shapes(fx.Interpreter):
    """Runs a graph and notes the shapes of its values."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(piece.module)
        self.piece = piece

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.piece.shapes[n], self.piece.dtypes[n] = value.shape, value.dtype
        return value


def call(model: nn.Module, batch: Any) -> Any:
    """The model's output for a batch: a tensor, a tuple or list of arguments, or a dict of named ones."""
    if isinstance(batch, dict):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def note_shapes(whole: Pieces, batch: Any) -> None:
    """Runs the model once, in evaluation and without gradient, and notes every piece's shapes."""
    inputs: dict[int, list[Any]] = {}

    def noting(place: int) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            inputs.setdefault(place, [*bound.args, *bound.kwargs.values()])

        return note

    modes = {module: module.training for module in whole.model.modules()}
    handles = [
        piece.module.register_forward_pre_hook(noting(i), with_kwargs=True) for i, piece in enumerate(whole.pieces)
    ]
    try:
        whole.model.eval()
        with torch.no_grad():
            call(whole.model, batch)
            for handle in handles:
                handle.remove()
            for i, piece in enumerate(whole.pieces):
                if i in inputs:
                    _Shapes(piece).run(*inputs[i])
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
