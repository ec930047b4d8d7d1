"""A module that runs a graph in the place of a module with code, and stays that through copies and files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from .trace import copy_sharing_tensors


class InPlaceOf(fx.GraphModule):
    """A GraphModule that keeps what torch.fx forgets in a copy: hooks, and what code around it may ask of the original.

    Its `meta` holds the latter as "attributes".
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = super().__deepcopy__(memo)
        keep_modules(made, copy.deepcopy(self._modules, memo))
        adopt(made, self)
        return made.train(self.training)

    def __reduce__(self) -> Any:
        make, arguments = super().__reduce__()
        return _unpickled, (make, arguments, self.meta.get("attributes", {}), _hooks(self))


def _unpickled(make: Any, arguments: Any, attributes: dict[str, Any], hooks: dict[str, Any]) -> InPlaceOf:
    plain = make(*arguments)
    made = InPlaceOf(plain, plain.graph, type(plain).__name__)
    keep_modules(made, arguments[0]["_modules"])
    made.train(arguments[0]["training"])
    made.meta["attributes"] = attributes
    vars(made).update(hooks)
    adopt(made, made)
    return made


def _hooks(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.startswith("_") and "hooks" in name and value}


def keep_modules(module: nn.Module, modules: Mapping[str, nn.Module | None]) -> None:
    """Gives a module that runs a graph those of `modules` that it does not run, too, and all in their order: parameters
    in an optimizer's state have that."""
    own = dict(module._modules)
    module._modules.clear()
    for name, part in modules.items():
        kept = own.pop(name, None)
        module._modules[name] = part if kept is None else kept
        if kept is not None and part is not None and kept is not part:
            keep_modules(kept, part._modules)
    module._modules.update(own)


def adopt(module: fx.GraphModule, original: nn.Module) -> None:
    """Gives the module that runs a graph what code around it may ask of the original (attributes, properties, methods),
    and its hooks."""
    plain = {name: value for name, value in vars(original).items() if not name.startswith("_")}
    if isinstance(original, fx.GraphModule):
        plain = original.meta.get("attributes", {})
    module.meta["attributes"] = plain
    own = not type(original).__module__.startswith("torch.nn.modules") or bool(plain.keys() - {"training"})
    module.meta["asked"] = original.meta.get("asked", False) if isinstance(original, fx.GraphModule) else own
    for name, value in plain.items():
        if name not in vars(module) and not hasattr(type(module), name):  # `graph`, `code`: a GraphModule has its own
            setattr(module, name, value)
    # Each GraphModule has a class of its own.
    for base in reversed([base for base in type(original).__mro__ if base not in nn.Module.__mro__]):
        for name, member in list(vars(base).items()):
            if not name.startswith(("__", "_wrapped")) and name != "forward" and not hasattr(fx.GraphModule, name):
                setattr(type(module), name, member)
    for name, value in _hooks(original).items():
        vars(module)[name] = value.copy()


def copy_of_pieces(model: nn.Module) -> nn.Module:
    """A copy around the same tensors; torch.fx copies neither hooks nor attributes."""
    made = copy_sharing_tensors(model)
    for name, source in model.named_modules():
        if isinstance(source, fx.GraphModule) and "attributes" in source.meta:
            copied: Any = made.get_submodule(name)
            adopt(copied, source)
    return made
