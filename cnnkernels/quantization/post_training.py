"""`cnnkernels.quantize`: a trained model in INT8, without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as ours
from ..backends import use_backend
from ..convert.replace import Layer
from ..convert.trace import copy_sharing_tensors, hooked
from ..nn.layer import KernelLayer
from .graph import Pieces, call, cut
from .lowering import Conversion, convert
from .observers import checked_observer
from .prepare import put_taps
from .report import Quantization, batches, kept_layers, size
from .units import Matcher, own_arithmetic

MODES = ("static", "dynamic", "weight_only")


def quantize(
    model: nn.Module,
    calibration_data: Tensor | Iterable[Any] | None = None,
    *,
    mode: str = "static",
    observer: str = "minmax",
    percentile: float = 99.99,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
    backend: str | None = None,
) -> Quantization:
    """The INT8 form of a trained model, for inference. The model itself stays as it is.

    Args:
        model: in evaluation mode, of any floating dtype, on any device.
        calibration_data: for mode "static", a few hundred inputs like those to come: one batch, as a tensor or a dict
            of named arguments, or an iterable of batches. There a batch may also be a tuple or list of the model's
            arguments; of a loader of (images, labels) give `(images for images, _ in loader)`. What is no tensor in
            the first batch is fixed from then on.
        mode: "static": convolutions and linear layers in INT8 with ranges fixed beforehand by `calibration_data`. A
            layer takes in the batch norm, the addition and the activation behind it, and values stay INT8 from layer
            to layer through pooling, ReLU, flatten and dropout.
            "dynamic": linear layers alone; each row of an input gets its own scale when it comes.
            "weight_only": linear layers alone; only the weights are INT8.
        observer: how a range is found: "minmax", "percentile", "entropy" or "mse" (see docs/quantization.md).
        percentile: of the values that "percentile" keeps, above 50 to 100.
        filter_fn: called with each convolution and linear layer and its name, says whether it may become INT8.
        backend: pins the INT8 layers to "cuda", "triton", "reference" or "auto"; None leaves them to the backend in
            force when they run.

    Returns:
        A `Quantization`: the model, its INT8 layers, what stayed in float and why, ranges and sizes. In mode "static"
        the model is a torch.fx.GraphModule where its code could be traced; where it could not, the parts that could
        are, with floats between them, and `notes` says so.

    Raises:
        TypeError: `model` is no module, or an argument is of the wrong type.
        ValueError: the model is in training mode; an argument names nothing; there is no calibration data where it is
            needed, or some where it is not; it makes NaN or infinity; a parameter has no size yet.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"quantize(): argument 'model' must be a torch.nn.Module, not {type(model).__name__}")
    if mode not in MODES:
        raise ValueError(f"quantize: mode must be one of {', '.join(MODES)}, but got {mode!r}")
    make_observer = checked_observer("quantize", observer, percentile)
    if backend is not None:
        use_backend(backend)  # raises for what is no backend
    if model.training:
        raise ValueError("quantize: the model is in training mode: call eval(), or prepare_qat to train for INT8")
    if mode != "static":
        if calibration_data is not None:
            raise ValueError(f"quantize: mode {mode!r} takes no calibration_data")
        return _linear_layers(model, mode, filter_fn, backend)
    if calibration_data is None:
        raise ValueError("quantize: mode 'static' needs calibration_data")
    whole: Pieces | None = None
    with torch.no_grad():
        for batch in batches(calibration_data):
            if whole is None:
                whole = cut(model, batch)
                prepare(whole, filter_fn, lambda coded: make_observer(), trains=False)
            call(whole.model, batch)
    if whole is None:
        raise ValueError("quantize: expected at least one batch of calibration_data")
    return finish(model, whole.model, notes(whole), backend)


def prepare(
    whole: Pieces,
    filter_fn: Callable[[nn.Module, str], bool] | None,
    watch: Callable[[bool], nn.Module],
    trains: bool,
) -> None:
    """Makes units of every piece's layers and puts taps on what is to become INT8.

    Args:
        watch: makes what watches a value; told whether it is to be coded.
        trains: for quantization-aware training.
    """
    for piece in whole.pieces:
        Matcher(piece, filter_fn, trains).run()
        put_taps(piece, watch, inside=trains)


def notes(whole: Pieces) -> tuple[str, ...]:
    return tuple(
        f"the code of {name or 'the model'} could not be traced ({why}): its parts are quantized one by one, with "
        "floats between them"
        for name, why in whole.obstacles
    )


def finish(original: nn.Module, prepared: nn.Module, remarks: tuple[str, ...], backend: str | None) -> Quantization:
    """Converts a model whose taps have seen data, and tells of it."""
    made, conversions = convert(prepared)
    made.eval()
    for module in made.modules():
        if backend is not None and isinstance(module, KernelLayer):
            module.backend = backend

    def gathered(lines: Callable[[Conversion], list[Any]]) -> tuple[Any, ...]:
        return tuple(line for conversion in conversions for line in lines(conversion))

    kept = (*kept_layers(made), *gathered(lambda c: c.kept))
    sizes = size(original), size(made)
    return Quantization(
        made, gathered(lambda c: c.quantized), kept, remarks, gathered(lambda c: c.values), *sizes, observed=prepared
    )


def _linear_layers(
    model: nn.Module, mode: str, filter_fn: Callable[[nn.Module, str], bool] | None, backend: str | None
) -> Quantization:
    """Swaps linear layers alone, which needs no graph: their inputs and outputs stay floats."""
    made = copy_sharing_tensors(model)
    names: dict[nn.Module, list[str]] = {}
    for name, module in made.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    quantized = []
    for module, where in names.items():
        if isinstance(module, nn.Conv2d):
            module.int8_reason = f"mode {mode!r} is for linear layers"  # type: ignore[assignment]
        if not isinstance(module, nn.Linear):
            continue
        if reason := _why_not(module, where[0], filter_fn):
            module.int8_reason = reason  # type: ignore[assignment]
            continue
        layer = ours.Int8Linear.from_float(module, mode=mode)
        layer.backend = backend
        quantized.append(Layer(tuple(n or "(the model)" for n in where), f"Int8Linear({layer.extra_repr()})"))
        for name in where:
            if name:
                made.set_submodule(name, layer)
            else:
                made = layer
    return Quantization(made, tuple(quantized), tuple(kept_layers(made)), (), (), size(model), size(made))


def _why_not(layer: nn.Linear, name: str, filter_fn: Callable[[nn.Module, str], bool] | None) -> str:
    if filter_fn is not None and not filter_fn(layer, name):
        return "filter_fn leaves it out"
    if hooked(layer):
        return "it has hooks"
    if nn.utils.parametrize.is_parametrized(layer):
        return "it is parametrized"
    if own_arithmetic(layer):
        return f"{type(layer).__qualname__} has arithmetic of its own"
    if nn.parameter.is_lazy(layer.weight):
        return "its weight has no size yet"
    return "" if layer.weight.is_floating_point() else f"its weight is {layer.weight.dtype}"
