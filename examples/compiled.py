"""torch.compile of a whole network: fullgraph=True, so that a call that breaks the graph is an error.

Output and gradients must be as near to those in fp64 as the uncompiled network's, within a factor of four.

python examples/compiled.py --mode inductor
"""

from __future__ import annotations

import copy

import torch
from common import arguments, require
from networks import resnet
from torch import Tensor, nn


def answers(call: nn.Module, model: nn.Module, x: Tensor) -> Tensor:
    model.zero_grad()
    y = call(x)
    y.square().mean().backward()
    return torch.cat([y.detach().flatten(), *(p.grad.flatten() for p in model.parameters())]).double()


def main() -> None:
    modes = ("aot_eager", "inductor")
    gpu = torch.cuda.is_available()
    mode = {"choices": modes, "default": modes[gpu], "help": "inductor needs a C++ compiler on CPUs (%(default)s)"}
    given = arguments(__doc__, epochs=0, mode=mode)
    model = resnet(8).to(given.device).eval()
    x = torch.randn(4, 1, 16, 16, device=given.device)
    exact_model = copy.deepcopy(model).double()
    exact = answers(exact_model, exact_model, x.double())
    plain = answers(model, model, x)
    compiled = answers(torch.compile(model, fullgraph=True, backend=given.mode), model, x)
    off, plain_off = (compiled - exact).norm().item(), (plain - exact).norm().item()
    require(f"compiled it is off by {off:.1e}, otherwise by {plain_off:.1e}", off <= 4 * plain_off)


if __name__ == "__main__":
    main()
