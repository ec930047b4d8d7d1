"""Fuses residuals: a layer, the addition behind it and the activation behind that, in inference and training.

An addition is the code of a block, which no layer in it can take out of it. So such a block becomes the graph of its
code around its own layers (graph_module.py), and there its chains are fused, whatever their spelling:

    convolution [-> + residual] [-> activation]          one Conv2dAct
    batch norm [-> + residual] [-> activation]           one BatchNorm2dAct
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from .. import nn as kernels
from ..activation import known_from_output
from .chains import ADDITION, Chain, module_of, take_addition
from .examples import Run
from .graph import Piece, pieces_of_its_own
from .graph_module import InPlaceOf, adopt, keep_modules
from .layers import add_module
from .trace import hooked, own_arithmetic

Make = Callable[[Chain, Any], Any]


class ForInference(nn.Module):
    """Refuses to run in training, of which a graph of evaluation knows nothing."""

    def forward(self) -> None:
        if self.training:
            raise RuntimeError("this block was fused for inference: call eval(), or convert it in training mode")


def adding_blocks(piece: Piece) -> list[str]:
    """The modules of a piece whose code adds what a layer makes, by their names in the model; inner ones first."""
    names = set()
    for node in piece.module.graph.nodes:
        if node.target is ADDITION and any(
            isinstance(value, fx.Node) and isinstance(module_of(piece, value), (nn.Conv2d, nn.BatchNorm2d))
            for value in node.args
        ):
            names.add((piece.prefix + str(node.meta.get("home", ""))).rstrip("."))
    return sorted(names, key=lambda name: (-name.count("."), name))


def fuse_blocks(
    model: nn.Module, names: list[str], seen: Run, trains: bool, make: Make, replaces: bool
) -> Iterator[tuple[str, list[tuple[str, ...]], nn.Module | str]]:
    """Fuses what it can in blocks of `model`.

    Args:
        seen: a run of the model in that mode.
        make: the layer that a chain becomes, of its first link's layer.
        replaces: the model itself may be replaced, too.

    Yields:
        Of each block its name, the chains that were fused, by the names of their links, and the module to put in its
        place; or why it was left alone.
    """
    chosen = []
    for name in names:
        if reason := _why_not(model, name, trains, replaces):
            yield name, [], reason
        else:
            chosen.append(name)
    for piece in pieces_of_its_own(model, chosen, seen.batch, trains) if chosen else ():
        name = piece.prefix.rstrip(".")
        block = model.get_submodule(name)
        made = InPlaceOf(piece.module, piece.module.graph, type(block).__name__)
        fused = _Block(model, Piece(piece.prefix, made, False), piece, trains, name in seen.changed, make).run()
        if not fused:
            continue
        if not trains:
            with made.graph.inserting_before(_first(made)):
                made.graph.call_module(add_module(made, "for_inference", ForInference()), ())
        made.graph.lint()
        made.delete_all_unused_submodules()
        made.recompile()
        for part in made.modules():
            part.training = trains
        keep_modules(made, block._modules)
        if list(made.state_dict()) != list(block.state_dict()):
            yield name, [], "its code reads parameters or makes tensors itself"
            continue
        adopt(made, block)
        yield name, fused, made


def _first(module: fx.GraphModule) -> fx.Node:
    return next(node for node in module.graph.nodes if node.op != "placeholder")


def _why_not(model: nn.Module, name: str, trains: bool, replaces: bool) -> str:
    block = model.get_submodule(name)
    if any(part.training != trains for part in block.modules()):
        return "a part of it is in training mode, another in evaluation"
    if trains and any(type(part).train is not nn.Module.train for part in block.modules()):
        return "it has a train() of its own"
    if not name:
        if not replaces:
            return "the model's own code adds, and it is to be changed in place"
        if len(inspect.signature(block.forward).parameters) != 1:
            return "the model's own code adds, and takes more than an image"
    return ""


class _Block:
    """Fuses the chains of one block's graph."""

    def __init__(
        self, model: nn.Module, piece: Piece, captured: Piece, trains: bool, changed: bool, make: Make
    ) -> None:
        twins = dict(zip(captured.module.graph.nodes, piece.module.graph.nodes, strict=True))
        piece.shapes = {twins[node]: shape for node, shape in captured.shapes.items() if node in twins}
        piece.dtypes = {twins[node]: dtype for node, dtype in captured.dtypes.items() if node in twins}
        for node, twin in twins.items():
            twin.meta = dict(node.meta)
        self.piece, self.trains, self.changed, self.make = piece, trains, changed, make
        self.graph = piece.module.graph
        self.calls = Counter(node.target for node in self.graph.nodes if node.op == "call_module")
        self.named = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
        self.owners = Counter(id(t) for module in model.modules() for t in module._parameters.values())

    def run(self) -> list[tuple[str, ...]]:
        """The names of each chain's links; nothing where no chain has an addition."""
        order = {node: place for place, node in enumerate(self.graph.nodes)}
        heads = [node for node in self.graph.nodes if self.begins(node)]
        chains: dict[fx.Node, Chain] = {}
        # A convolution's store is one less in inference; in training a batch norm needs no result for its gradient.
        for kind in (nn.BatchNorm2d, nn.Conv2d) if self.trains else (nn.Conv2d, nn.BatchNorm2d):
            chains |= {n: Chain(self.piece, n) for n in heads if isinstance(module_of(self.piece, n), kind)}
            for node in self.graph.nodes:
                if node not in chains:
                    take_addition(self.piece, node, chains, order)
        for chain in chains.values():
            if getattr(chain.layer, "activation", "none") in (None, "none"):
                chain.take_activation()
        taken = [chain for chain in chains.values() if len(chain.nodes) > 1 and self.may(chain)]
        if not any(chain.addition for chain in taken):
            return []
        return [self.put(chain) for chain in taken]

    def begins(self, node: fx.Node) -> bool:
        layer: Any = module_of(self.piece, node)
        if not isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)) or len(node.args) != 1 or node.kwargs:
            return False
        kinds = (
            kernels.Conv2dAct,
            kernels.Conv2d,
            nn.Conv2d,
            kernels.BatchNorm2dAct,
            kernels.BatchNorm2d,
            nn.BatchNorm2d,
        )
        if not isinstance(layer, kernels.Conv2dAct) and own_arithmetic(layer, *kinds):
            return False
        if isinstance(layer, (kernels.Conv2dAct, kernels.BatchNorm2dAct)) and layer.activation not in (None, "none"):
            return False
        once = self.calls[node.target] == 1 and self.named[id(layer)] == 1
        shares = any(self.owners[id(t)] != 1 for t in layer._parameters.values() if t is not None)
        return once and not shares and not hooked(layer) and not nn.utils.parametrize.is_parametrized(layer)

    def may(self, chain: Chain) -> bool:
        """Whether the gradient of a chain can be known from what its kernel keeps."""
        if not self.trains:
            return True
        if isinstance(chain.layer, nn.Conv2d) and not known_from_output(chain.activation, chain.negative_slope):
            return False
        leaves = any(reader.op == "output" for reader in chain.nodes[-1].users)
        return chain.activation == "none" or not (leaves and self.changed)

    def put(self, chain: Chain) -> tuple[str, ...]:
        first, last = chain.nodes[0], chain.nodes[-1]
        inputs = list(first.args)
        if chain.addition is not None:
            inputs.append(chain.addition.args[chain.residual])
        self.piece.module.set_submodule(str(first.target), self.make(chain, chain.layer))
        with self.graph.inserting_before(last):
            node = self.graph.call_module(str(first.target), tuple(inputs))
        last.replace_all_uses_with(node)
        names = []
        for link in chain.nodes:
            home = str(link.meta.get("home", ""))
            name = f"{home}.add".lstrip(".") if link is chain.addition else home or chain.activation
            names.append(self.piece.prefix + name)
        for old in reversed(chain.nodes):
            self.graph.erase_node(old)
        return tuple(names)
