"""batch_norm under torch.compile and torch.export; test_tracing.py checks its operators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnnkernels import nn, use_backend


def step(model: Any, x: Tensor) -> list[Tensor]:
    y = model(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


def test_compiled_training(device: str) -> None:
    """The same results, gradients and running statistics as without, by the same kernels."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2dAct(3, activation="silu")).to(device)
    x = torch.randn(4, 3, 2, 3, device=device, requires_grad=True)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with use_backend("cuda"):
        expected, learned = step(model, x), [b.clone() for b in model.buffers()]
        model.load_state_dict(state)
        found = step(torch.compile(model, backend="aot_eager", fullgraph=True), x)
    for a, b in zip([*found, *model.buffers()], [*expected, *learned], strict=True):
        assert torch.equal(a, b)


def test_exported(device: str) -> None:
    model = nn.BatchNorm2dAct(3).to(device).eval()
    x = torch.randn(4, 3, 2, 3, device=device)
    with use_backend("cuda"):
        program = torch.export.export(model, (x,))
        assert any("batch_norm_forward" in str(node.target) for node in program.graph.nodes)
        assert torch.equal(program.module()(x), model(x))
