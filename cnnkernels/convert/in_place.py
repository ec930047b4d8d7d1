"""Makes values of what an exported program does in place.

Most code changes nothing but what it has just made, which is seen at a glance. Else torch.export's own pass, which
follows aliases and takes longer than all the rest of capturing, makes values of it. That pass would also take batch
norm and dropout in training apart; they are kept from it, as in a graph they are to know both modes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, fx

from ..package import NAME

CAPTURE = f"{NAME}_capture"  # the namespace of what marks places of a graph
MARKS = getattr(torch.ops, CAPTURE)
aten = torch.ops.aten
DROPOUTS = (
    aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default, aten.feature_alpha_dropout.default
)  # fmt: skip


@torch.library.custom_op(f"{CAPTURE}::kept", mutates_args=())
def _kept(values: list[Tensor], number: int) -> Tensor:
    return values[0].clone()


@_kept.register_fake
def _(values: list[Tensor], number: int) -> Tensor:
    return torch.empty_like(values[0])


def functional(program: Any, quiet: Callable[[], AbstractContextManager[None]]) -> Any:
    """The program's module, without what works in place; only what the code keeps or gives back is written at the end.

    Args:
        quiet: around torch.export's passes.
    """
    module = program.module(check_guards=False)
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in list(module.graph.nodes):
        if not _changes(node):
            continue
        changed = node.args[0]
        if node.target is aten.detach_.default:
            node.replace_all_uses_with(changed)
        elif counts(node) and not node.users:
            pass
        elif (plain := _out_of_place(node)) is not None and _fresh(changed):
            args = node.args
            if plain is aten.bernoulli.p:  # which has no usual probability
                args = (changed, *(args[1:] or (0.5,)))
            with module.graph.inserting_before(node):
                made = module.graph.call_function(plain, args, node.kwargs)
            made.meta = node.meta
            order[made] = order[node]
            for reader in list(changed.users):
                if order[reader] > order[node]:
                    reader.replace_input_with(changed, made)
            node.replace_all_uses_with(made)
        else:
            return _decomposed(program, quiet)
        module.graph.erase_node(node)
    return module


def _decomposed(program: Any, quiet: Callable[[], AbstractContextManager[None]]) -> Any:
    """As torch.export's pass makes it, with batch norm and dropout as they are in training."""
    kept: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    for node in program.graph.nodes:
        if trains(node):
            tensors = node.all_input_nodes
            places = {tensor: place for place, tensor in enumerate(tensors)}
            kept.append((node.target, *fx.map_arg((node.args, node.kwargs), lambda read: _Place(places[read]))))  # noqa: B023
            node.target, node.args, node.kwargs = _KEPT, (tensors, len(kept) - 1), {}
    with quiet():
        module = program.run_decompositions({}).module(check_guards=False)
    for node in module.graph.nodes:
        if node.target is _KEPT:
            tensors, number = node.args
            target, args, kwargs = kept[number]
            node.target = target
            node.args, node.kwargs = _placed((args, kwargs), tensors)
    return module


_KEPT = MARKS.kept.default


class _Place(int):
    """Which of an operator's tensors stands here."""


def _placed(value: Any, tensors: Any) -> Any:
    if isinstance(value, _Place):
        return tensors[value]
    if isinstance(value, (tuple, list)):
        return type(value)(_placed(part, tensors) for part in value)
    if isinstance(value, dict):
        return {key: _placed(part, tensors) for key, part in value.items()}
    return value


def trains(node: fx.Node) -> bool:
    """Whether a node is a batch norm or dropout as in training."""
    if node.target is aten.batch_norm.default:
        return node.args[5] is True
    return node.target in DROPOUTS and node.args[2] is True


def counts(node: fx.Node) -> bool:
    """Whether a node counts a batch norm's batches, which the layer that it becomes does itself."""
    counted: Any = node.args[0]
    return counted.op == "get_attr" and str(counted.target).split(".")[-1] == "num_batches_tracked"


def _changes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _out_of_place(node: fx.Node) -> Any:
    """The operator that does the same and changes nothing, None where there is none that surely does."""
    target: Any = node.target
    written = [place for place, a in enumerate(target._schema.arguments) if a.alias_info and a.alias_info.is_write]
    dtypes = {read.meta["val"].dtype for read in node.all_input_nodes if isinstance(read.meta.get("val"), Tensor)}
    if written != [0] or len(dtypes) != 1 or target.namespace != "aten" or target is aten.copy_.default:
        return None
    if target is aten.bernoulli_.float:
        return aten.bernoulli.p
    plain = getattr(aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
    return getattr(plain, target._overloadname, None)


def _fresh(value: Any) -> bool:
    """Whether a value was made by an operator, and nothing else is a view of it."""
    if value.op != "call_function":
        return False
    if value.target is operator.getitem:
        made = value.args[0].target is MARKS.end.default
    else:
        made = isinstance(value.target, torch._ops.OpOverload) and not _may_alias(value)
    return made and not any(_may_alias(reader) for reader in value.users)


def _may_alias(node: fx.Node) -> bool:
    """Whether what an operator gives back may be what it was given, or a part of it."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is operator.getitem
    if _changes(node):
        return False  # gives back what it changed, and is replaced
    silent = "dropout" in node.target._schema.name  # in evaluation it gives back its input
    return silent or any(result.alias_info is not None for result in node.target._schema.returns)
