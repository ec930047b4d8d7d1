"""The graph of a module's code in training, by torch.fx's stand-ins for tensors.

`quantize` captures with torch.export (capture.py), whose graphs are of evaluation alone. Training goes on from what is
traced here: modules that know both modes stay modules, and who else asks for the mode is found out (graph.py).
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx, nn

from ..convert.trace import Tracer, hooked
from .canonical import as_modules, follow_in_place

_WHOLE = (
    nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.MaxPool2d, nn.AvgPool2d
)  # fmt: skip
_FIXED = (type(None), bool, int, float, str)


class _LayerTracer(Tracer):
    """Takes whole what may become INT8, and what has hooks."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _WHOLE) or hooked(m) or super().is_leaf_module(m, module_qualified_name)


def traced(replica: nn.Module, original: nn.Module, arguments: dict[str, Any]) -> fx.GraphModule:
    """The graph of `replica`'s code, for the fixed ones of these arguments, around the modules of `original`.

    Raises:
        Exception: whatever the code does with what is no tensor, or keeps of it.
    """
    alone = isinstance(replica, _WHOLE)
    fixed = {name: value for name, value in arguments.items() if isinstance(value, _FIXED)}
    seen = nn.Sequential(replica) if alone else replica
    graph = _LayerTracer().trace(seen, concrete_args=fixed or None)
    names = list(inspect.signature(seen.forward).parameters)
    for node in graph.nodes:
        # torch.fx counts the parts of what is fixed; each has one, and is still called by its name.
        if node.op == "placeholder" and (name := str(node.target).removesuffix("_1")) in fixed and name in names:
            node.target = name
    _refuse_kept(replica)
    module = fx.GraphModule(nn.Sequential(original) if alone else original, graph, type(original).__name__)
    module.training = original.training
    follow_in_place(graph)
    as_modules(module)
    return module


def _refuse_kept(replica: nn.Module) -> None:
    for name, module in replica.named_modules():
        for attribute, value in {**vars(module), **module._buffers}.items():
            if isinstance(value, fx.Proxy):
                raise TypeError(f"its code keeps a tensor in {f'{name}.{attribute}'.lstrip('.')}")
