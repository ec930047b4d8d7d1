"""What torch.utils.flop_counter.FlopCounterMode counts for the operators: what it counts for PyTorch's.

Two for each product that is summed, whatever lies in padding; and, as it does there, the gradient of a grouped filter
as if the groups were one. What a derivative computes anew counts too, as in PyTorch's own formulas for attention.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .operator import OPERATORS

Shape = Sequence[int]


def register(counter: ModuleType) -> None:
    """Registers every operator that multiplies with the module torch.utils.flop_counter."""
    convolution, product = counter.conv_flop_count, counter.mm_flop

    def swapped(shape: Shape) -> list[int]:
        return [shape[1], shape[0], *shape[2:]]

    def of_filter(grad: Shape, input: Shape, weight: Shape) -> int:
        """The input correlated with the error."""
        return convolution(swapped(input), swapped(grad), swapped(weight))

    def forward(input: Shape, weight: Shape, *_: Any, out_shape: Shape) -> int:
        return convolution(input, weight, out_shape)

    def backward_input(grad: Shape, weight: Shape, *_: Any, out_shape: Shape) -> int:
        return convolution(grad, weight, out_shape, transposed=True)

    def backward_weight(grad: Shape, input: Shape, *_: Any, out_shape: Shape) -> int:
        return of_filter(grad, input, out_shape)

    def pair(input: Shape, depthwise: Shape, pointwise: Shape, *_: Any, out_shape: tuple[Shape, Shape]) -> int:
        n, _, *pixels = out_shape[0]
        between = (n, depthwise[0], *pixels)
        return convolution(input, depthwise, between) + convolution(between, pointwise, out_shape[0])

    def pair_backward(*arguments: Any, out_shape: tuple[Shape, Shape]) -> int:
        grad, input, depthwise, _, _, saved, of_between, of_pointwise, between, _, pointwise, *_ = arguments
        count = 0 if saved is not None else convolution(input, depthwise, between)
        if of_between:
            count += convolution(grad, pointwise, between, transposed=True)
        return count + of_filter(grad, between, pointwise) if of_pointwise else count

    formulas = {
        "conv_forward": forward,
        "conv_epilogue_forward": forward,
        "conv_backward_input": backward_input,
        "conv_transpose_forward": backward_input,
        "conv_backward_weight": backward_weight,
        "depthwise_separable_conv_forward": pair,
        "depthwise_separable_conv_intermediate": forward,
        "depthwise_separable_conv_backward": pair_backward,
        "int8_conv": forward,
        "int8_gemm": lambda a, b, *_, out_shape: product(a, b),
        "int8_weight_only_linear": lambda input, weight, *_, out_shape: product(input, weight[::-1]),
    }
    for name, formula in formulas.items():
        counter.register_flop_formula(getattr(OPERATORS, name))(formula)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Registers when torch.utils.flop_counter is imported by whoever counts. It imports triton: done here, that would
    double the time that `import cnnkernels` takes."""

    name = "torch.utils.flop_counter"

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            register(module)

        spec.loader.exec_module = execute_and_register
        return spec


def register_when_imported() -> None:
    """Called once, when the operators are there."""
    if _AfterImport.name in sys.modules:
        register(sys.modules[_AfterImport.name])
    else:
        sys.meta_path.insert(0, _AfterImport())
