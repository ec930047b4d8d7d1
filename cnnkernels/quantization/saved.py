"""INT8 models in files: `save_quantized` and `load_quantized`, in safetensors' format, which holds no code."""

from __future__ import annotations

import json
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..convert.trace import copy_of_its_own
from .post_training import quantize
from .recipe import stand_in
from .report import Quantization
from .training import convert_qat, prepare_qat

_INTEGERS = "example."  # where tensors of the example are, beside those of the state


def save_quantized(result: Quantization, file: str | os.PathLike[str]) -> None:
    """Writes what `quantize` or `convert_qat` returned to a safetensors file, for `load_quantized`.

    The file holds tensors, numbers and names, and nothing of the model's code.

    Raises:
        TypeError: `result` is no `Quantization`, or the model was called with what JSON cannot keep.

    Example:
        >>> import pathlib, tempfile
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> cnnkernels.save_quantized(cnnkernels.quantize(model, torch.ones(1, 3, 8, 8)), file)
    """
    from safetensors.torch import save_file

    if not isinstance(result, Quantization) or result.recipe is None:
        kind = type(result).__name__
        raise TypeError(f"save_quantized(): argument 'result' must be what quantize returned, not {kind}")
    recipe, state = result.recipe, result.model.state_dict()
    tensors: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            where = value.data_ptr(), value.shape, value.stride(), value.dtype
            if value.numel() and first.setdefault(where, name) != name:
                same[name] = first[where]
            else:
                tensors[name] = value.detach().contiguous()
    tensors.update((f"{_INTEGERS}{i}", value.contiguous()) for i, value in enumerate(recipe.integers))
    words = {
        "how": recipe.how,
        "left_out": recipe.left_out,
        "example": recipe.example,
        "same": same,
        "others": {name: value for name, value in state.items() if not isinstance(value, Tensor)},
        "torch": torch.__version__,
    }
    try:
        told = json.dumps(words)
    except TypeError as error:
        raise TypeError(f"save_quantized: a file cannot keep an argument of the model: {error}") from None
    # In a file of its own first: a save that is cut short leaves the old one whole.
    beside = f"{os.fspath(file)}.part"
    save_file(tensors, beside, {"cnnkernels": told})
    os.replace(beside, file)


def load_quantized(model: nn.Module, file: str | os.PathLike[str], *, backend: str | None = None) -> nn.Module:
    """The INT8 model that `save_quantized` wrote, around a float model of the same code.

    The float model is captured and cut as the first one was, with random numbers in the place of calibration data, and
    then everything is the file's. The model itself stays as it is.

    Args:
        model: as the one that was quantized, with any weights, of the same type; on the device where the result is to
            be.
        file: from `save_quantized`.
        backend: as `quantize`'s.

    Raises:
        TypeError: `model` is no module.
        ValueError: the file is not from `save_quantized`, or of another model.

    Example:
        >>> import pathlib, tempfile
        >>> def code():
        ...     return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
        >>> images, file = torch.ones(1, 3, 8, 8), pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> quantized = cnnkernels.quantize(code(), images)
        >>> cnnkernels.save_quantized(quantized, file)
        >>> torch.equal(cnnkernels.load_quantized(code(), file)(images), quantized.model(images))
        True
    """
    from safetensors import SafetensorError, safe_open

    if not isinstance(model, nn.Module):
        raise TypeError(f"load_quantized(): argument 'model' must be a torch.nn.Module, not {type(model).__name__}")
    try:
        with safe_open(file, framework="pt") as opened:
            told = (opened.metadata() or {}).get("cnnkernels")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"load_quantized: {file} is no file of safetensors: {error}") from None
    if told is None:
        raise ValueError(f"load_quantized: {file} is not from save_quantized")
    words = json.loads(told)
    count = sum(name.startswith(_INTEGERS) for name in tensors)
    integers = {i: tensors.pop(f"{_INTEGERS}{i}") for i in range(count)}
    made = _made_again(model, words, integers, backend)
    tensors.update((name, tensors[first]) for name, first in words["same"].items())
    _part(made)
    try:
        made.load_state_dict({**tensors, **words["others"]})
    except RuntimeError as error:
        why = f"{error}".replace("\n", " ").replace("\t", "")
        raise ValueError(
            f"load_quantized: {file}, written with PyTorch {words['torch']}, is of another model than this: {why}"
        ) from None
    for name, first in words["same"].items():
        _share(made, name, first)
    return made


def _made_again(model: nn.Module, words: Any, integers: dict[int, Tensor], backend: str | None) -> nn.Module:
    replica = copy_of_its_own(model).eval()
    left_out = set(words["left_out"])

    def chosen(module: nn.Module, name: str) -> bool:
        return name not in left_out

    if words["how"] in ("dynamic", "weight_only"):
        return quantize(replica, mode=words["how"], filter_fn=chosen, backend=backend).model
    device = next(replica.parameters(), torch.empty(0)).device
    batch = stand_in(words["example"], integers, device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numbers that nobody keeps
        if words["how"] == "qat":
            return convert_qat(prepare_qat(replica, batch, filter_fn=chosen), backend=backend).model
        return quantize(replica, [batch], filter_fn=chosen, backend=backend).model


def _part(model: nn.Module) -> None:
    """Gives each tensor that several modules share to each of them: what is shared is the file's to say."""
    seen: set[int] = set()
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) in seen:
                    mine = tensor.detach().clone()
                    tensors[name] = nn.Parameter(mine, tensor.requires_grad) if tensors is module._parameters else mine  # type: ignore[assignment]
                seen.add(id(tensor))


def _share(model: nn.Module, name: str, first: str) -> None:
    """Lets two modules have one tensor again."""
    (mine, its), (theirs, their) = (
        (model.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2]) for n in (name, first)
    )
    tensor: Any = theirs._parameters.get(their, theirs._buffers.get(their))
    (mine._parameters if its in mine._parameters else mine._buffers)[its] = tensor
