"""Finds chains of layers in a model and makes one layer of each, for inference:

    depthwise -> [batch norm] -> [activation] -> 1x1 [-> batch norm] [-> activation]       FusedForInference
    any other convolution -> batch norm and, or, activation                                FusedConv2dForInference

A chain counts only if the model's own code is seen to run it: torch.fx traces the model, or, where its code cannot be
traced as a whole, its blocks one by one. Of a chain found, the first module becomes one fused layer and the others
become Identity, so that the model's code stays what it is. Batch norms are folded (fold.py).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from .. import nn
from ..activation import NEGATIVE_SLOPE
from ..dtypes import FLOATING_DTYPES
from .fold import folded
from .trace import ACTIVATIONS, Tracer, hooked, note_reads, only_calls, own_arithmetic


def _refuse_training(layer: torch.nn.Module) -> None:
    if layer.training:
        raise RuntimeError(
            "this layer was fused for inference, its batch norms are folded: call eval(), "
            "or convert the model without fuse=True to train it"
        )


class FusedForInference(nn.DepthwiseSeparableConv2d):
    """A depthwise convolution and its 1x1 of a model in eval, batch norms folded into their filters."""

    def forward(self, input: Tensor) -> Tensor:
        _refuse_training(self)
        return super().forward(input)


class FusedConv2dForInference(nn.Conv2dAct):
    """A convolution of a model in eval with its activation, its batch norm folded into the filter."""

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        _refuse_training(self)
        return super().forward(input, residual)


@dataclass(frozen=True)
class Finding:
    """A chain in a model: the names of its modules; or its convolution's alone, and why it was left alone."""

    names: tuple[str, ...]
    reason: str = ""


def fuse(model: torch.nn.Module, replica: torch.nn.Module) -> list[Finding]:
    """Fuses what it can in `model` itself and tells of every chain, and every depthwise convolution not in one.

    `replica` is a copy of its modules: tracing runs their code on stand-ins for tensors, which code may keep.
    """
    names: dict[torch.nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    owners = Counter(id(t) for module in names for t in module._parameters.values() if t is not None)
    done = {part for module in names if isinstance(module, nn.DepthwiseSeparableConv2d) for part in module.children()}
    reads = note_reads(replica, torch.nn.Conv2d, torch.nn.BatchNorm2d)
    findings: list[Finding] = []
    traced: set[str] = set()
    for prefix, graph in _graphs(replica, ""):
        for finding in _fuse_graph(model.get_submodule(prefix.rstrip(".")), graph, prefix, names, owners, reads):
            findings.append(finding)
            traced.update(finding.names)
    for module, where in names.items():
        if _is_depthwise(module) and module not in done and not traced & set(where):
            findings.append(Finding((where[0],), "the code that runs it could not be traced"))
    return findings


def _graphs(module: torch.nn.Module, prefix: str) -> Iterator[tuple[str, fx.Graph]]:
    """The module's graph, or where it has none those of its parts."""
    with contextlib.suppress(Exception):  # whatever the model's code does with what is not a tensor
        yield prefix, Tracer().trace(module)
        return
    for name, child in module.named_children():
        if type(child) is not torch.nn.Sequential or only_calls(type(module), name):
            yield from _graphs(child, f"{prefix}{name}.")


def _is_convolution(module: torch.nn.Module) -> TypeGuard[torch.nn.Conv2d]:
    return isinstance(module, torch.nn.Conv2d) and not isinstance(module, torch.nn.LazyConv2d)


def _is_depthwise(module: torch.nn.Module) -> bool:
    return _is_convolution(module) and module.groups == module.in_channels > 1


def _fuse_graph(
    root: torch.nn.Module,
    graph: fx.Graph,
    prefix: str,
    names: dict[torch.nn.Module, list[str]],
    owners: Counter[int],
    reads: dict[str, set[str]],
) -> Iterator[Finding]:
    calls = Counter(root.get_submodule(str(n.target)) for n in graph.nodes if n.op == "call_module")
    heads = {str(n.target): n for n in graph.nodes if n.op == "call_module"}  # one line for one run twice

    def fused(chain: _Links) -> Finding:
        where = tuple(prefix + str(n.target) for n in chain.nodes)
        reason = chain.reason or _why_not(chain.modules, calls, names, owners, reads) or _watched(root, chain)
        if reason:
            return Finding(where[:1], reason)
        layer = chain.fused()
        if any(not t.is_meta and not t.isfinite().all() for t in layer.parameters()):
            return Finding(where[:1], f"a folded filter or bias is not finite in {next(layer.parameters()).dtype}")
        for i, link in enumerate(chain.nodes):
            root.set_submodule(str(link.target), torch.nn.Identity() if i else layer)
        return Finding(where)

    def once(module: torch.nn.Module) -> bool:
        return calls[module] == 1 and len(names[module]) == 1

    told = set()
    for target, node in heads.items():
        if _is_depthwise(root.get_submodule(target)):
            told.add(target)
            yield fused(_Chain(root, node, once))
    for target, node in heads.items():  # what the pairs have left
        if not _is_convolution(root.get_submodule(target)):
            continue
        chain = _ConvChain(root, node, once)
        if len(chain.nodes) > 1:
            finding = fused(chain)
            if not finding.reason or target not in told:
                yield finding


class _Links:
    """A chain from a convolution on, each link the only one that reads the link before.

    Args:
        once: says of a module that it has one name and one call. An activation that has more may stay what it is behind
            the chain.
    """

    def __init__(self, root: torch.nn.Module, first: fx.Node, once: Callable[[torch.nn.Module], bool]) -> None:
        self.root, self.once = root, once
        self.nodes = [first]
        self.reason = ""
        self.norms: list[torch.nn.BatchNorm2d | None] = []
        self.activations: list[str] = []
        self.slopes: list[float] = []

    def fused(self) -> torch.nn.Module:
        """The layer that does what the chain does."""
        raise NotImplementedError

    @property
    def modules(self) -> list[torch.nn.Module]:
        return [self.root.get_submodule(str(node.target)) for node in self.nodes]

    def _reader(self) -> fx.Node | None:
        """The one node that reads the last link, if there is one and it reads nothing else."""
        readers = list(self.nodes[-1].users)
        if len(readers) != 1 or readers[0].op != "call_module":
            return None
        return readers[0] if readers[0].args == (self.nodes[-1],) and not readers[0].kwargs else None

    def _next(self) -> torch.nn.Module | None:
        reader = self._reader()
        return None if reader is None else self.root.get_submodule(str(reader.target))

    def _take(self) -> None:
        if (reader := self._reader()) is not None:
            self.nodes.append(reader)

    def _follower(self) -> str:
        readers = list(self.nodes[-1].users)
        if len(readers) != 1:
            return "nothing" if not readers else f"more than one reader ({', '.join(map(str, readers))})"
        module = self._next()
        if module is not None:
            return type(module).__name__
        target = readers[0].target
        return "the output" if readers[0].op == "output" else getattr(target, "__name__", str(target))

    def _take_norm_and_activation(self, last: bool = True) -> None:
        self.norms.append(self._norm())
        self.activations.append(self._activation(last))

    def _norm(self) -> torch.nn.BatchNorm2d | None:
        module = self._next()
        if not isinstance(module, torch.nn.BatchNorm2d) or module.running_mean is None:
            return None
        self._take()
        return module

    def _activation(self, last: bool) -> str:
        module = self._next()
        if module is not None and last and not self.once(module):
            return "none"
        name = next((name for cls, name in ACTIVATIONS.items() if isinstance(module, cls)), None)
        if name is None or (name == "gelu" and module.approximate != "none"):  # type: ignore[union-attr]
            return "none"
        if name == "leaky_relu":
            slope = float(module.negative_slope)  # type: ignore[union-attr, arg-type]
            if self.slopes and self.slopes != [slope]:
                return "none"
            self.slopes = [slope]
        self._take()
        return name


class _Chain(_Links):
    """The longest chain from a depthwise convolution on that the fused pair can be."""

    def __init__(self, root: torch.nn.Module, first: fx.Node, once: Callable[[torch.nn.Module], bool]) -> None:
        super().__init__(root, first, once)
        self.depthwise: Any = root.get_submodule(str(first.target))
        self._take_norm_and_activation(last=False)
        pointwise = self._next()
        if not isinstance(pointwise, torch.nn.Conv2d) or _is_depthwise(pointwise):
            self.reason = f"{self._follower()} follows, not a 1x1 convolution"
        elif pointwise.kernel_size != (1, 1) or pointwise.stride != (1, 1) or pointwise.groups != 1:
            self.reason = f"Conv2d({pointwise.extra_repr()}) follows, not a 1x1 convolution of stride 1"
        elif any(pointwise._reversed_padding_repeated_twice):
            self.reason = "the 1x1 convolution that follows has padding"
        elif self.depthwise.padding_mode != "zeros":
            self.reason = f"it has padding_mode {self.depthwise.padding_mode!r}"
        else:
            self.pointwise: Any = pointwise
            self._take()
            self._take_norm_and_activation()

    def fused(self) -> FusedForInference:
        first, second = self.depthwise, self.pointwise
        layer = FusedForInference(
            first.in_channels,
            second.out_channels,
            first.kernel_size,
            first.stride,
            first.padding,
            first.dilation,
            channel_multiplier=first.out_channels // first.in_channels,
            depthwise_activation=self.activations[0],
            pointwise_activation=self.activations[1],
            negative_slope=self.slopes[0] if self.slopes else NEGATIVE_SLOPE,
            device="meta",
        )
        layer.backend = getattr(first, "backend", None)
        for conv, source, norm in zip((layer.depthwise, layer.pointwise), (first, second), self.norms, strict=True):
            conv.weight, conv.bias = folded(source, norm)
        return layer.eval()


class _ConvChain(_Links):
    """Any convolution, and the batch norm and activation that its own store can do."""

    def __init__(self, root: torch.nn.Module, first: fx.Node, once: Callable[[torch.nn.Module], bool]) -> None:
        super().__init__(root, first, once)
        self.conv: Any = root.get_submodule(str(first.target))
        self._take_norm_and_activation()

    def fused(self) -> FusedConv2dForInference:
        conv = self.conv
        layer = FusedConv2dForInference(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, padding_mode=conv.padding_mode, device="meta", activation=self.activations[0],
            negative_slope=self.slopes[0] if self.slopes else NEGATIVE_SLOPE,
        )  # fmt: skip
        layer.backend = getattr(conv, "backend", None)
        layer.weight, layer.bias = folded(conv, self.norms[0])
        return layer.eval()


def _why_not(
    modules: list[torch.nn.Module],
    calls: Counter[torch.nn.Module],
    names: dict[torch.nn.Module, list[str]],
    owners: Counter[int],
    reads: dict[str, set[str]],
) -> str:
    """The reason to leave a chain alone, "" where there is none."""
    first = modules[0].weight
    for module in modules:
        what = f"its {type(module).__name__}" if module is not modules[0] else "it"
        if module.training:
            return f"{what} is in training mode: fusing is for inference"
        if hooked(module):
            return f"{what} has hooks, which would see another tensor"
        if calls[module] != 1 or len(names[module]) != 1:
            return f"{what} is used more than once"
        if read := sorted(reads.get(names[module][0], ())):
            return f"the model's code reads the {read[0]} of {'it' if module is modules[0] else what}"
        if own_arithmetic(module, nn.Conv2d, torch.nn.Conv2d, torch.nn.BatchNorm2d, *ACTIVATIONS):
            return f"{type(module).__qualname__} has arithmetic of its own"
        if torch.nn.utils.parametrize.is_parametrized(module):
            return f"{what} is parametrized"
        for name, tensor in module._parameters.items():
            if tensor is None:
                continue
            if owners[id(tensor)] != 1:
                return f"{what} shares its {name} with another layer"
            alike = tensor.dtype is first.dtype and tensor.device == first.device
            if not alike and not isinstance(module, torch.nn.BatchNorm2d):
                return f"{what} has {tensor.dtype} on {tensor.device}, beside {first.dtype} on {first.device}"
    if first.dtype not in FLOATING_DTYPES:
        return f"its weight is {first.dtype}"
    return ""


def _watched(root: torch.nn.Module, chain: _Links) -> str:
    """Containers that end or begin inside the chain pass on what fusing takes away."""
    paths = [str(node.target).split(".") for node in chain.nodes]
    around: list[set[str]] = [{".".join(path[:i]) for i in range(1, len(path))} for path in paths]
    for name in sorted(around[0].union(*around[1:]) - around[0].intersection(*around[1:])):
        container = root.get_submodule(name)
        if hooked(container):
            return f"{type(container).__name__} {name}, which holds a part of the chain, has hooks"
    return ""
