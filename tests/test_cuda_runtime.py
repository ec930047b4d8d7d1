"""What only a GPU can show: graphs, streams, threads, devices, and that no call waits for the device."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import functional, use_backend
from cnnkernels.testing.numerics import small_integers

pytestmark = pytest.mark.gpu


def step(f, x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    """A convolution, a pooling, their gradients, and an unpooling."""
    y = f.conv2d(x, w, b, 1, 1)
    values, indices = f.max_pool2d(y, 2, return_indices=True)
    restored = f.max_unpool2d(values, indices, 2)
    return y, restored, *torch.autograd.grad((restored * restored).sum(), (x, w, b))


def tensors(device: str = "cuda") -> list[Tensor]:
    x, w, b = (small_integers(shape, torch.float32, i) for i, shape in enumerate([(2, 4, 8, 8), (8, 4, 3, 3), (8,)]))
    return [t.to(device).requires_grad_() for t in (x, w, b)]


def expected() -> tuple[Tensor, ...]:
    return step(F, *tensors("cpu"))


def same(ours: tuple[Tensor, ...]) -> None:
    for mine, theirs in zip(ours, expected(), strict=True):
        assert torch.equal(mine.cpu(), theirs)


def test_no_call_waits_for_the_device(kernel_backend) -> None:
    arguments = tensors()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with use_backend(kernel_backend):
            results = step(functional, *arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    same(results)


def test_cuda_graph(kernel_backend) -> None:
    x, w, b = tensors()
    with use_backend(kernel_backend):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(functional, x, w, b)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step(functional, x, w, b)
    graph.replay()
    same(results)
    with torch.no_grad():
        x.zero_()
    graph.replay()
    assert torch.equal(results[0], b.detach()[:, None, None].expand_as(results[0]))


def test_streams_and_threads(kernel_backend) -> None:
    """Each thread on a stream of its own, behind a long wait that a kernel on the wrong stream would overtake."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream), use_backend(kernel_backend):
                for _ in range(8):
                    ready = [t.detach() for t in tensors()]
                    torch.cuda._sleep(2_000_000)
                    arguments = [(t + 0).requires_grad_() for t in ready]  # written after the wait
                    results = step(functional, *arguments)
                    stream.synchronize()
                    same(results)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def test_the_tensors_device_is_made_current(kernel_backend) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    arguments = tensors("cuda:1")
    with torch.cuda.device(0), use_backend(kernel_backend):
        results = step(functional, *arguments)
        assert torch.cuda.current_device() == 0
    assert {t.device.index for t in results} == {1}
    same(results)


def test_out_of_range_indices_write_nothing(kernel_backend) -> None:
    values = torch.ones(1, 1, 2, 2, device="cuda")
    indices = torch.tensor([[[[-1, 16], [2**40, 5]]]], device="cuda")
    with use_backend(kernel_backend):
        y = functional.max_unpool2d(values, indices, 2)
    assert y.flatten().nonzero().tolist() == [[5]]


def test_memory_is_the_caching_allocators(kernel_backend) -> None:
    arguments = tensors()
    with use_backend(kernel_backend):
        step(functional, *arguments)
        torch.cuda.synchronize()
        before = torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()
        for _ in range(10):
            step(functional, *arguments)
        torch.cuda.synchronize()
    assert (torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()) == before
