"""Every kernel of conv2d as PTX, in random order with late delivery, and right."""

from __future__ import annotations

import pytest

from helpers.every_kernel import runs_every_kernel, sources

pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")
pytestmark = pytest.mark.long


@pytest.mark.parametrize("source", sources("conv/"))
def test_every_kernel(source: str) -> None:
    assert runs_every_kernel(source) == []
