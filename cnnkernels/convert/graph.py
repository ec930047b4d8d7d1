"""The graphs of a model's code, of the whole model or of its parts, in the form the other files expect.

The model is cut into pieces. One piece is the whole model where its code has one graph. Where it has none (control flow
on values), its parts are captured one by one, with what the model called them with. A module with hooks is a piece of
its own, so that they see what they saw: its float input and output. No graph is believed: a piece computes what its
module computed in the model, or it is none.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..nn.layer import KernelLayer
from .called import called_with
from .capture import capture
from .frozen import keep_frozen
from .graph_module import adopt, copy_of_pieces
from .inputs import Sizes
from .layers import as_layers
from .outputs import keep_orders
from .trace import copy_of_its_own, copy_sharing_tensors, hooked

LAYERS = (nn.Conv2d, nn.Linear)
_WHOLE = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)


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
    """A model cut into pieces, which stand where their modules stood.

    Attributes:
        obstacles: the names of those whose code has no graph, and why.
        training: the names of those that were in training mode, which the others were not.
    """

    model: nn.Module
    trains: bool
    any_size: bool = False
    keeps_orders: bool = True
    pieces: list[Piece] = field(default_factory=list)
    obstacles: list[tuple[str, str]] = field(default_factory=list)
    training: tuple[str, ...] = ()


@dataclass
class Call:
    """What a module was called with, by the names of its forward's parameters, and what it returned."""

    arguments: dict[str, Any]
    positional: int  # so many of them are given by position
    output: Any = None

    def of(self, module: Callable[..., Any], arguments: dict[str, Any] | None = None) -> Any:
        """Calls a module so."""
        items = list((self.arguments if arguments is None else arguments).items())
        by_name = dict(items[self.positional :])
        return module(*(value for _, value in items[: self.positional]), **by_name)


def cut(model: nn.Module, batch: Any, trains: bool, any_size: bool = False, keeps_orders: bool = True) -> Pieces:
    """Cuts a copy of `model` into pieces; the copy has parameters and buffers of its own.

    Args:
        batch: an example of the model's input. What is no tensor in it, or in what the model's code calls its parts
            with, is fixed: a graph has one way through the code.
        trains: for quantization-aware training; else the copy is in evaluation mode.
        any_size: the batch is not one of the caller's, and a graph for its size alone is none.
        keeps_orders: a graph gives back images in the order of memory that the code does.

    Raises:
        ValueError: a parameter has no size yet.
    """
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"the model's parameter {name} has no size yet: run the model once before it is quantized")
    whole = Pieces(copy_of_its_own(model), trains, any_size, keeps_orders)
    if not trains:
        whole.training = tuple(name for name, module in whole.model.named_modules() if module.training)
        whole.model.eval()
    with called_with(batch):
        calls = _calls(whole.model, [""], batch)
    _cut(whole, "", calls, batch)
    if whole.obstacles:
        try:
            [again] = _calls(whole.model, [""], batch)[""]
            _refuse_other(again.output, calls[""][0].output)
        except Exception as error:  # whatever the code around the pieces asks of what they stand for
            whole.obstacles.append(("", _told(error)))
            whole.model, whole.pieces = copy_of_its_own(model), []
            whole.model.train(trains and model.training)
    return whole


def pieces_of_its_own(model: nn.Module, names: list[str], batch: Any, trains: bool) -> Iterator[Piece]:
    """The graphs, for any size, of those parts of `model` whose code has one: around its own modules and tensors."""
    whole = Pieces(model, trains, any_size=True, keeps_orders=False)
    with called_with(batch):
        calls = _calls(model, names, batch)
        for name in names:
            try:
                piece = _piece(whole, f"{name}." if name else "", model.get_submodule(name), calls[name])
            except Exception:  # whatever the model's code does with what is not a tensor
                continue
            yield piece


@contextlib.contextmanager
def state_kept(model: nn.Module) -> Iterator[None]:
    """What runs within changes no buffer in the end."""
    state = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in state:
                buffer.copy_(value)


def _calls(model: nn.Module, names: list[str], batch: Any) -> dict[str, list[Call]]:
    """Runs a copy of the model once, in evaluation and without gradient; how some of its parts were called."""
    model = copy_of_pieces(model).eval()
    seen: dict[str, list[Call]] = {name: [] for name in names}
    running: list[Call] = []

    def began(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            running.append(_call(module, args, kwargs))
            seen[name].append(running[-1])

        return note

    def ended(module: nn.Module, args: Any, output: Any) -> None:
        running.pop().output = _kept(output)

    for name in names:
        part = model.get_submodule(name)
        part.register_forward_pre_hook(began(name), with_kwargs=True)
        part.register_forward_hook(ended, prepend=True)
    with torch.no_grad(), _random_numbers(), state_kept(model):
        call(model, _kept(batch))
    return seen


def _call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    signature = inspect.signature(module.forward)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments: dict[str, Any] = {}
    positional = 0
    for name, value in bound.arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            arguments.update((f"{name}_{place}", part) for place, part in enumerate(value))
            positional += len(value)
        elif kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[name] = value
            positional += kind is not inspect.Parameter.KEYWORD_ONLY
    return Call(_kept(arguments), positional)


def _kept(value: Any) -> Any:
    """As it is now: code that comes after may work in place."""
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


@contextlib.contextmanager
def _random_numbers() -> Iterator[None]:
    """The same ones every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _cut(whole: Pieces, name: str, calls: dict[str, list[Call]], batch: Any) -> None:
    original = whole.model.get_submodule(name)
    if not any(isinstance(module, LAYERS) or _has_weights(module) for module in original.modules()):
        return
    prefix = f"{name}." if name else ""
    if calls[name]:
        try:
            piece = _piece(whole, prefix, original, calls[name])
        except Exception as error:  # whatever the model's code does with what is not a tensor
            if any(True for _ in original.children()):
                whole.obstacles.append((name, _told(error)))
        else:
            if not piece.alone:
                adopt(piece.module, original)
            _put(whole, name, piece.module)
            whole.pieces.append(piece)
            inner = {str(n.target) for n in piece.module.graph.nodes if n.op == "call_module"}
            for target in sorted(inner):
                part = piece.module.get_submodule(target)
                if not piece.alone and hooked(part) and any(True for _ in part.children()):
                    _cut(whole, prefix + target, _calls(whole.model, [prefix + target], batch), batch)
            return
    elif isinstance(original, LAYERS):
        original.int8_reason = "the example input does not run it"  # type: ignore[assignment]
    children = [prefix + child for child, _ in original.named_children()]
    calls = _calls(whole.model, children, batch)
    for child in children:
        _cut(whole, child, calls, batch)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))


def _piece(whole: Pieces, prefix: str, original: nn.Module, calls: list[Call]) -> Piece:
    """The piece that does what a module did when it was called."""
    given, first = {part: part.training for part in original.modules()}, calls[0]
    original.train(whole.trains)
    try:
        replica = copy_sharing_tensors(original)
        module = capture(replica, original, first.arguments, _is_leaf, lambda m, arguments: first.of(m, arguments))
        homes = as_layers(module, original, whole.trains)
        if whole.any_size and not _is_for_any_size(module, first) and not _is_plain(original):
            raise ValueError("its code asks for the size of its input")
        piece = Piece(prefix, module, isinstance(original, LAYERS))
        if whole.trains:
            _refuse_other_in_training(piece, original, first)
            keep_frozen(module)
        module.eval()
        for one in reversed(calls):
            _refuse_other(_run(piece, one), one.output)
        if whole.keeps_orders and not piece.alone:
            keep_orders(module, first.arguments, first.output)
    finally:
        for part, mode in given.items():
            part.training = mode
    for part in module.modules():
        part.training = given.get(homes.get(part, part), original.training)
    return piece


def _refuse_other_in_training(piece: Piece, original: nn.Module, one: Call) -> None:
    module = copy_sharing_tensors(original)
    with torch.no_grad(), _random_numbers(), state_kept(module):
        try:
            expected = _kept(one.of(module, _kept(one.arguments)))
        except Exception:  # as a batch norm refuses to normalize one value by itself
            return
    _refuse_other(_run(piece, one), expected)


def _run(piece: Piece, one: Call) -> Any:
    """What a piece gives for a call's arguments; it notes the shapes."""
    with torch.no_grad(), _random_numbers(), state_kept(piece.module):
        return _Shapes(piece).run(*_kept(list(one.arguments.values())))


def _is_for_any_size(module: fx.GraphModule, one: Call) -> bool:
    """Whether a graph is for images of other sizes too."""
    given = [leaf for leaf in pytree.tree_leaves(one.arguments) if isinstance(leaf, Tensor)]
    others = [torch.empty([1, *t.shape[1:2], *(2 * n + 13 for n in t.shape[2:])], device="meta") for t in given]
    for part in module.modules():
        if isinstance(part, Sizes):
            try:
                part(*others)
            except ValueError:
                return False
    return True


def _is_plain(module: nn.Module) -> bool:
    """Whether all its code is torch.nn's, which goes one way whatever the size."""
    return all(type(part).__module__.startswith("torch.nn.modules") for part in module.modules())


def _is_leaf(module: nn.Module) -> bool:
    """What stays a module in a graph: our layers, torch.nn's that have weights, and what has hooks."""
    plain = type(module).__module__.startswith("torch.nn.modules") and "forward" not in vars(module)
    return hooked(module) or isinstance(module, KernelLayer) or (plain and isinstance(module, _WHOLE))


def _refuse_other(got: Any, expected: Any) -> None:
    """Raises where a graph does not compute what the code does, up to rounding."""
    (ours, form), (theirs, as_it_was) = pytree.tree_flatten(got), pytree.tree_flatten(expected)
    if form != as_it_was:
        raise ValueError(f"its graph returns {form}, its code {as_it_was}")
    for a, b in zip(ours, theirs, strict=True):
        if not (_near(a, b) if isinstance(b, Tensor) else a == b):
            raise ValueError("its graph computes something else than its code")


def _near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype is not b.dtype:
        return False
    if not b.is_floating_point() or torch.equal(a, b):
        return torch.equal(a, b)
    eps, a, b = torch.finfo(b.dtype).eps, a.double(), b.double()
    known = b.isfinite()
    if not torch.equal(a.nan_to_num()[~known], b.nan_to_num()[~known]):
        return False
    error = (a - b)[known].norm()
    return bool(error <= eps**0.5 * b[known].norm())


def _put(whole: Pieces, name: str, module: nn.Module) -> None:
    if name:
        whole.model.set_submodule(name, module)
    else:
        whole.model = module


class _Shapes(fx.Interpreter):
    """Runs a graph, notes the shapes of its values, and refuses what changes one that somebody reads afterwards."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(piece.module)
        self.piece = piece

    def run_node(self, n: fx.Node) -> Any:
        before = [(node, value, value._version) for node, value in self.env.items() if isinstance(value, Tensor)]
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.piece.shapes[n], self.piece.dtypes[n] = value.shape, value.dtype
        stored = n.target is torch.ops.aten.copy_.default  # what the code keeps, at the graph's end
        for node, old, version in before:
            if old._version != version and not stored:
                raise ValueError(f"{n.name} changes {node.name} in place")
        return value


def call(model: nn.Module, batch: Any) -> Any:
    """The model's output for a batch: a tensor, a tuple or list of arguments, or a dict of named ones."""
    if isinstance(batch, dict):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)
