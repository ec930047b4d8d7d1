"""The form of what a captured graph gives back, and its order in memory: modules in the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .layers import add_module


class Rebuilt(nn.Module):
    """Puts the values of an output into the form that the code returns them in."""

    def __init__(self, tree: pytree.TreeSpec) -> None:
        super().__init__()
        self.tree = tree

    def forward(self, *leaves: Any) -> Any:
        return pytree.tree_unflatten(leaves, self.tree)


FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def order(tensor: Tensor) -> tuple[int, ...] | None:
    """The dimensions from the outermost in memory to the innermost; None where memory has gaps or is shared."""
    ranks = [tuple(range(tensor.dim()))]
    if tensor.dim() in FORMATS:
        ranks.append((0, *ranks[0][2:], 1))
    ranks.append(tuple(sorted(ranks[0], key=lambda dim: tensor.stride()[dim], reverse=True)))
    for rank in ranks:
        strides, step = [0] * tensor.dim(), 1
        for dim in reversed(rank):
            strides[dim] = step
            step *= tensor.shape[dim]
        if tuple(strides) == tensor.stride():
            return rank
    return None


class Order(nn.Module):
    """Brings a value into the order of memory that it has in the float model: INT8 images are channels_last.

    Args:
        order: the dimensions, from the outermost to the innermost.
        given: the first image's that the model was captured with, as `order`. Of another one, the float model's images
            would have that order too.
    """

    def __init__(self, order: tuple[int, ...], given: tuple[int, ...]) -> None:
        super().__init__()
        self.order, self.given = order, given

    def forward(self, value: Tensor, input: Tensor) -> Tensor:
        order = self.order
        if not input.permute(self.given).is_contiguous():
            if not input.is_contiguous() or order == tuple(range(value.dim())):
                return value
            order = tuple(range(value.dim()))
        outermost_first = value.permute(order)
        # A size of 1 has any stride in a contiguous tensor: flattened, it gets the one that its place gives.
        flat = outermost_first.contiguous().flatten()
        return flat.view(outermost_first.shape).permute([order.index(dim) for dim in range(value.dim())])


def keep_orders(module: fx.GraphModule, arguments: dict[str, Any], output: Any) -> None:
    """Lets a graph give back its images in the float model's order.

    Args:
        arguments, output: of the module's code.
    """
    images = [
        node
        for node in module.graph.nodes
        if node.op == "placeholder" and isinstance(image := arguments.get(str(node.target)), Tensor) and image.dim() > 2
    ]
    given = order(arguments[str(images[0].target)]) if images else None
    if given is None:
        return
    holder: Any = next(node for node in module.graph.nodes if node.op == "output")
    made = holder.args[0]
    called = module.get_submodule(str(made.target)) if getattr(made, "op", "") == "call_module" else None
    if isinstance(called, Rebuilt):
        holder = made
    leaves, tree = pytree.tree_flatten(holder.args)
    for place, (leaf, value) in enumerate(zip(leaves, pytree.tree_leaves(output), strict=True)):
        if not isinstance(value, Tensor) or value.dim() < 3 or (rank := order(value)) is None:
            continue
        with module.graph.inserting_before(holder):
            leaves[place] = module.graph.call_module(add_module(module, "order", Order(rank, given)), (leaf, images[0]))
    holder.args = tuple(pytree.tree_unflatten(leaves, tree))
    module.graph.lint()
    module.recompile()
