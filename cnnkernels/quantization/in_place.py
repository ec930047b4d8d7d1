"""Makes values of what an exported program does in place.

Most code changes nothing but what it has just made, which is seen at a glance. Else torch.export's own pass, which
follows aliases and takes longer than all the rest of capturing, makes values of it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


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
        elif (plain := _out_of_place(node)) is not None and _fresh(changed):
            with module.graph.inserting_before(node):
                made = module.graph.call_function(plain, node.args, node.kwargs)
            made.meta = node.meta
            order[made] = order[node]
            for reader in list(changed.users):
                if order[reader] > order[node]:
                    reader.replace_input_with(changed, made)
            node.replace_all_uses_with(made)
        else:
            with quiet():
                return program.run_decompositions({}).module(check_guards=False)
        module.graph.erase_node(node)
    return module


def _changes(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _out_of_place(node: fx.Node) -> Any:
    """The operator that does the same and changes nothing, None where there is none that surely does."""
    target: Any = node.target
    written = [place for place, a in enumerate(target._schema.arguments) if a.alias_info and a.alias_info.is_write]
    dtypes = {read.meta["val"].dtype for read in node.all_input_nodes if isinstance(read.meta.get("val"), Tensor)}
    if written != [0] or len(dtypes) != 1 or target.namespace != "aten" or target is aten.copy_.default:
        return None
    plain = getattr(aten, target._schema.name.removeprefix("aten::").removesuffix("_"), None)
    return getattr(plain, target._overloadname, None)


def _fresh(value: Any) -> bool:
    """Whether a value was made by an operator, and nothing else is a view of it."""
    if value.op != "call_function":
        return False
    if value.target is operator.getitem:
        made = value.args[0].target is torch.ops.cnnkernels_capture.end.default
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
