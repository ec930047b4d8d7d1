"""`cnnkernels.quantize`: a trained model in INT8, without training."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import use_backend
from ..convert.graph import Pieces, call, cut, state_kept
from ..convert.inputs import Sizes
from ..nn.layer import KernelLayer
from ..nn.numbered import NumberedLayer
from ..proof.run import prove_for
from .data import feed
from .linear import swap_linear_layers
from .lowering import Conversion, convert
from .observers import checked_observer
from .prepare import put_taps
from .recipe import Recipe, described, noting
from .report import Quantization, kept_layers, size
from .units import Matcher

MODES = ("static", "dynamic", "weight_only")
Keep = str | type[nn.Module] | Callable[[str, nn.Module], bool]


def quantize(
    model: nn.Module,
    calibration_data: Tensor | Iterable[Any] | Callable[..., Any] | None = None,
    *,
    mode: str = "static",
    observer: str = "minmax",
    percentile: float = 99.99,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
    backend: str | None = None,
    keep: Iterable[Keep] = (),
    progress: bool | None = None,
    prove: bool = True,
) -> Quantization:
    """The INT8 form of a trained model, for inference. The model itself stays as it is.

    Args:
        model: in evaluation mode, of any floating dtype, on any device. Its code is captured in that mode.
        calibration_data: for mode "static", a few hundred inputs like those to come: one batch, as a tensor or a dict
            of named arguments, or an iterable of batches, as a DataLoader. There a batch may also be a tuple or list of
            the model's arguments; of (images, labels), or of a dict with other things beside, the model gets what it
            takes. Or a function: one that is called with a model and calls it with what it likes, or one of no
            argument, which returns batches. What is no tensor in the first batch is fixed from then on.
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
        keep: what stays in float: names of layers or of modules that hold them, types of layers, functions of a
            layer's name and the layer.
        progress: shows a bar of batches on standard error; None where that is a terminal.
        prove: tests the kernels first on a GPU that the model is on, where `cnnkernels.prove` has not: kernels that
            are not certified there are not used.

    Returns:
        A `Quantization`: the model, its INT8 layers, what stayed in float and why, ranges and sizes. In mode "static"
        the model is a torch.fx.GraphModule where its code has one graph; where it has none, the parts that have are,
        with floats between them, and `notes` says so.

    Raises:
        TypeError: `model` is no module, or an argument is of the wrong type.
        ValueError: the model is in training mode; an argument names nothing; there is no calibration data where it is
            needed, or some where it is not; it makes NaN or infinity; a parameter has no size yet.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
        >>> images = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)
        >>> cnnkernels.quantize(model, images).model(images).shape
        torch.Size([1, 8, 6, 6])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"quantize(): argument 'model' must be a torch.nn.Module, not {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("quantize(): argument 'model' is compiled by TorchScript: give the model that it was made of")
    model = vars(model)["_modules"].get("_orig_mod", model)  # what torch.compile has made is around it
    if mode not in MODES:
        raise ValueError(f"quantize: mode must be one of {', '.join(MODES)}, but got {mode!r}")
    make_observer = checked_observer("quantize", observer, percentile)
    if backend is not None:
        use_backend(backend)  # raises for what is no backend
    if model.training:
        raise ValueError("quantize: the model is in training mode: call eval(), or prepare_qat to train for INT8")
    left_out = left_out_by(model, filter_fn, keep)
    if prove:
        prove_for(model)
    if mode != "static":
        if calibration_data is not None:
            raise ValueError(f"quantize: mode {mode!r} takes no calibration_data")
        return swap_linear_layers(model, mode, *noting(left_out), backend)
    if calibration_data is None:
        raise ValueError("quantize: mode 'static' needs calibration_data")
    whole: list[Pieces] = []
    noted, names = noting(left_out)
    example: Any = None
    with torch.no_grad(), contextlib.ExitStack() as state:

        def run(batch: Any) -> Any:
            nonlocal example
            if not whole:
                example = described(batch)
                whole.append(cut(model, batch, trains=False))
                prepare(whole[0], noted, lambda coded: make_observer())
                state.enter_context(state_kept(whole[0].model))
            return call(whole[0].model, batch)

        feed(calibration_data, model, run, progress)
    if not whole:
        raise ValueError("quantize: expected at least one batch of calibration_data")
    return finish(model, whole[0].model, notes(whole[0]), backend, Recipe("static", tuple(names), *example))


def prepare(
    whole: Pieces,
    left_out: Callable[[nn.Module, str], str],
    watch: Callable[[bool], nn.Module],
) -> None:
    """Makes units of every piece's layers and puts taps on what is to become INT8.

    Args:
        left_out: as `Matcher`'s.
        watch: makes what watches a value; told whether it is to be coded.
    """
    for piece in whole.pieces:
        Matcher(piece, left_out, whole.trains).run()
        put_taps(piece, watch, inside=whole.trains)


def notes(whole: Pieces) -> tuple[str, ...]:
    """For the report."""
    modes = [f"{name} was in training mode, and is quantized as in evaluation" for name in whole.training]
    graphs = [
        f"the code of {name or 'the model'} has no one graph ({why}): its parts are quantized one by one, with floats "
        "between them"
        for name, why in whole.obstacles
    ]
    return (*modes, *graphs)


def finish(
    original: nn.Module, prepared: nn.Module, remarks: tuple[str, ...], backend: str | None, recipe: Recipe | None
) -> Quantization:
    """Converts a model whose taps have seen data, and tells of it."""
    made, conversions = convert(prepared)
    made.eval()
    device = next(original.parameters(), torch.empty(0)).device
    for module in made.modules():
        if backend is not None and isinstance(module, KernelLayer):
            module.backend = backend
        if isinstance(module, NumberedLayer):
            module.to(device)
        if isinstance(module, (NumberedLayer, Sizes)):
            module.only_for_inference = True

    def gathered(lines: Callable[[Conversion], list[Any]]) -> tuple[Any, ...]:
        return tuple(line for conversion in conversions for line in lines(conversion))

    values = gathered(lambda c: c.values)
    if zero := [value.names[0] for value in values if value.low == value.high == 0]:
        warnings.warn(f"all values of {', '.join(zero)} were 0: their codes mean nothing", stacklevel=3)
    kept = (*kept_layers(made), *gathered(lambda c: c.kept))
    sizes = size(original), size(made)
    return Quantization(made, gathered(lambda c: c.quantized), kept, remarks, values, *sizes, prepared, recipe)


def left_out_by(
    model: nn.Module, filter_fn: Callable[[nn.Module, str], bool] | None, keep: Iterable[Keep] = ()
) -> Callable[[nn.Module, str], str]:
    """Why the caller wants a layer in float.

    Raises:
        TypeError: a part of `keep` is nothing that names layers.
        ValueError: it names none of the model's modules.
    """
    if isinstance(keep, str) or not isinstance(keep, Iterable):
        raise TypeError(f"quantize(): argument 'keep' must be a list, not {type(keep).__name__}")
    kept, names = list(keep), {name for name, _ in model.named_modules(remove_duplicate=False)}
    for part in kept:
        if isinstance(part, str) and part not in names:
            raise ValueError(f"quantize: the model has no module that keep={part!r} could name")
        if not isinstance(part, str) and not callable(part):
            raise TypeError(
                f"quantize(): a part of 'keep' must be a name, a type or a function, not {type(part).__name__}"
            )

    def says(part: Any, layer: nn.Module, name: str) -> bool:
        if isinstance(part, str):
            return f"{name}.".startswith(f"{part}.") or not part
        return isinstance(layer, part) if isinstance(part, type) else bool(part(name, layer))

    def left_out(layer: nn.Module, name: str) -> str:
        if filter_fn is not None and not filter_fn(layer, name):
            return "filter_fn leaves it out"
        return "keep names it" if any(says(part, layer, name) for part in kept) else ""

    return left_out
