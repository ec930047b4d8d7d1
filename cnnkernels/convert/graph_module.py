"""A module that runs a graph in the place of a module with code, and stays that through copies and files."""

from __future__ import annotations

from typing import Any

from torch import fx, nn


class InPlaceOf(fx.GraphModule):
    """A GraphModule that keeps what torch.fx forgets in a copy: hooks, and what code around it may ask of the original.

    Its `meta` holds the latter as "attributes".
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = super().__deepcopy__(memo)
        adopt(made, self)
        return made.train(self.training)

    def __reduce__(self) -> Any:
        make, arguments = super().__reduce__()
        return _unpickled, (make, arguments, self.meta.get("attributes", {}), _hooks(self))


def _unpickled(make: Any, arguments: Any, attributes: dict[str, Any], hooks: dict[str, Any]) -> InPlaceOf:
    plain = make(*arguments)
    made = InPlaceOf(plain, plain.graph, type(plain).__name__)
    made.train(arguments[0]["training"])
    made.meta["attributes"] = attributes
    vars(made).update(hooks)
    adopt(made, made)
    return made


def _hooks(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.startswith("_") and "hooks" in name and value}


def adopt(module: fx.GraphModule, original: nn.Module) -> None:
    """Gives the module that runs a graph what code around it may ask of the original, and its hooks."""
    plain = {name: value for name, value in vars(original).items() if not name.startswith("_")}
    if isinstance(original, fx.GraphModule):
        plain = original.meta.get("attributes", {})
    module.meta["attributes"] = plain
    for name, value in plain.items():
        if name not in vars(module) and not hasattr(type(module), name):  # `graph`, `code`: a GraphModule has its own
            setattr(module, name, value)
    for name, value in _hooks(original).items():
        vars(module)[name] = value.copy()
