"""Every kernel of the build as PTX, in random order with late delivery, and right; conv2d's are in a file of their own,
so that two workers share."""

from __future__ import annotations

import pytest

from helpers.every_kernel import runs_every_kernel, sources

pytest.importorskip("cnnkernels._emulated", reason="needs nvcc when building")


@pytest.mark.parametrize("source", sources("conv/", others=True))
def test_every_kernel(source: str) -> None:
    assert runs_every_kernel(source) == []
