"""The graphs of a model's code: torch.fx's, of the whole model or of its parts, in the form the other files expect.

The model is cut into pieces. One piece is the whole model where its code can be traced. Where it cannot (control flow
on values, state that it keeps), its parts are traced one by one. A module with hooks is a piece of its own, so that
they see what they saw: its float input and output.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from ..convert.trace import Tracer, copy_sharing_tensors, hooked, only_calls
from .canonical import as_modules, follow_in_place

LAYERS = (nn.Conv2d, nn.Linear)
_WHOLE = (*LAYERS, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.MaxPool2d, nn.AvgPool2d)
_FIXED = (type(None), bool, int, float, str)


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


class _LayerTracer(Tracer):
    """Takes whole what may become INT8, and what has hooks."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _WHOLE) or hooked(m) or super().is_leaf_module(m, module_qualified_name)


def cut(model: nn.Module, batch: Any) -> Pieces:
    """Cuts a copy of `model` into pieces; its parameters and buffers are the model's own.

    Args:
        batch: an example of the model's input. What is no tensor in it, or in what the model's code calls its parts
            with, is fixed: a graph has one way through the code.

    Raises:
        ValueError: a parameter has no size yet.
    """
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"the model's parameter {name} has no size yet: run the model once before it is quantized")
    whole = Pieces(copy_sharing_tensors(model), [], [])
    # Tracing runs code on stand-ins for tensors, which it may keep: another copy is for that.
    replica = copy_sharing_tensors(model)
    parts = {name: part for name, part in replica.named_modules() if not isinstance(part, LAYERS)}
    _cut(whole, replica, "", _first_calls(replica, parts, batch))
    pieces = {piece.prefix: piece for piece in whole.pieces}
    for prefix, arguments in _first_calls(whole.model, {p: piece.module for p, piece in pieces.items()}, batch).items():
        with torch.no_grad():
            _Shapes(pieces[prefix]).run(*arguments.values())
    return whole


def _first_calls(model: nn.Module, parts: dict[str, nn.Module], batch: Any) -> dict[str, dict[str, Any]]:
    """Runs the model once, in evaluation and without gradient; what each of its parts was first called with."""
    seen: dict[str, dict[str, Any]] = {}

    def noting(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            seen.setdefault(name, bound.arguments)

        return note

    modes = {module: module.training for module in model.modules()}
    handles = [part.register_forward_pre_hook(noting(name), with_kwargs=True) for name, part in parts.items()]
    try:
        model.eval()
        with torch.no_grad():
            call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return seen


def _cut(whole: Pieces, replica: nn.Module, name: str, calls: dict[str, dict[str, Any]]) -> None:
    if not any(isinstance(module, LAYERS) for module in replica.modules()):
        return
    original = whole.model.get_submodule(name)
    prefix = f"{name}." if name else ""
    alone = isinstance(replica, LAYERS)
    try:
        graph = _traced(nn.Sequential(replica) if alone else replica, calls.get(name, {}))
        _refuse_kept(replica)
    except Exception as error:  # whatever the model's code does with what is not a tensor
        if any(True for _ in replica.children()):
            if type(replica) not in (nn.ModuleList, nn.ModuleDict):
                whole.obstacles.append((name, f"{type(error).__name__}: {error}".splitlines()[0]))
            for child, module in replica.named_children():
                if type(module) is not nn.Sequential or only_calls(type(replica), child):
                    _cut(whole, module, prefix + child, calls)
        return
    module = fx.GraphModule(nn.Sequential(original) if alone else original, graph, type(original).__name__)
    if alone:
        module.training = original.training
    else:
        adopt(module, original)
    _put(whole, name, module)
    follow_in_place(graph)
    as_modules(module)
    whole.pieces.append(Piece(prefix, module, alone))
    inner = {str(n.target) for n in graph.nodes if n.op == "call_module"}
    for target in sorted(inner):
        part = module.get_submodule(target)
        if not alone and hooked(part) and any(True for _ in part.children()):
            _cut(whole, replica.get_submodule(target), prefix + target, calls)


def _traced(module: nn.Module, arguments: dict[str, Any]) -> fx.Graph:
    """The graph of a module's code for the fixed ones of its arguments."""
    fixed = {name: value for name, value in arguments.items() if isinstance(value, _FIXED)}
    graph = _LayerTracer().trace(module, concrete_args=fixed or None)
    names = list(inspect.signature(module.forward).parameters)
    for node in graph.nodes:
        # torch.fx counts the parts of what is fixed; each has one, and is still called by its name.
        if node.op == "placeholder" and (name := str(node.target).removesuffix("_1")) in fixed and name in names:
            node.target = name
    return graph


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
