"""Chains in a captured graph: a layer and what follows it, each link the only one that reads the link before.

    layer [-> batch norm] [-> dropped in training] [-> + residual] [-> activation]

Fusion, INT8 and training for INT8 look for the same chains, in graphs of one form (layers.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from .. import nn as kernels
from ..activation import NEGATIVE_SLOPE
from .dropped import Dropped
from .graph import Piece
from .trace import ACTIVATIONS, hooked, own_arithmetic

ADDITION = torch.ops.aten.add.Tensor


class Chain:
    """A layer's chain, as far as it was taken.

    Attributes:
        nodes: its links.
        layer: the first, a convolution or linear layer.
        norm, drop: the batch norm and what is dropped at random, or None.
        addition: the node that adds a residual, or None.
        residual: which of its operands that is.
        activation, negative_slope: as `cnnkernels.activation` names them.
    """

    def __init__(self, piece: Piece, first: fx.Node) -> None:
        self.piece = piece
        self.nodes = [first]
        self.layer: Any = module_of(piece, first)
        self.norm: Any = None
        self.drop: Any = None
        self.addition: fx.Node | None = None
        self.residual = 0
        self.activation, self.negative_slope = "none", NEGATIVE_SLOPE

    def reader(self) -> fx.Node | None:
        """The one node that reads the last link, if there is one and it reads nothing else."""
        readers = list(self.nodes[-1].users)
        if len(readers) != 1 or readers[0].args != (self.nodes[-1],) or readers[0].kwargs:
            return None
        return readers[0]

    def follower(self) -> Any:
        """The layer that is that reader, or None."""
        reader = self.reader()
        return None if reader is None else module_of(self.piece, reader)

    def take(self) -> None:
        """Makes the reader the last link."""
        reader = self.reader()
        assert reader is not None
        self.nodes.append(reader)

    def take_norm(self, trains: bool = False) -> None:
        """Takes the batch norm, if one follows that can be folded.

        Args:
            trains: one that normalizes by the batch may be taken too.
        """
        norm = self.follower()
        of_images = isinstance(self.layer, nn.Conv2d)
        kind = nn.BatchNorm2d if of_images else nn.BatchNorm1d
        ours = kernels.BatchNorm2d if of_images else kernels.BatchNorm1d
        if not isinstance(norm, kind) or own_arithmetic(norm, ours, kind) or hooked(norm):
            return
        if norm.running_mean is None or norm.running_var is None or (norm.training and not trains):
            return
        if kind is nn.BatchNorm1d and len(self.piece.shapes[self.nodes[-1]]) != 2:
            return  # the channels of [N, C, L] are not the features a linear layer makes
        self.norm = norm
        self.take()

    def take_drop(self) -> None:
        """Takes what is dropped at random."""
        if isinstance(drop := self.follower(), Dropped):
            self.drop = drop
            self.take()

    def take_addition(self, node: fx.Node, operand: int) -> None:
        """Takes an addition, of which the chain is that operand."""
        self.addition, self.residual = node, operand ^ 1
        self.nodes.append(node)

    def leave(self) -> None:
        """Gives the last link back."""
        self.nodes.pop()
        if self.activation != "none":
            self.activation, self.negative_slope = "none", NEGATIVE_SLOPE
        else:
            self.norm = None

    def take_activation(self) -> None:
        """Takes the activation, if one follows that kernels know."""
        module = self.follower()
        kind = next((kind for kind in ACTIVATIONS if isinstance(module, kind)), None)
        if kind is None or own_arithmetic(module, kind) or hooked(module):
            return
        if kind is nn.GELU and module.approximate != "none":
            return
        self.activation = ACTIVATIONS[kind]
        if kind is nn.LeakyReLU:
            self.negative_slope = float(module.negative_slope)
        self.take()


def take_addition(piece: Piece, node: fx.Node, chains: dict[fx.Node, Chain], order: dict[fx.Node, int]) -> None:
    """Gives an addition to the later of the chains that end in it, if one does.

    Args:
        chains: by their last link; that of the chain becomes the addition.
        order: of the nodes.
    """
    if node.target is not ADDITION or node.kwargs:
        return
    operands = [operand for operand in node.args if isinstance(operand, fx.Node)]
    if len(operands) != 2 or operands[0] is operands[1] or len(node.args) != 2:
        return
    shapes = [piece.shapes.get(value) for value in (*operands, node)]
    if shapes[0] is None or shapes.count(shapes[0]) != 3:
        return  # broadcast
    if piece.dtypes[operands[0]] is not piece.dtypes[operands[1]]:
        return
    ends = [o for o in operands if o in chains and len(o.users) == 1 and chains[o].addition is None]
    if not ends:
        return
    last = max(ends, key=lambda end: order[end])
    chain = chains.pop(last)
    chain.take_addition(node, operands.index(last))
    chains[node] = chain


def module_of(piece: Piece, node: fx.Node) -> Any:
    """The layer that a node calls, or None."""
    return piece.module.get_submodule(str(node.target)) if node.op == "call_module" else None
