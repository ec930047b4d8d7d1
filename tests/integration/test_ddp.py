"""DistributedDataParallel over two processes: one process's gradients, bit for bit, in the parameters' strides."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cnnkernels import functional, use_backend
from cnnkernels.backends import INTERPRETING
from cnnkernels.testing.numerics import small_integers

WORLD = 2
FORMATS = torch.contiguous_format, torch.channels_last


class Net(nn.Module):
    """A 3x3, a depthwise and a 1x1 filter: the last two are where strides are ambiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.full = nn.Parameter(small_integers((4, 2, 3, 3), torch.float32, 1))
        self.depthwise = nn.Parameter(small_integers((4, 1, 3, 3), torch.float32, 2))
        self.pointwise = nn.Parameter(small_integers((3, 4, 1, 1), torch.float32, 3))
        self.bias = nn.Parameter(small_integers((3,), torch.float32, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.conv2d(x, self.full, padding=1), 2)
        x = functional.conv2d(x, self.depthwise, padding=1, groups=4)
        return functional.conv2d(x, self.pointwise, self.bias)


def batch() -> Tensor:
    return small_integers((2 * WORLD, 2, 6, 6), torch.float32, 5).contiguous(memory_format=torch.channels_last)


def work(rank: int, file: str, backend: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    for memory_format in FORMATS:
        net = DistributedDataParallel(Net().to(memory_format=memory_format))
        with warnings.catch_warnings(record=True) as caught, use_backend(backend):
            warnings.simplefilter("always")
            for _ in range(2):  # the gradients' buckets are laid out anew after the first
                net.zero_grad()
                net(batch()[rank::WORLD]).sum().backward()
        assert not [str(w.message) for w in caught if "stride" in str(w.message)]
        for name, parameter in net.module.named_parameters():
            assert parameter.grad.stride() == parameter.stride(), name
        gradients = {name: parameter.grad for name, parameter in net.module.named_parameters()}
        torch.save(gradients, f"{results}-{memory_format}-{rank}")
    dist.destroy_process_group()
    # Gloo's own threads may still be giving Python objects back, which kills a Python that is shutting down.
    os._exit(0)


def test_two_processes_give_the_single_ones_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gloo on CPU tensors: with the kernels in the interpreter where it is on, else with PyTorch's own."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    backend = "cuda" if INTERPRETING else "reference"
    results = str(tmp_path / "gradients")
    torch.multiprocessing.spawn(work, (str(tmp_path / "rendezvous"), backend, results), nprocs=WORLD)
    for memory_format in FORMATS:
        net = Net().to(memory_format=memory_format)
        with use_backend(backend):
            net(batch()).sum().backward()
        for rank in range(WORLD):
            gradients = torch.load(f"{results}-{memory_format}-{rank}")
            for name, parameter in net.named_parameters():
                assert torch.equal(WORLD * gradients[name], parameter.grad), name  # the processes' mean
