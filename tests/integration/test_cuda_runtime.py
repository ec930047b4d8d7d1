"""What only a GPU can show: graphs, streams, threads, devices, and that no call waits for the device.

Each test runs on several kernels' work, on a Hopper those of TMA and wgmma among them. What can be known without a GPU
is tested here too: which kernels a GPU would take, and that the tests' own bodies hold, in the interpreter.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels import functional, native, use_backend
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.numerics import small_integers
from helpers.device import HAS_GPU

gpu = pytest.mark.gpu
without_gpu = pytest.mark.skipif(HAS_GPU, reason="tests of these tests, in the interpreter")

Sizes = tuple[int, ...]  # n, h, w of an image; m, n, k of a product


def everything(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """A convolution, a pooling, their gradients, and an unpooling."""
    y = functional.conv2d(x, w, b, 1, 1)
    values, indices = functional.max_pool2d(y, 2, return_indices=True)
    restored = functional.max_unpool2d(values, indices, 2)
    return y, restored, *torch.autograd.grad((restored * restored).sum(), (x, w, b))


def convolution(x: Tensor, w: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """Nothing but our kernels in either direction: autograd's thread begins with ours."""
    y = functional.conv2d(x, w, None, 1, 1)
    return y, *torch.autograd.grad(y, (x, w), dy)


def pair(x: Tensor, w: Tensor, v: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    y = functional.depthwise_separable_conv2d(x, w, v, padding=1)
    return y, *torch.autograd.grad(y, (x, w, v), dy)


def int8_convolution(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    return (functional.int8_conv2d(x, w, padding=1, input_zero_point=3),)


def int8_product(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return (functional.int8_gemm(a, b.t(), zero_point_a=-2),)


@dataclass(frozen=True)
class Work:
    """Calls whose results are exact; two sizes of the same kernel on a Hopper, and one that the interpreter can do."""

    name: str
    run: Callable[..., tuple[Tensor, ...]]
    shapes: Callable[[Sizes], list[Sizes]]  # of the tensors
    dtype: torch.dtype
    size: Sizes
    other: Sizes
    tiny: Sizes
    channels_last: bool = True

    def __str__(self) -> str:
        return self.name

    def tensors(self, device: str, size: Sizes, seed: int = 0) -> list[Tensor]:
        made = []
        for i, shape in enumerate(self.shapes(size)):
            bound = 1 if self.dtype is torch.bfloat16 else 2
            t = small_integers(shape, self.dtype, 10 * seed + i, bound).to(device)
            if t.dim() == 4 and self.channels_last:
                t = t.to(memory_format=torch.channels_last)
            made.append(t.requires_grad_(self.dtype.is_floating_point))
        return made

    def expected(self, size: Sizes, seed: int = 0) -> list[Tensor]:
        """By PyTorch in fp64, rounded once; INT8 as it is."""
        tensors = [t.detach() for t in self.tensors("cpu", size, seed)]
        if self.dtype.is_floating_point:
            tensors = [t.double().requires_grad_() for t in tensors]
        with use_backend("reference"):
            results = self.run(*tensors)
        return [r.to(self.dtype) if r.is_floating_point() else r for r in results]

    def check(self, results: Iterable[Tensor], size: Sizes, seed: int = 0) -> None:
        for mine, theirs in zip(results, self.expected(size, seed), strict=True):
            assert torch.equal(mine.detach().cpu(), theirs)


def conv_shapes(size: Sizes) -> list[Sizes]:
    n, h, w = size
    return [(n, 64, h, w), (64, 64, 3, 3), (n, 64, h, w)]


WORK = [
    Work("fp32", everything, lambda s: [(s[0], 4, *s[1:]), (8, 4, 3, 3), (8,)], torch.float32,
         (2, 8, 8), (1, 6, 4), (2, 8, 8), channels_last=False),
    Work("conv2d", convolution, conv_shapes, torch.bfloat16, (2, 8, 8), (1, 6, 7), (1, 4, 5)),
    Work("pair", pair, lambda s: [conv_shapes(s)[0], (64, 1, 3, 3), (64, 64, 1, 1), conv_shapes(s)[2]],
         torch.bfloat16, (16, 28, 28), (12, 28, 28), (1, 4, 5)),
    Work("int8_conv2d", int8_convolution, lambda s: conv_shapes(s)[:2], torch.int8,
         (16, 28, 28), (12, 28, 28), (1, 4, 5)),
    Work("int8_gemm", int8_product, lambda s: [(s[0], s[2]), (s[1], s[2])], torch.int8,
         (2048, 512, 512), (1024, 1024, 512), (20, 24, 32)),
]  # fmt: skip
works = pytest.mark.parametrize("work", WORK, ids=str)


def in_thread(body: Callable[[], None], count: int = 1) -> None:
    """Runs it in threads that have done nothing yet, all at a time."""
    failures: list[BaseException] = []

    def guarded_body() -> None:
        try:
            body()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded_body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def in_turn(work: Work, device: str, backend: str, size: Sizes, times: int, asleep: int) -> None:
    """On a stream of its own, behind a long wait that a kernel on the wrong stream would overtake."""
    on_gpu = device == "cuda"
    stream = torch.cuda.Stream() if on_gpu else None
    with torch.cuda.stream(stream) if on_gpu else contextlib.nullcontext(), use_backend(backend):
        for seed in range(times):
            ready = [t.detach() for t in work.tensors(device, size, seed)]
            if on_gpu:
                torch.cuda._sleep(asleep)
            arguments = [(t + 0).requires_grad_(t.is_floating_point()) for t in ready]  # written after the wait
            results = work.run(*arguments)
            if stream is not None:
                stream.synchronize()
            work.check(results, size, seed)


def first_of_a_thread(work: Work, device: str, backend: str, size: Sizes) -> None:
    """A thread's first CUDA call is ours: its operands were made elsewhere, and memory for its results is at hand."""
    arguments = work.tensors(device, size)
    with use_backend(backend):
        work.run(*arguments)  # what it allocates goes back to PyTorch's cache

    def body() -> None:
        with use_backend(backend):
            results = work.run(*arguments)
        work.check(results, size)

    in_thread(body)


def backward_first(name: str, device: str, backend: str, size: Sizes | None = None) -> None:
    """What a fresh process does: forward, then backward with an explicit gradient."""
    work = next(w for w in WORK if w.name == name)
    size = size or work.size
    with use_backend(backend):
        results = work.run(*work.tensors(device, size))
    work.check(results, size)


# What needs no GPU


def takes_wgmma(work: Work, size: Sizes, gpu: Any) -> list[bool]:
    """Whether each kernel of a work's size would be one of wgmma on a GPU."""
    m = native.load("interpreter").module
    if work.name == "int8_gemm":
        depth = size[2]
        return [m.int8_gemm_plan(size, (0, depth, 1), (0, 1, depth), False, gpu).tiles.wgmma]
    n, h, w = size
    geometry = m.ConvGeometry(*ConvCase("", n, 64, h, w, 64, 3, 3, padding=(1, 1, 1, 1)).geometry)
    if work.name == "int8_conv2d":
        return [m.int8_conv_plan(geometry, False, True, gpu).tiles.wgmma]
    if work.name == "pair":
        depthwise = ConvCase("", n, 64, h, w, 64, 3, 3, padding=(1, 1, 1, 1), groups=64).geometry
        return [m.depthwise_separable_conv_plan(3, 1, False, m.ConvGeometry(*depthwise), 64, gpu).wgmma]
    of = [getattr(m.ConvDirection, d) for d in ("forward", "backward_input", "backward_weight")]
    return [not m.conv_explain(d, 3, 1, False, geometry, gpu).why_not_wgmma for d in of]


@without_gpu
@pytest.mark.parametrize("work", WORK[1:], ids=str)
def test_both_sizes_take_wgmma_on_a_hopper(work: Work) -> None:
    m = native.load("interpreter").module
    for size in (work.size, work.other):
        for name in ("h100", "h200"):
            assert all(takes_wgmma(work, size, m.gpu_named(name)))
        assert not any(takes_wgmma(work, size, m.gpu_named("a100")))


@without_gpu
@works
def test_the_bodies_hold_in_the_interpreter(work: Work) -> None:
    """The CUDA kernels of a Hopper; several threads launch at a time."""
    m = native.load("interpreter").module
    m.stand_for(m.gpu_named("h100"))
    try:
        in_thread(lambda: in_turn(work, "cpu", "cuda", work.tiny, 1, 0), 2)
        first_of_a_thread(work, "cpu", "cuda", work.tiny)
        backward_first(work.name, "cpu", "cuda", work.tiny)
    finally:
        m.stand_for(m.gpu_named("a100"))


@without_gpu
def test_the_bodies_see_a_wrong_result() -> None:
    work = WORK[1]

    def wrong(*tensors: Tensor) -> tuple[Tensor, ...]:
        y, *gradients = convolution(*tensors)
        return y, gradients[0], gradients[1] + (tensors[0].dtype is torch.bfloat16)

    broken = Work(**{**vars(work), "run": wrong})
    with pytest.raises(AssertionError):
        first_of_a_thread(broken, "cpu", "cuda", work.tiny)
    with pytest.raises(AssertionError):
        in_thread(lambda: in_turn(broken, "cpu", "cuda", work.tiny, 1, 0))


# What needs one


@gpu
@works
def test_no_call_waits_for_the_device(work: Work, kernel_backend: str) -> None:
    arguments = work.tensors("cuda", work.size)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with use_backend(kernel_backend):
            results = work.run(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    work.check(results, work.size)


@gpu
@works
def test_cuda_graph(work: Work, kernel_backend: str) -> None:
    """What a graph holds is its own: it is replayed with other operands, and after another problem of the same kernels
    was launched, whose maps, limits and grids are others."""
    arguments = work.tensors("cuda", work.size)
    with use_backend(kernel_backend):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work.run(*arguments)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = work.run(*arguments)
        graph.replay()
        work.check(results, work.size)
        for seed in (1, 2):
            with torch.no_grad():
                for argument, other in zip(arguments, work.tensors("cuda", work.size, seed), strict=True):
                    argument.copy_(other)
            work.check(work.run(*work.tensors("cuda", work.other, seed)), work.other, seed)
            graph.replay()
            work.check(results, work.size, seed)


@gpu
@works
def test_streams_and_threads(work: Work, kernel_backend: str) -> None:
    in_thread(lambda: in_turn(work, "cuda", kernel_backend, work.size, 4, 2_000_000), 4)


@gpu
@works
def test_the_first_call_of_a_thread(work: Work, kernel_backend: str) -> None:
    first_of_a_thread(work, "cuda", kernel_backend, work.size)


@gpu
@pytest.mark.parametrize("work", [w for w in WORK if w.dtype.is_floating_point], ids=str)
def test_backward_in_a_fresh_process(work: Work, kernel_backend: str) -> None:
    """The first kernel of autograd's thread is ours, as it is not behind a loss's."""
    code = f"import test_cuda_runtime as t; t.backward_first({work.name!r}, 'cuda', {kernel_backend!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr


@gpu
@works
def test_the_tensors_device_is_made_current(work: Work, kernel_backend: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    arguments = work.tensors("cuda:1", work.size)
    with torch.cuda.device(0), use_backend(kernel_backend):
        work.run(*work.tensors("cuda:0", work.other))  # what is known of a device is not of both
        results = work.run(*arguments)
        assert torch.cuda.current_device() == 0
    assert {t.device.index for t in results} == {1}
    work.check(results, work.size)


@gpu
def test_out_of_range_indices_write_nothing(kernel_backend: str) -> None:
    values = torch.ones(1, 1, 2, 2, device="cuda")
    indices = torch.tensor([[[[-1, 16], [2**40, 5]]]], device="cuda")
    with use_backend(kernel_backend):
        y = functional.max_unpool2d(values, indices, 2)
    assert y.flatten().nonzero().tolist() == [[5]]


@gpu
@works
def test_memory_is_the_caching_allocators(work: Work, kernel_backend: str) -> None:
    arguments = work.tensors("cuda", work.size)
    with use_backend(kernel_backend):
        for _ in range(2):
            work.run(*arguments)
        torch.cuda.synchronize()
        before = torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()
        for _ in range(10):
            work.run(*arguments)
        torch.cuda.synchronize()
    assert (torch.cuda.mem_get_info()[0], torch.cuda.memory_reserved()) == before
