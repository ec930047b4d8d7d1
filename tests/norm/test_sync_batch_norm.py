"""SyncBatchNorm over two processes: what one process makes of the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from cnnkernels import nn, use_backend
from cnnkernels.testing.numerics import small_integers
from tests.helpers.models.pytorch_samples import assert_rounds_as_pytorch

WORLD = 2


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Unequal parts for the processes: 3 samples and 1."""
    return small_integers((4, 3, 2, 2), dtype, 1), small_integers((4, 3, 2, 2), dtype, 2)


def step(layer: torch.nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    x = x.requires_grad_()
    y = layer(x)
    return [
        y.detach(),
        *torch.autograd.grad(y, [x, layer.weight, layer.bias], grad),
        layer.running_mean,
        layer.running_var,
    ]


def work(rank: int, file: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    part = slice(0, 3) if rank == 0 else slice(3, 4)
    with use_backend("cuda"):
        torch.save(step(nn.SyncBatchNorm(3), *(t[part] for t in batch(torch.float32))), f"{results}-{rank}")
    dist.destroy_process_group()
    os._exit(0)  # as in test_ddp.py


def test_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path / "meet"), str(tmp_path / "result")), nprocs=WORLD)
    true, theirs = (step(torch.nn.BatchNorm2d(3).to(dtype), *batch(dtype)) for dtype in (torch.float64, torch.float32))
    (y0, dx0, dw0, db0, *running), (y1, dx1, dw1, db1, *others) = (torch.load(tmp_path / f"result-{r}") for r in (0, 1))
    found = torch.cat((y0, y1)), torch.cat((dx0, dx1)), dw0 + dw1, db0 + db1, *running
    assert_rounds_as_pytorch(found, true, theirs, 16, "of two processes")
    assert all(torch.equal(a, b) for a, b in zip(running, others, strict=True))
