"""Where a test's kernels run: each backend on a GPU where there is one, else in its interpreter."""

from __future__ import annotations

import os

import torch

HAS_GPU = torch.cuda.is_available()
if not HAS_GPU:
    # Before triton is imported anywhere: CPU tensors run kernels in the interpreters.
    os.environ.setdefault("CNNKERNELS_INTERPRET", "1")
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest  # noqa: E402

DEVICE = "cuda" if HAS_GPU else "cpu"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HAS_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def device() -> str:
    return DEVICE


@pytest.fixture(params=["cuda", "triton"])
def kernels(request: pytest.FixtureRequest):
    """A backend's kernels over raw tensors, outputs allocated by the test."""
    if request.param == "cuda":
        from cnnkernels import native

        return native.load("cuda" if HAS_GPU else "interpreter")
    import cnnkernels.triton_kernels

    return cnnkernels.triton_kernels
