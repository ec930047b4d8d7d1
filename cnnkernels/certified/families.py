"""The families of kernels that are proved on a GPU, each on its own, and which of them an operator needs.

A family is a backend's kernels of one word, direction, engine and element type. An engine that has another behind it
gives way where it fails: the operator is served by what remains. One that has none takes its operator and type with
it, to the next backend.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..dtypes import FLOATING, HALF_DTYPES, dtype_name
from ..operators import OPERATORS

CONV = ("forward", "backward_input", "backward_weight")
HALVES = tuple(dtype_name(dtype) for dtype in HALF_DTYPES)
ROUNDED = ("fp32", *HALVES)


class Family(NamedTuple):
    backend: str
    word: str
    direction: str
    engine: str
    element: str

    def __str__(self) -> str:
        return " ".join(self)

    @property
    def gives_way(self) -> bool:
        """Whether another engine of its backend serves the same: mma.sync for Hopper's, FMA for TF32's."""
        return self.engine in ("wgmma", "grouped", "packed", "band") or self.element == "tf32"


def _conv_of_cuda() -> list[Family]:
    found = []
    for direction in CONV:
        found += [Family("cuda", "conv", direction, "fma", element) for element in ("fp64", "fp32")]
        found += [Family("cuda", "conv", direction, "mma", element) for element in ("tf32", *HALVES)]
        for engine in ("wgmma", "grouped", "packed"):
            found += [Family("cuda", "conv", direction, engine, element) for element in HALVES]
    found.append(Family("cuda", "conv", "forward", "wgmma", "tf32"))
    found += [Family("cuda", "conv", "backward_bias", "fma", element) for element in FLOATING]
    return found


def _depthwise_of_cuda() -> list[Family]:
    found = [Family("cuda", "depthwise_conv", direction, "fma", each) for direction in CONV for each in FLOATING]
    found += [Family("cuda", "depthwise_conv", d, "band", each) for d in CONV for each in HALVES]
    word = "depthwise_separable_conv"
    for element in (*FLOATING, "tf32"):
        found.append(Family("cuda", word, "forward", "fma" if element in ("fp64", "fp32") else "mma", element))
    found += [Family("cuda", word, "forward", "wgmma", element) for element in ("tf32", *HALVES)]
    found += [Family("cuda", word, "backward", "mma" if each in HALVES else "fma", each) for each in FLOATING]
    return found


POOLS = tuple(f"{of}_{way}" for of in ("max", "unpool", "avg") for way in ("forward", "backward"))


NORMS = "forward", "backward"


def _others(backend: str, product: str, plain: str) -> list[Family]:
    """What both backends have, by one engine of products and one of everything else."""
    found = [Family(backend, "pool", direction, plain, element) for direction in POOLS for element in FLOATING]
    found += [Family(backend, "norm", direction, plain, each) for direction in NORMS for each in FLOATING]
    for word in ("int8_gemm", "int8_conv"):
        found.append(Family(backend, word, "forward", product, "int8"))
    found.append(Family(backend, "int8_pool", "forward", plain, "int8"))
    found += [Family(backend, "int8_weight_only_linear", "forward", product, element) for element in ROUNDED]
    for direction in ("forward", "backward"):  # quantize and dequantize
        found += [Family(backend, "quantize", direction, plain, element) for element in FLOATING]
    return found


def _of_triton() -> list[Family]:
    found = [Family("triton", "conv", d, "dot", each) for d in CONV for each in (*FLOATING, "tf32")]
    found += [Family("triton", "conv", "backward_bias", "plain", element) for element in FLOATING]
    found += [Family("triton", "depthwise_conv", d, "plain", each) for d in CONV for each in FLOATING]
    word = "depthwise_separable_conv"
    found += [Family("triton", word, "forward", "dot", element) for element in (*FLOATING, "tf32")]
    found += [Family("triton", word, "backward", "dot", element) for element in FLOATING]
    return found


FAMILIES: tuple[Family, ...] = (
    *_conv_of_cuda(),
    *_depthwise_of_cuda(),
    *_others("cuda", "mma", "fma"),
    Family("cuda", "int8_gemm", "forward", "wgmma", "int8"),
    Family("cuda", "int8_conv", "forward", "wgmma", "int8"),
    *_of_triton(),
    *_others("triton", "dot", "plain"),
)

# The words and directions that an operator may launch, of any shape.
_CONVOLUTIONS = [*(("conv", d) for d in (*CONV, "backward_bias")), *(("depthwise_conv", d) for d in CONV)]
_PAIR = [("depthwise_separable_conv", "forward"), ("depthwise_separable_conv", "backward")]
_NEEDS = {
    "depthwise_separable_conv2d": [*_CONVOLUTIONS, *_PAIR],
    "max_unpool2d": [("pool", "unpool_forward"), ("pool", "unpool_backward")],
    "quantize": [("quantize", "forward")],
    "dequantize": [("quantize", "backward")],
}


def _needs(op: str) -> list[tuple[str, str]]:
    word = OPERATORS[op].word
    if op in _NEEDS:
        return _NEEDS[op]
    if word in ("conv", "depthwise_conv"):
        return _CONVOLUTIONS
    if word == "pool":
        kind = "max" if op.startswith("max") else "avg"
        return [("pool", f"{kind}_forward"), ("pool", f"{kind}_backward")]
    if word == "norm":
        return [("norm", direction) for direction in NORMS]
    return [(word, "forward")]


def needed(op: str, dtype: torch.dtype, backend: str) -> list[Family]:
    """The families without which a backend can not serve an operator of a type."""
    element = "int8" if dtype in (torch.int8, torch.uint8) else dtype_name(dtype)
    wanted = _needs(op)
    return [
        family
        for family in FAMILIES
        if family.backend == backend
        and family.element == element
        and not family.gives_way
        and (family.word, family.direction) in wanted
    ]
