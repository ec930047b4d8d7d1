"""What two sides of a fence have to agree on: backends in their functions, C++ and Python in the numbers they pass."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from cnnkernels import triton_kernels
from cnnkernels.activation import ACTIVATIONS
from cnnkernels.dtypes import ELEMENTS
from cnnkernels.geometry import Layout, PaddingMode
from cnnkernels.native import NativeKernels, load
from helpers.sources import ROOT

CHOICES = ("plan", "configuration", "splits")  # a backend's own: which of its kernels, and how


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Names and defaults of what every backend is told."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in found if p.name not in ("self", *CHOICES)]


NATIVE = {n: f for n, f in inspect.getmembers(NativeKernels, inspect.isfunction) if not n.startswith("_")}
LAUNCHERS = sorted(set(NATIVE) - {"plan", "give_way"})


def test_backends_have_the_same_functions() -> None:
    assert sorted(triton_kernels.__all__) == LAUNCHERS
    assert len(LAUNCHERS) > 20


@pytest.mark.parametrize("name", LAUNCHERS)
def test_backends_take_the_same(name: str) -> None:
    assert parameters(getattr(triton_kernels, name)) == parameters(NATIVE[name])


NUMBERS = {
    "DType": ("csrc/common/types.h", {str(e.dtype).removeprefix("torch."): e.code for e in ELEMENTS.values()}),
    "Layout": ("csrc/common/geometry.h", {layout.name.lower(): int(layout) for layout in Layout}),
    "PaddingMode": ("csrc/common/geometry.h", {mode.name.lower(): int(mode) for mode in PaddingMode}),
    "Activation": ("csrc/common/activation_kind.h", {name: i for i, name in enumerate(ACTIVATIONS)}),
}


@pytest.mark.parametrize("enumeration", NUMBERS)
def test_python_and_the_kernels_count_alike(enumeration: str) -> None:
    """By the module as it was built, which names every enumerator of the header."""
    header, expected = NUMBERS[enumeration]
    assert load("interpreter").module.numbers[enumeration] == expected
    (body,) = re.findall(rf"enum class {enumeration} : int {{(.*?)}}", (ROOT / header).read_text(), re.DOTALL)
    assert re.findall(r"\b[a-z]\w*", body) == list(expected)
