"""Looking into a model without changing it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn


def layer_of(model: nn.Module, layer: str | nn.Module) -> tuple[str, nn.Module]:
    """A layer's name and module, by either.

    Raises:
        ValueError: the model has no such layer.
    """
    for name, module in model.named_modules():
        if layer is module or (isinstance(layer, str) and layer == name and name):
            return name or "the model", module
    shown = layer if isinstance(layer, str) else type(layer).__name__
    names = [name for name, _ in model.named_modules() if name]
    raise ValueError(f"layer must be one of the model's, {', '.join(names[:8])}, ..., but got {shown!r}")


class Outputs:
    """While entered, what layers return is kept, by their names; of one that runs several times, the last.

    Raises:
        ValueError: on `of`, where a layer did not run or returned something that is no tensor.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str | nn.Module]) -> None:
        self._modules = dict(layer_of(model, layer) for layer in layers)
        self._kept: dict[str, Any] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Outputs:
        for name, module in self._modules.items():

            def keep(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                self._kept[name] = output

            self._hooks.append(module.register_forward_hook(keep))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def of(self, name: str) -> Tensor:
        if name not in self._kept:
            raise ValueError(f"the layer {name} did not run")
        output = self._kept[name]
        if not isinstance(output, Tensor):
            raise ValueError(f"the layer {name} must return a tensor, but returned {type(output).__name__}")
        return output

    def all(self) -> dict[str, Tensor]:
        return {name: self.of(name) for name in self._modules}


def scores_of(output: Any, target: Tensor | int | None) -> tuple[Tensor, Tensor]:
    """Each image's score of its target class, and the classes; None takes the likeliest.

    Raises:
        ValueError: the model returns no scores [N, classes], or a target is none of the classes.
    """
    if not isinstance(output, Tensor) or output.dim() != 2:
        shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model must return scores [N, classes], but returned {shape}")
    if target is None:
        target = output.argmax(1)
    classes = target if isinstance(target, Tensor) else output.new_full((len(output),), target).long()
    if classes.shape != (len(output),):
        raise ValueError(
            f"target must be a class, or one for each of {len(output)} images, but got {list(classes.shape)}"
        )
    if len(classes) and (int(classes.min()) < 0 or int(classes.max()) >= output.shape[1]):
        raise ValueError(f"target must be below {output.shape[1]}, the number of classes, but got {classes.tolist()}")
    return output.gather(1, classes[:, None]).squeeze(1), classes
