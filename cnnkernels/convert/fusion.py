"""Finds chains of layers in a model and makes one layer of each; for inference:

    depthwise -> [batch norm] -> [activation] -> 1x1 [-> batch norm] [-> activation]       FusedForInference
    any other convolution -> batch norm and, or, activation                                FusedConv2dForInference

    a batch norm behind neither -> activation                                             FusedBatchNorm2dForInference

and of what is in training mode:

    convolution -> activation whose derivative is known from its result                    Conv2dAct
    batch norm -> activation                                                               BatchNorm2dAct

A chain counts only if the graph of the model's code has it (graph.py, chains.py). What is fused are the modules that
make it: of a chain found, the first module becomes one fused layer and the others become Identity, so that the model's
code stays what it is. Batch norms behind convolutions are folded (fold.py). Then residuals are fused (residual.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import fx
from torch.nn.utils.parametrize import is_parametrized

from .. import nn
from ..activation import known_from_output
from ..dtypes import FLOATING_DTYPES
from .chains import Chain, module_of
from .examples import Run, run
from .fused import conv_act, folded_convolution, norm_act, pair_of, same_numbers
from .graph import Piece
from .residual import adding_blocks, fuse_blocks
from .trace import ACTIVATIONS, hooked, own_arithmetic


@dataclass(frozen=True)
class Finding:
    """A chain in a model: the names of its modules; or its convolution's alone, and why it was left alone."""

    names: tuple[str, ...]
    reason: str = ""


def fuse(model: torch.nn.Module, example: Any, inplace: bool) -> tuple[torch.nn.Module, list[Finding]]:
    """Fuses what it can in `model` itself and tells of every chain, and every depthwise convolution not in one.

    Args:
        example: a batch of the model's input, or None for one that fits.
        inplace: the model stays the object that it is; else it is another where its own code adds residuals.
    """
    names: dict[torch.nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    if not any(_is_convolution(module) for module in names):
        return model, []
    owners = Counter(id(t) for module in names for t in module._parameters.values() if t is not None)
    done = {part for module in names if isinstance(module, nn.DepthwiseSeparableConv2d) for part in module.children()}
    findings: list[Finding] = []
    told: set[str] = set()
    obstacle = ""
    runs: dict[bool, Run] = {}
    for trains in sorted({m.training for m in names if _is_convolution(m) or isinstance(m, torch.nn.BatchNorm2d)}):
        seen = runs[trains] = run(model, example, trains)
        obstacle = obstacle or seen.obstacle
        for piece in seen.pieces:
            if not piece.alone:
                for finding in (_InTraining if trains else _Fusion)(model, piece, names, owners, seen).run():
                    findings.append(finding)
                    told.update(finding.names)
    if obstacle:
        return model, [Finding(("",), obstacle)]
    for module, where in names.items():
        if _is_depthwise(module) and module not in done and not told & set(where):
            findings.append(Finding((where[0],), "the code that runs it could not be traced"))
    for trains, seen in runs.items():
        model = _residuals(model, seen, trains, not inplace, findings)
    return model, findings


def _residuals(
    model: torch.nn.Module, seen: Run, trains: bool, replaces: bool, findings: list[Finding]
) -> torch.nn.Module:
    """Fuses blocks that add, and tells of their chains in the place of the layers' own."""

    def made(chain: Chain, layer: Any) -> Any:
        if isinstance(layer, nn.Conv2dAct):
            layer.activation, layer.negative_slope = chain.activation, chain.negative_slope
            return layer
        fused = (
            norm_act(chain, layer, trains)
            if isinstance(layer, torch.nn.BatchNorm2d)
            else conv_act(chain, layer, trains)
        )
        fused.backend = getattr(layer, "backend", None)
        return fused

    blocks = dict.fromkeys(name for piece in seen.pieces if not piece.alone for name in adding_blocks(piece))
    for name, chains, block in fuse_blocks(model, list(blocks), seen, trains, made, replaces):
        if isinstance(block, str):
            if name or not any(f.reason for f in findings):  # of the model itself where nothing else says why
                findings.append(Finding((name,), block))
            continue
        if name:
            model.set_submodule(name, block)
        else:
            model = block
        for links in chains:
            before = next((f for f in findings if f.names[0] == links[0]), None)
            if before is not None:
                findings.remove(before)
                links = (*(before.names if not before.reason else links[:1]), *links[1:])
            findings.append(Finding(links))
    return model


def _is_convolution(module: torch.nn.Module) -> TypeGuard[torch.nn.Conv2d]:
    return isinstance(module, torch.nn.Conv2d) and not isinstance(module, torch.nn.LazyConv2d)


def _is_depthwise(module: torch.nn.Module) -> bool:
    return _is_convolution(module) and module.groups == module.in_channels > 1


class _Fusion:
    """Fuses the chains of one piece of the model."""

    trains = False

    def __init__(
        self,
        model: torch.nn.Module,
        piece: Piece,
        names: dict[torch.nn.Module, list[str]],
        owners: Counter[int],
        seen: Run,
    ) -> None:
        self.model, self.piece, self.names, self.owners, self.seen = model, piece, names, owners, seen
        self.calls: dict[str, set[str]] = {}  # of a module, by name
        self.code: dict[str, set[fx.Node]] = {}  # what runs in them
        for node in piece.module.graph.nodes:
            for call, name in node.meta.get("calls", ()):
                self.calls.setdefault(name, set()).add(call)
                self.code.setdefault(name, set()).add(node)

    def run(self) -> Iterator[Finding]:
        heads: dict[str, fx.Node] = {}  # one line for one run twice
        for node in self.piece.module.graph.nodes:
            if not _is_convolution(module_of(self.piece, node)) or not _is_convolution(self.module(node)):
                continue
            if self.module(node).training == self.trains:
                heads.setdefault(self.home(node), node)
        told = set()
        for name, node in heads.items():
            if _is_depthwise(self.module(node)):
                told.add(name)
                yield self.pair(node)
        for name, node in heads.items():  # what the pairs have left
            if not isinstance(self.module(node), torch.nn.Conv2d):
                continue
            finding = self.convolution(node)
            if len(finding.names) > 1 or (finding.reason and name not in told):
                yield finding
        for node in self.piece.module.graph.nodes:
            finding = self.norm(node)
            if len(finding.names) > 1:
                yield finding

    def norm(self, node: fx.Node) -> Finding:
        """A batch norm's that no convolution took in."""
        chain = Chain(self.piece, node)
        none = Finding((self.name(node),))
        if not isinstance(chain.layer, torch.nn.BatchNorm2d) or isinstance(chain.layer, nn.BatchNorm2dAct):
            return none
        module = self.module(node)
        if not isinstance(module, torch.nn.BatchNorm2d) or module.training != self.trains:
            return none
        chain.take_activation()
        if len(chain.nodes) == 1 or not same_numbers(chain.layer, module):
            return none
        once = self.is_once(self.home(chain.nodes[-1]))
        return self.fused(chain) if once and not self.why_not(chain.nodes) else none

    def pair(self, node: fx.Node) -> Finding:
        """The depthwise convolution's, and its 1x1's, in one."""
        first = Chain(self.piece, node)
        self.follow(first, last=False)
        reader, second = first.reader(), first.follower()
        alone = self.places([node])
        if reason := self.why_not([node]) or (alone if isinstance(alone, str) else self.why_ends(first)):
            pass
        elif reader is None or not _is_convolution(second) or _is_depthwise(second):
            reason = f"{self.follower(first)} follows, not a 1x1 convolution"
        elif second.kernel_size != (1, 1) or second.stride != (1, 1) or second.groups != 1:
            reason = f"Conv2d({second.extra_repr()}) follows, not a 1x1 convolution of stride 1"
        elif any(second._reversed_padding_repeated_twice):
            reason = "the 1x1 convolution that follows has padding"
        elif first.layer.padding_mode != "zeros":
            reason = f"it has padding_mode {first.layer.padding_mode!r}"
        else:
            then = Chain(self.piece, reader)
            self.follow(then)
            if len({c.negative_slope for c in (first, then) if c.activation == "leaky_relu"}) > 1:
                then.leave()
            return self.fused(first, then)
        return Finding((self.name(node),), reason)

    def convolution(self, node: fx.Node) -> Finding:
        """A convolution's with what follows it."""
        chain = Chain(self.piece, node)
        self.follow(chain)
        return self.fused(chain) if len(chain.nodes) > 1 else Finding((self.name(node),))

    def follow(self, chain: Chain, last: bool = True) -> None:
        """Takes the norm and the activation, as far as modules make them that can go.

        Args:
            last: an activation that has other calls, too, may stay what it is behind the chain.
        """
        chain.take_norm()
        if chain.norm is not None and isinstance(self.places(chain.nodes), str):
            chain.leave()
            return
        links = len(chain.nodes)
        chain.take_activation()
        if len(chain.nodes) > links:
            shared = last and not self.is_once(self.home(chain.nodes[-1]))
            if shared or isinstance(self.places(chain.nodes), str):
                chain.leave()

    def places(self, links: list[fx.Node]) -> dict[str, torch.nn.Module] | str:
        """What comes into the place of the links' modules behind the first, by name; or why they cannot go."""
        chain = set(links)
        found: dict[str, torch.nn.Module] = {}
        heads = {self.home(node) for node in links if _is_convolution(module_of(self.piece, node))}
        heads = heads or {self.home(links[0])}
        for node in links:
            home = self.home(node)
            if any(f"{home}.".startswith(f"{name}.") for name in found):
                continue
            rest = {self.home(other) for other in self.code.get(home, set()) - chain}
            parts = {name.removeprefix(f"{home}.").split(".")[0] for name in rest if name.startswith(f"{home}.")}
            stays = home in heads
            if rest and (stays or home in rest or len(parts) != 1):
                return f"{type(self.module(node)).__qualname__} has arithmetic of its own"
            if stays:
                continue
            if any(f"{name}.".startswith(f"{home}." if home else "") for name in heads):
                return f"the code of {home or 'the model'} makes a part of it itself"
            kept = next(iter(parts), None)  # as the activation of a norm that has one
            found[home] = self.module(node).get_submodule(kept) if kept else torch.nn.Identity().train(self.trains)
        return found

    def fused(self, *chains: Chain) -> Finding:
        links = [node for chain in chains for node in chain.nodes]
        places = self.places(links)
        for chain in chains:
            if own_arithmetic(chain.layer, nn.Conv2d, torch.nn.Conv2d, nn.BatchNorm2d, torch.nn.BatchNorm2d):
                places = f"{type(chain.layer).__qualname__} has arithmetic of its own"
        if isinstance(places, str):
            return Finding((self.name(links[0]),), places)
        if reason := self.why_not(links):
            return Finding((self.name(links[0]),), reason)
        layer = self.layer(*chains)
        layer.backend = getattr(self.module(links[0]), "backend", None)
        if not self.trains and any(not t.is_meta and not t.isfinite().all() for t in layer.parameters()):
            reason = f"a folded filter or bias is not finite in {next(layer.parameters()).dtype}"
            return Finding((self.name(links[0]),), reason)
        names = tuple(dict.fromkeys(self.name(node) for node in links))
        heads = [self.home(chain.nodes[0]) for chain in chains]
        for home, module in {
            **places,
            **{home: torch.nn.Identity().train(self.trains) for home in heads[1:]},
            heads[0]: layer,
        }.items():
            self.model.set_submodule(self.piece.prefix + home, module)
        return Finding(names)

    def layer(self, *chains: Chain) -> Any:
        """What one or two chains become."""
        if isinstance(chains[0].layer, torch.nn.BatchNorm2d):
            return norm_act(chains[0], self.module(chains[0].nodes[0]), self.trains)
        sources = [self.source(chain) for chain in chains]
        return pair_of(chains[0], chains[1], sources) if len(chains) > 1 else folded_convolution(chains[0], sources[0])

    def source(self, chain: Chain) -> Any:
        """The convolution with its parameters: the model's own, or where it computes them what they are."""
        module: Any = self.module(chain.nodes[0])
        computes = own_arithmetic(module, nn.Conv2d, torch.nn.Conv2d) or is_parametrized(module)
        return chain.layer if computes else module

    def home(self, node: fx.Node) -> str:
        """The module whose code a node is, by its name in the piece."""
        return str(node.meta.get("home", ""))

    def name(self, node: fx.Node) -> str:
        return (self.piece.prefix + self.home(node)).rstrip(".")

    def module(self, node: fx.Node) -> torch.nn.Module:
        return self.model.get_submodule(self.name(node))

    def is_once(self, home: str) -> bool:
        module = self.model.get_submodule((self.piece.prefix + home).rstrip("."))
        return len(self.names.get(module, ())) == 1 and len(self.calls.get(home, ())) == 1

    def why_ends(self, chain: Chain) -> str:
        """What of the module that follows ends a chain before it was looked at, "" where nothing does."""
        reader = chain.reader()
        if reader is not None and chain.follower() is not None and self.home(reader):
            module = self.module(reader)
            if hooked(module):
                return f"its {type(module).__name__} has hooks, which would see another tensor"
            if isinstance(module, (torch.nn.BatchNorm2d, *ACTIVATIONS)) and not self.is_once(self.home(reader)):
                return f"its {type(module).__name__} is used more than once"
        around = self.piece.prefix[:-1]
        if (
            around
            and (reader is None or reader.op == "output")
            and hooked(container := self.model.get_submodule(around))
        ):
            return f"{type(container).__name__} {around}, which holds a part of the chain, has hooks"
        return ""

    def follower(self, chain: Chain) -> str:
        """What follows a chain, in words."""
        readers = list(chain.nodes[-1].users)
        if len(readers) != 1:
            return "nothing" if not readers else f"more than one reader ({', '.join(map(str, readers))})"
        [reader] = readers
        if reader.op == "output":
            return "the output"
        layer, home = module_of(self.piece, reader), self.home(reader)
        if home and not any(True for _ in self.module(reader).children()):
            return type(self.module(reader)).__name__
        target = str(getattr(reader.target, "__name__", reader.target)).split(".")[0]
        return target if layer is None else type(layer).__name__.lower()

    def why_not(self, links: list[fx.Node]) -> str:
        """The reason to leave a chain alone, "" where there is none."""
        head: Any = self.module(links[0])
        for node in links:
            module = self.module(node)
            what = f"its {type(module).__name__}" if module is not head else "it"
            if module.training and not self.trains:
                return f"{what} is in training mode: fusing is for inference"
            if hooked(module):
                return f"{what} has hooks, which would see another tensor"
            if not self.is_once(self.home(node)):
                return f"{what} is used more than once"
            if read := sorted(self.seen.reads.get(self.names[module][0], ())):
                return f"the model's code reads the {read[0]} of {what}"
            for name, tensor in module._parameters.items():
                if tensor is None:
                    continue
                if self.owners[id(tensor)] != 1:
                    return f"{what} shares its {name} with another layer"
        dtype = FLOATING_DTYPES[0] if head.weight is None else head.weight.dtype
        return "" if dtype in FLOATING_DTYPES else f"its weight is {dtype}"


class _InTraining(_Fusion):
    """Fuses a convolution in training mode with the activation behind it, around its own parameters."""

    trains = True

    def pair(self, node: fx.Node) -> Finding:
        return Finding((self.name(node),), "it is in training mode: a pair is fused for inference")

    def follow(self, chain: Chain, last: bool = True) -> None:
        chain.take_activation()
        shared = len(chain.nodes) > 1 and not self.is_once(self.home(chain.nodes[-1]))
        if shared or isinstance(self.places(chain.nodes), str):
            chain.leave()

    def convolution(self, node: fx.Node) -> Finding:
        chain = Chain(self.piece, node)
        name = (self.name(node),)
        if isinstance(chain.follower(), torch.nn.BatchNorm2d):
            return Finding(name, "its BatchNorm2d is folded for inference alone, and it is in training mode")
        self.follow(chain)
        if len(chain.nodes) == 1:
            return Finding(name)
        if not known_from_output(chain.activation, chain.negative_slope):
            # One kernel would keep no pre-activation, and convolve once more in backward.
            return Finding(name, f"the derivative of its {chain.activation} asks for more than the result")
        if self.name(chain.nodes[-1]) in self.seen.changed:
            return Finding(name, f"the result of its {chain.activation}, which backward reads, is changed in place")
        return self.fused(chain)

    def layer(self, *chains: Chain) -> Any:
        module = self.module(chains[0].nodes[0])
        norm = isinstance(chains[0].layer, torch.nn.BatchNorm2d)
        return norm_act(chains[0], module, True) if norm else conv_act(chains[0], module, True)
