"""batch_norm under torch.compile, torch.export and PyTorch's own checks of an operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cnnkernels import nn, use_backend
from cnnkernels.ops import norm, norm_parts


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


def test_operators(device: str) -> None:
    x, residual = (torch.randn(2, 3, 2, 2, device=device, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(3, device=device, requires_grad=True) for _ in range(2))
    mean, var = torch.zeros(3, device=device), torch.ones(3, device=device)
    options = True, 1e-5, "relu", 0.0, "cuda"
    calls = (
        (norm.batch_norm_forward, (x, mean, var, weight, bias, residual, *options)),
        (norm_parts.batch_norm_statistics, (x, "cuda")),
        (norm_parts.batch_norm_track, (x.detach(), mean, var, 0.5, "cuda")),
        (norm_parts.batch_norm_sums, (x, residual, mean, "cuda")),
        (norm_parts.batch_norm_combine, (x, residual, None, weight, mean, bias, weight, None, "cuda")),
    )
    for operator, arguments in calls:
        torch.library.opcheck(operator.op, arguments)
