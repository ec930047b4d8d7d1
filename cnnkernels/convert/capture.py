"""Capture: the graph of what a module's code computes, by torch.export.

The graph is functional: what the code does in place, through views or through aliases, is a value of its own there. It
is in ATen's operators, whatever the code's spelling; a module that `is_leaf` takes is one node. Constants that the code
makes and parameters that it reads itself are attributes of their own, which no layer's fate reaches. Sizes of the
inputs stay free as far as the code lets them; `Sizes` asks for the rest.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .in_place import CAPTURE, MARKS, counts, functional
from .inputs import Fixed, Sizes, conditions_of
from .outputs import Rebuilt
from .quiet import quiet
from .trace import HOOKS, hooked


@torch.library.custom_op(f"{CAPTURE}::begin", mutates_args=())
def _begin(values: list[Tensor], call: int) -> list[Tensor]:
    return [value.clone() for value in values]


@torch.library.custom_op(f"{CAPTURE}::end", mutates_args=())
def _end(values: list[Tensor], call: int) -> list[Tensor]:
    return [value.clone() for value in values]


@torch.library.custom_op(f"{CAPTURE}::layer", mutates_args=())
def _layer(input: Tensor, weight: Tensor | None, call: int) -> Tensor:
    return input.clone()


@_begin.register_fake
@_end.register_fake
def _(values: list[Tensor], call: int) -> list[Tensor]:
    return [torch.empty_like(value) for value in values]


@_layer.register_fake
def _(input: Tensor, weight: Tensor | None, call: int) -> Tensor:
    layer: Any = _capturing[call].layer
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(input, weight)  # type: ignore[arg-type]
    return torch.empty_like(input) if weight is None else layer._conv_forward(input, weight, None)


@dataclass
class _Call:
    """A call of a leaf in the code: its module's name, and arguments and result around their tensors.

    Attributes:
        layer: where the leaf is a layer that needs no marks, as its result is known by its shape.
    """

    name: str
    arguments: list[Any] = field(default_factory=list)
    tree: Any = None
    result: Any = None
    layer: nn.Module | None = None


_capturing: list[_Call] = []  # of the capture at work: an operator takes numbers alone


class _Root(nn.Module):
    """The module to be captured, called with the tensors among its arguments."""

    def __init__(self, module: nn.Module, arguments: dict[str, Any], how: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.leaves, self.tree = pytree.tree_flatten(arguments)
        self.how = how

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in self.leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> Any:
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self.leaves]
        return self.how(self.module, pytree.tree_unflatten(leaves, self.tree))


def capture(
    replica: nn.Module,
    original: nn.Module,
    arguments: dict[str, Any],
    is_leaf: Callable[[nn.Module], bool],
    how: Callable[[nn.Module, dict[str, Any]], Any],
) -> fx.GraphModule:
    """The graph of `replica`'s code for arguments like these, around the modules and tensors of `original`.

    Args:
        replica: a copy of `original` around the same tensors, in the mode whose code is captured. Capturing runs it on
            stand-ins, which it may keep.
        arguments: of its forward, by name; the tensors among them are the graph's inputs, what is none is fixed.
        is_leaf: says of a module whether it stays one.
        how: calls a module with such arguments.

    Raises:
        Exception: whatever torch.export says of code that has no one graph.
    """
    root = _Root(replica, arguments, how)
    calls = _capturing
    calls.clear()
    names: dict[nn.Module, str] = {}
    for name, module in replica.named_modules():
        names.setdefault(module, name)
    leaves = {m: n for m, n in names.items() if is_leaf(original.get_submodule(n)) and _stays(m, n)}
    for module in names:
        for hooks in HOOKS:
            vars(module)[hooks] = type(vars(module)[hooks])()
    for module, name in leaves.items():
        if not any(True for _ in module.children()):
            module.eval()  # it is captured as itself; in training a batch norm's code counts
        mark = _as_one if _is_plain_layer(original.get_submodule(name)) else _marked
        vars(module)["forward"] = mark(module, name, calls)
    program = _exported(root)
    del root
    return _Graph(program, original, arguments, list(calls)).made()


def _stays(module: nn.Module, name: str) -> bool:
    """What is captured is not one node itself, unless it is a layer."""
    return bool(name) or not any(True for _ in module.children())


def _is_plain_layer(module: nn.Module) -> bool:
    """A layer of torch.nn whose result is a tensor of a shape that its input and weight tell."""
    convolves = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    known = convolves or isinstance(module, (nn.Linear, nn.modules.batchnorm._BatchNorm))
    return known and type(module).__module__.startswith("torch.nn.modules") and not hooked(module)


def _as_one(layer: nn.Module, name: str, calls: list[_Call]) -> Callable[..., Any]:
    """One operator in the place of a layer's code: what PyTorch makes of a batch norm takes most of capturing."""
    is_norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)

    def run(input: Tensor) -> Tensor:
        calls.append(_Call(name, layer=layer))
        return MARKS.layer(input, None if is_norm else layer.weight, len(calls) - 1)

    return run


def _marked(module: nn.Module, name: str, calls: list[_Call]) -> Callable[..., Any]:
    """Runs a leaf's code between two marks in the graph."""
    forward: Callable[..., Any] = module.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        arguments, tree = pytree.tree_flatten((args, kwargs))
        tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
        if not tensors:
            return forward(*args, **kwargs)
        number = len(calls)
        calls.append(_Call(name, [_TENSOR if isinstance(a, Tensor) else a for a in arguments], tree))
        marked = iter(MARKS.begin(tensors, number))
        args, kwargs = pytree.tree_unflatten(
            [next(marked) if isinstance(argument, Tensor) else argument for argument in arguments], tree
        )
        values, form = pytree.tree_flatten(forward(*args, **kwargs))
        if not all(isinstance(value, Tensor) for value in values):
            raise TypeError(f"{name}, which has hooks, returns what is no tensor")
        values = MARKS.end(values, number)
        calls[number].result = pytree.tree_unflatten(list(range(len(values))), form)
        return pytree.tree_unflatten(values, form)

    return run


_TENSOR = object()  # where one stands among arguments


def _exported(root: _Root) -> Any:
    """All sizes free where the code allows it, else the batch's alone, else none."""
    # Here, as what they bring along takes seconds to import.
    from torch.fx.experimental import _config
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    symbolic: Any = _config
    free = torch.export.Dim.AUTO
    tensors = root.tensors()
    tries = [
        tuple({dim: free for dim in range(tensor.dim())} for tensor in tensors),
        tuple({0: free} if tensor.dim() else {} for tensor in tensors),
        tuple({} for tensor in tensors),
    ]
    error: Exception | None = None
    for shapes in tries:
        try:
            with quiet(), symbolic.patch(backed_size_oblivious=True):  # a batch of one is not for one alone
                return torch.export.export(root, tensors, strict=False, dynamic_shapes={"tensors": shapes})
        except Exception as refused:
            error = error or refused
            if isinstance(refused, GuardOnDataDependentSymNode):
                break  # fewer free sizes do not help
    assert error is not None
    raise error


class _Graph:
    """Makes the module that runs an exported graph: under the model's names, with its leaves."""

    def __init__(self, program: Any, original: nn.Module, arguments: dict[str, Any], calls: list[_Call]) -> None:
        self.program, self.original, self.arguments, self.calls = program, original, arguments, calls
        self.source = functional(program, quiet)
        self.graph = fx.Graph()
        self.parts: dict[str, Any] = {}
        self.nodes: dict[fx.Node, fx.Node] = {}
        self.begun: dict[int, fx.Node] = {}
        self.input: fx.Node | None = None  # the first tensor among the inputs
        self.device: fx.Node | None = None  # it is on

    def made(self) -> fx.GraphModule:
        self.inputs()
        for node in self.source.graph.nodes:
            if node.op == "output":
                self.output(node)
            elif node.op == "get_attr":
                self.constant(node)
            elif node.op == "call_function" and node not in self.nodes:
                self.function(node)
        module = fx.GraphModule(self.parts, self.graph, type(self.original).__name__)
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
        for name in [name for name, part in self.parts.items() if isinstance(part, Tensor) and name not in read]:
            delattr(module, name)
        module.graph.lint()
        module.recompile()
        return module

    def inputs(self) -> None:
        """A placeholder for each argument of the code; of those that hold tensors, these; the others are fixed."""
        tensors: list[tuple[str, fx.Node]] = []
        fixed: list[tuple[str, fx.Node, Any]] = []

        def find(name: str, node: fx.Node, value: Any) -> None:
            if isinstance(value, Tensor):
                tensors.append((name, node))
            elif isinstance(value, (list, tuple, dict)) and _has_tensors(value):
                for key in value if isinstance(value, dict) else range(len(value)):
                    part = self.graph.call_function(operator.getitem, (node, key))
                    find(f"{name}[{key!r}]", part, value[key])  # type: ignore[index]
            else:
                fixed.append((name, node, value))

        placeholders = [
            self.graph.create_node("placeholder", name, () if _has_tensors(value) else (value,))
            for name, value in self.arguments.items()
        ]
        for placeholder, (name, value) in zip(placeholders, self.arguments.items(), strict=True):
            find(name, placeholder, value)
        given = [node for node in self.source.graph.nodes if node.op == "placeholder"]
        for old, (_, node) in zip(given, tensors, strict=True):
            self.nodes[old] = node
        self.input = tensors[0][1] if tensors else None
        for name, node, value in fixed:
            self.graph.call_module(self.add("fixed", Fixed(name, value)), (node,))
        if conditions := conditions_of(given, self.program):
            kinds = [node.meta["val"].dtype for node in given]
            floating = next((kind for kind in kinds if kind.is_floating_point), None)
            sizes = Sizes(tuple(conditions), tuple(name for name, _ in tensors), floating)
            self.graph.call_module(self.add("sizes", sizes), tuple(node for _, node in tensors))

    def add(self, name: str, part: Any) -> str:
        """Keeps a module or tensor under that name, or under the first of name_1, name_2, ... that is free."""
        free, count = name, 0
        while self.parts.get(free, part) is not part:
            count += 1
            free = f"{name}_{count}"
        self.parts[free] = part
        return free

    def constant(self, node: fx.Node) -> None:
        """A parameter or buffer that the code reads itself, or a tensor that it makes."""
        target = str(node.target).removeprefix("module.")
        try:
            value = attribute(self.original, target)
        except AttributeError:
            value = attribute(self.source, str(node.target))
        # Under a name of its own, not within a module: what becomes of a layer is not for who reads its parameter.
        self.nodes[node] = self.graph.create_node("get_attr", self.add(target.replace(".", "_"), value))

    def function(self, node: Any) -> None:
        if node.target is MARKS.begin.default:
            self.begun[int(node.args[1])] = node
        if node.target is MARKS.end.default:
            self.leaf(node, int(node.args[1]))
            return
        if node.target is MARKS.layer.default:
            call = self.calls[int(node.args[2])]
            module = self.original.get_submodule(call.name)
            made = self.graph.call_module(self.add(call.name or "0", module), (self.nodes[node.args[0]],))
            made.meta |= {"val": node.meta["val"], "nn_module_stack": node.meta.get("nn_module_stack")}
            self.nodes[node] = made
            return
        if node.target is torch.ops.aten.copy_.default and (self.is_leafs_own(node.args[0]) or counts(node)):
            return  # what a leaf changes of its own it changes itself
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            return  # of the device, too, that the model is on today
        made = self.nodes[node] = self.graph.node_copy(node, lambda old: self.nodes[old])
        made.args, made.kwargs = pytree.tree_map(self.where_inputs_are, (made.args, made.kwargs))

    def where_inputs_are(self, value: Any) -> Any:
        """In the place of a device that the code makes a tensor on: the model may move."""
        if not isinstance(value, torch.device) or self.input is None:
            return value
        if self.device is None:
            with self.graph.inserting_after(self.input):
                self.device = self.graph.call_function(getattr, (self.input, "device"))
        return self.device

    def is_leafs_own(self, changed: Any) -> bool:
        target = str(changed.target).removeprefix("module.")
        return changed.op == "get_attr" and any(target.startswith(f"{call.name}.") for call in self.calls)

    def leaf(self, node: Any, number: int) -> None:
        """A call of the leaf in the place of its end; all between its marks loses its readers."""
        call = self.calls[number]
        given_to: Any = self.begun[number].args[0]
        tensors = iter(given_to)
        given = [self.nodes[next(tensors)] if value is _TENSOR else value for value in call.arguments]
        args, kwargs = pytree.tree_unflatten(given, call.tree)
        module = self.original.get_submodule(call.name)
        made = self.graph.call_module(self.add(call.name or "0", module), args, kwargs)
        made.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
        paths, _ = pytree.tree_flatten_with_path(call.result)
        values = {}
        for path, place in paths:
            values[place] = made
            for key in path:
                part = getattr(key, "idx", None) if isinstance(key, pytree.SequenceKey) else getattr(key, "key", None)
                values[place] = self.graph.call_function(operator.getitem, (values[place], part))
        for reader in node.users:  # each takes one of the list
            self.nodes[reader] = values[int(reader.args[1])]
            self.nodes[reader].meta["val"] = reader.meta["val"]

    def output(self, node: fx.Node) -> None:
        leaves: Any = fx.map_arg(node.args[0], lambda old: self.nodes[old])
        tree = self.source._out_spec
        made = pytree.tree_unflatten(list(leaves), tree)
        if _is_plain(made):
            self.graph.output(made)
        else:
            self.graph.output(self.graph.call_module(self.add("rebuilt", Rebuilt(tree)), tuple(leaves)))


def attribute(module: nn.Module, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(module.get_submodule(owner), name)


def _has_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _is_plain(value: Any) -> bool:
    """Whether a graph's code can spell it."""
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(type(key) is str and _is_plain(part) for key, part in value.items())
    return value is None or isinstance(value, (fx.Node, bool, int, float, str))
