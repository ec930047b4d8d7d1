"""Where a test's kernels run: each backend on a GPU where there is one, else in its interpreter."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from helpers.device import DEVICE, HAS_GPU, MODULE
from helpers.recorded import Call, Recorder

# For the benchmarks. Last, as the cnnkernels under test stays the one that it is.
sys.path.append(str(Path(__file__).resolve().parent.parent))

if MODULE == "emulated":
    # What the interpreter stands for, so that a plan is of the same GPU in both.
    os.environ.setdefault("CNNKERNELS_EMULATED_GPU", "a100")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core: threads of PyTorch's own operators would wait for each other's, at work, in every worker.
    torch.set_num_threads(1)
if not HAS_GPU:
    # Before triton is imported anywhere: CPU tensors run kernels in the interpreters.
    os.environ.setdefault("CNNKERNELS_INTERPRET", "1")
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

from helpers.native import runner  # noqa: F401

if not HAS_GPU and importlib.util.find_spec("triton"):
    if os.environ["TRITON_INTERPRET"] == "1":
        from helpers.triton_interpreter import speed_up

        speed_up()
    else:  # tests of single kernels ask no backend, which would do it
        from cnnkernels.emulator import serve_triton

        serve_triton()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, or one worker would still be at one when the others have no more to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        if not HAS_GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if MODULE != "interpreter" and item.get_closest_marker("counted"):
            item.add_marker(pytest.mark.skip(reason="needs the interpreter's counts"))


@pytest.fixture
def device() -> str:
    return DEVICE


@pytest.fixture(params=["cuda", "triton"])
def kernels(request: pytest.FixtureRequest):
    """A backend's kernels over raw tensors, outputs allocated by the test."""
    if request.param == "cuda":
        from cnnkernels import native

        return native.load(MODULE)
    import cnnkernels.triton_kernels

    return cnnkernels.triton_kernels


@pytest.fixture
def schedules(runner: Any) -> Iterator[list[dict[str, Any]]]:  # noqa: F811
    """Orders of threads and moments of copies for runner.module.set_schedule; a GPU has its own."""
    if HAS_GPU:
        yield [{}]
        return
    before = runner.module.schedule()
    yield [
        {"order": "reversed", "seed": 0, "delivery": "late"},
        {"order": "random", "seed": 1, "delivery": "random"},
        {"order": "random", "seed": 2, "delivery": "late"},
        {"order": "random", "seed": 3, "delivery": "early"},
    ]
    runner.module.set_schedule(order=before["order"], seed=before["seed"], delivery=before["delivery"])


@pytest.fixture
def on_a_hopper() -> Iterator[None]:
    """What runs the kernels stands for an H200: another GPU's shared memory does not hold what they ask for."""
    if HAS_GPU:
        yield
        return
    from cnnkernels import native

    module = native.load(MODULE).module
    before = module.this_gpu()
    module.stand_for(module.gpu_named("h200"))
    yield
    module.stand_for(before)


@pytest.fixture(params=["cuda", "triton", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend."""
    return request.param


@pytest.fixture(params=["cuda", "triton"])
def kernel_backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend that runs the project's kernels."""
    return request.param


@pytest.fixture
def on_the_reference() -> Iterator[None]:
    """What is computed is the operators' matter; here it is which. One thread, as the models are too small to share."""
    import cnnkernels

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with cnnkernels.use_backend("reference"):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """The calls that reach a backend, all of them there but computing nothing: for tests of what stands above them."""
    from cnnkernels import backends

    calls: list[Call] = []
    monkeypatch.setattr(backends, "kernels", lambda backend, device: Recorder(backend, calls))
    monkeypatch.setattr(backends, "why_missing", lambda backend, device: None)
    backends.remembered_serving.cache_clear()
    yield calls
    backends.remembered_serving.cache_clear()


@pytest.fixture
def interpreter() -> Iterator[ModuleType]:
    """The test kernels in the interpreter, with one OS thread and the default schedule."""
    from cnnkernels import native

    native.load("interpreter")  # makes CNNKERNELS_NATIVE_DIR hold
    module = importlib.import_module("cnnkernels._interpreter_tests")
    before = module.schedule()
    module.set_schedule("ordered", 0, "late")
    module.set_threads(1)
    yield module
    module.set_schedule(before["order"], before["seed"], before["delivery"])
    module.set_threads(before["threads"])


@pytest.fixture(params=[("ordered", 0), ("reversed", 0)] + [("random", seed) for seed in range(8)], ids=str)
def any_order(request: pytest.FixtureRequest, interpreter: ModuleType) -> ModuleType:
    interpreter.set_schedule(*request.param)
    return interpreter
