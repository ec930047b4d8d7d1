"""DistributedDataParallel: processes that each see a part of every batch, and stay one network.

After the first step every process must have the gradient of the whole batch, as near to it in fp64 as fp32 brings one
process, within a factor of four; in the end all have the same parameters to the bit, and the loss has halved.

torchrun --standalone --nproc-per-node 2 examples/distributed.py
Several GPUs: the same with as many processes; several machines: torchrun's --nnodes and --rdzv-endpoint. Without
torchrun it starts two processes itself.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from common import Digits, arguments, cross_entropy, require
from networks import lenet
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    model.zero_grad()
    cross_entropy(model, images, labels).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()]).double()


def work() -> None:
    given = arguments(__doc__, epochs=4)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if given.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if given.device == "cuda" else "gloo")
    digits = Digits(given.device, size=16)
    model = lenet().to(given.device)  # all alike: of one seed
    shared = DistributedDataParallel(model)

    batch = digits.images[: 64 * world], digits.labels[: 64 * world]
    alone = gradient(model, *batch)
    exact = gradient(lenet_like(model), batch[0].double(), batch[1])
    ours = gradient(shared, batch[0][rank::world], batch[1][rank::world])
    off, alone_off = (ours - exact).norm().item(), (alone - exact).norm().item()

    optimizer = torch.optim.Adam(model.parameters(), 0.005)
    torch.manual_seed(given.seed)  # the same batches in every process, of which each takes its part
    means = []
    for _ in range(given.epochs):
        losses = []
        for images, labels in digits.batches(64):
            optimizer.zero_grad()
            loss = cross_entropy(shared, images[rank::world], labels[rank::world])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        means.append(torch.stack(losses).mean().item())
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    everyones = [torch.empty_like(flat) for _ in range(world)]
    dist.all_gather(everyones, flat)
    dist.destroy_process_group()
    if rank == 0:
        require(f"{world} processes are off by {off:.1e}, one by {alone_off:.1e}", off <= 4 * alone_off)
        require("all have the same parameters", all(torch.equal(flat, other) for other in everyones))
        require(f"the loss fell from {means[0]:.2f} to {means[-1]:.2f}, less than half", means[-1] < means[0] / 2)


def lenet_like(model: nn.Module) -> nn.Module:
    """A copy in fp64."""
    copy = lenet().to(next(model.parameters()).device).double()
    copy.load_state_dict(model.state_dict())
    return copy


def main() -> None:
    if "RANK" in os.environ:
        return work()
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", *sys.argv]
    os.execv(sys.executable, [sys.executable, "-m", *command])


if __name__ == "__main__":
    main()
