"""Puts the project's kernels under a model written with torch.nn."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules import conv, pooling
from torch.nn.utils import parametrize

from .. import nn
from ..backends import use_backend
from ..dtypes import FLOATING_DTYPES
from ..nn.layer import KernelLayer
from ..proof.run import prove_for
from ..tuning import Tuning, tune_layers
from . import fusion
from .functional_calls import has_own_code, serve_calls
from .trace import copy_sharing_tensors

_COUNTERPARTS: dict[type[torch.nn.Module], type[KernelLayer]] = {
    torch.nn.LazyConv2d: nn.LazyConv2d,  # each before its base
    torch.nn.Conv2d: nn.Conv2d,
    torch.nn.LazyConv1d: nn.LazyConv1d,
    torch.nn.Conv1d: nn.Conv1d,
    torch.nn.LazyConvTranspose2d: nn.LazyConvTranspose2d,
    torch.nn.ConvTranspose2d: nn.ConvTranspose2d,
    torch.nn.LazyConvTranspose1d: nn.LazyConvTranspose1d,
    torch.nn.ConvTranspose1d: nn.ConvTranspose1d,
    torch.nn.MaxPool2d: nn.MaxPool2d,
    torch.nn.MaxUnpool2d: nn.MaxUnpool2d,
    torch.nn.MaxPool1d: nn.MaxPool1d,
    torch.nn.AvgPool1d: nn.AvgPool1d,
    torch.nn.AvgPool2d: nn.AvgPool2d,
    torch.nn.AdaptiveAvgPool1d: nn.AdaptiveAvgPool1d,
    torch.nn.AdaptiveAvgPool2d: nn.AdaptiveAvgPool2d,
    torch.nn.LazyBatchNorm1d: nn.LazyBatchNorm1d,
    torch.nn.BatchNorm1d: nn.BatchNorm1d,
    torch.nn.LazyBatchNorm2d: nn.LazyBatchNorm2d,
    torch.nn.BatchNorm2d: nn.BatchNorm2d,
    torch.nn.LazyBatchNorm3d: nn.LazyBatchNorm3d,
    torch.nn.BatchNorm3d: nn.BatchNorm3d,
    torch.nn.SyncBatchNorm: nn.SyncBatchNorm,
}
# What a layer computes is decided by these; a class that inherits them all computes what its base does.
_ARITHMETIC = ("__call__", "_call_impl", "_wrapped_call_impl", "forward", "_conv_forward")
# Layers of this project's field: one of them that stays is worth a line in the report, a BatchNorm is not.
_FIELD = (
    conv._ConvNd,
    pooling._MaxPoolNd,
    pooling._MaxUnpoolNd,
    pooling._AvgPoolNd,
    pooling._LPPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
    torch.nn.FractionalMaxPool2d,
)


@dataclass(frozen=True)
class Layer:
    """One line of the report: where the layer stands in the model, what it is, and why it was kept."""

    names: tuple[str, ...]
    layer: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{' = '.join(self.names)}: {self.layer}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Replacement:
    """What `replace_layers` did: the model to use, and every layer it swapped or kept; with `fuse=True` also every
    chain it fused, and every chain it did not and every depthwise convolution without its 1x1 (which may be fused
    with what lies between); with `tune=True` also what was measured; with `functional=True` also every layer with
    code of its own, whose calls are served.

    Example:
        >>> replaced = cnnkernels.replace_layers(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()))
        >>> [layer.names for layer in replaced.swapped]
        [('0',)]
    """

    model: torch.nn.Module
    swapped: tuple[Layer, ...]
    kept: tuple[Layer, ...]
    fused: tuple[Layer, ...] = ()
    unfused: tuple[Layer, ...] = ()
    tuning: Tuning | None = None
    served: tuple[Layer, ...] = ()

    def __str__(self) -> str:
        lines = [f"swapped {len(self.swapped)}, kept {len(self.kept)}"]
        if self.served:
            lines[0] += f", served {len(self.served)}"
        if self.fused or self.unfused:
            lines[0] += f", fused {len(self.fused)}, not fused {len(self.unfused)}"
        lines += [f"  fused   {layer}" for layer in self.fused]
        lines += [f"  unfused {layer}" for layer in self.unfused]
        lines += [f"  swapped {layer}" for layer in self.swapped]
        lines += [f"  served  {layer}" for layer in self.served]
        lines += [f"  kept    {layer}" for layer in self.kept]
        if self.tuning is not None:
            lines.append(str(self.tuning))
        return "\n".join(lines)


def replace_layers(
    model: torch.nn.Module,
    backend: str | None = None,
    inplace: bool = False,
    fuse: bool = False,
    example: Any = None,
    example_input: Any = None,
    tune: bool = False,
    prove: bool = True,
    functional: bool = False,
) -> Replacement:
    """Swaps every layer of `model` that has a counterpart in `cnnkernels.nn`, the root itself included.

    Parameters, buffers, hooks, parametrizations, training mode, attributes and `state_dict` keys stay what they are.
    A layer found under two names stays one layer, and a second call finds nothing left to do.

    Args:
        model: any module; layers are found as `model.modules()` finds them.
        backend: pins the swapped layers, and those of `cnnkernels.nn` already there, to "cuda", "triton",
            "reference" or "auto"; None leaves them to the backend in force when they run.
        inplace: False leaves `model` as it is and returns a copy of its modules around the very same parameters and
            buffers: training or loading one is training or loading both. True turns the layers of `model` itself.
        fuse: of what is in evaluation makes one layer of each chain depthwise -> [batch norm] -> [activation] -> 1x1
            [-> batch norm] [-> activation] that the model's code is seen to run (by torch.export, on a copy, whole or
            block by block), in whatever spelling its modules have, then one of each other convolution with the batch
            norm and the activation after it (which stays behind it where it is used elsewhere too). Batch norms are
            folded into copies of the filters; the chain's other modules become Identity, so `state_dict` changes there.
            Of what is in training mode a convolution and the activation behind it become a `Conv2dAct` around the same
            parameters, which trains, where the activation's derivative is known from its result (relu, relu6,
            leaky_relu), and a norm and the activation behind it a `BatchNorm2dAct`; so does a norm in evaluation that
            no convolution takes in. A block whose code adds what a layer makes becomes the graph of its code, in which
            the addition and the activation behind it are the layer's too. A chain with hooks, shared modules or
            parameters, or with another reader of what lies between or of its parameters, is left alone, and the report
            says why.
        example: for `fuse`, a batch of the model's input: a tensor, a tuple or list of arguments, or a dict of named
            ones. None takes `example_input`, and without it an image of a size that the model takes.
        example_input: for `tune`, a batch of the model's input in the same ways.
        tune: times the layers' calls on the GPU at hand and has "auto" follow, as `cnnkernels.tune` does.
        prove: tests the kernels first on a GPU that the model is on, where `cnnkernels.prove` has not: kernels that
            are not certified there are not used.
        functional: of each module with code of its own also serves the calls of torch.nn.functional in it, as
            `patch_functional` does: of a layer that prepares its weights or padding first, and of a model that calls
            functions. Its class becomes a subclass with the same name, code and pickle.

    Returns:
        A `Replacement`: the model, the layers swapped, and those of the field kept, each with its reason: no
        counterpart, a subclass with arithmetic of its own, a type the kernels do not take, quantized, scripted.

    Raises:
        TypeError: `model` is not a torch.nn.Module.
        ValueError: `backend` is no backend; an example is missing, or there for nothing; with `tune`, what
            `cnnkernels.tune` raises.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2))
        >>> replaced = cnnkernels.replace_layers(model)
        >>> type(replaced.model[0]), len(replaced.swapped)
        (<class 'cnnkernels.nn.conv.Conv2d'>, 2)
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"replace_layers(): argument 'model' must be a torch.nn.Module, not {type(model).__name__}")
    if backend is not None:
        use_backend(backend)  # raises for what is no backend
    if prove:
        prove_for(model)
    if not inplace:
        model = copy_sharing_tensors(model)
    if example is not None and not fuse:
        raise ValueError("replace_layers: an example is for fuse=True")
    if tune != (example_input is not None):
        raise ValueError(f"replace_layers: example_input and tune=True come together, but got tune={tune}")
    findings: list[fusion.Finding] = []
    if fuse:
        model, findings = fusion.fuse(model, example_input if example is None else example, inplace)
    reported = {part for f in findings if not f.reason for part in model.get_submodule(f.names[0]).modules()}
    names: dict[torch.nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name or "(the model)")
    swapped, kept, served = [], [], []
    for module, where in names.items():
        before = f"{type(module).__name__}({module.extra_repr()})"
        if module in reported:
            reason: str | None = ""
        elif isinstance(module, KernelLayer):
            reason = "already of cnnkernels.nn"
        else:
            reason = _why_kept(module)
        if reason is None:
            module.__class__ = _counterpart(type(module))
            swapped.append(Layer(tuple(where), before))
        elif functional and has_own_code(module):
            serve_calls(module, backend)
            if reason:
                served.append(Layer(tuple(where), before, reason))
        elif reason:
            kept.append(Layer(tuple(where), before, reason))
        if backend is not None and isinstance(module, KernelLayer):
            module.backend = backend
    fused = tuple(_line(model, f) for f in findings if not f.reason)
    unfused = tuple(_line(model, f) for f in findings if f.reason)
    tuning = tune_layers(model, example_input) if tune else None
    return Replacement(model, tuple(swapped), tuple(kept), fused, unfused, tuning, tuple(served))


def _line(model: torch.nn.Module, finding: fusion.Finding) -> Layer:
    module = model.get_submodule(finding.names[0])
    name = " + ".join(finding.names) or "(the model)"
    return Layer((name,), f"{type(module).__name__}({module.extra_repr()})", finding.reason)


def _base(cls: type) -> type[torch.nn.Module]:
    """The layer of torch.nn with a counterpart that `cls` is or inherits from; Module where there is none."""
    return next((base for base in _COUNTERPARTS if issubclass(cls, base)), torch.nn.Module)


def _why_kept(module: torch.nn.Module) -> str | None:
    """None where the module can be swapped, "" where it is nothing of the field, else the reason to keep it."""
    cls = type(module)
    if isinstance(module, torch.jit.ScriptModule):
        scripted = module.original_name
        return "compiled by TorchScript" if any(scripted == base.__name__ for base in _COUNTERPARTS) else ""
    if cls.__module__.startswith("torch.") and "quantized" in cls.__module__:
        return "quantized" if "Conv" in cls.__name__ or "Pool" in cls.__name__ else ""
    base = _base(cls)
    if base is torch.nn.Module:
        return "cnnkernels.nn has no counterpart" if isinstance(module, _FIELD) else ""
    own = [name for name in _ARITHMETIC if getattr(cls, name, None) is not getattr(base, name, None)]
    own += [name for name in _ARITHMETIC if name in vars(module)]
    if own:
        return f"{cls.__qualname__} has its own {own[0]}()"
    weight = getattr(module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dtype not in FLOATING_DTYPES:
        return f"its weight is {weight.dtype}, the kernels take {', '.join(str(d) for d in FLOATING_DTYPES)}"
    return None


def _counterpart(cls: type) -> type[torch.nn.Module]:
    """The class `cls` turns into: same layout in memory, arithmetic of cnnkernels.nn."""
    if cls in _COUNTERPARTS:
        return _COUNTERPARTS[cls]
    if cls.__module__ == parametrize.__name__:
        # A class parametrize made for this one module; removing the parametrization returns to its first base.
        members = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
        return type(cls.__name__, (_counterpart(cls.__bases__[0]),), members)
    return _adapted(cls)


@functools.cache
def _adapted(cls: type) -> type[torch.nn.Module]:
    """A subclass of torch.nn's layer that keeps its arithmetic, with ours put under it.

    No module holds the class made here, so a pickle names `cls` and makes it anew.
    """
    members = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__reduce_ex__": lambda self, protocol: (_empty_adapted, (cls,), self.__getstate__()),
    }
    return type(cls.__name__, (cls, _COUNTERPARTS[_base(cls)]), members)


def _empty_adapted(cls: type) -> torch.nn.Module:
    adapted = _adapted(cls)
    return adapted.__new__(adapted)
