"""The docstring of every public name shows how it is used, and what it shows is what happens."""

import doctest
import inspect
from typing import Any

import pytest
import torch

import cnnkernels

MODULES = (cnnkernels, cnnkernels.functional, cnnkernels.nn)
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES
    for name in module.__all__
    if not inspect.ismodule(getattr(module, name))
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_shows_what_happens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CNNKERNELS_BACKEND", raising=False)
    docstring: Any = PUBLIC[name].__doc__
    example = doctest.DocTestParser().get_doctest(
        docstring or "", {"torch": torch, "cnnkernels": cnnkernels}, name, None, 0
    )
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert not failed, "".join(said)
