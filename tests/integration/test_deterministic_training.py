"""Networks trained twice, with equal bits, under torch.use_deterministic_algorithms(True)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import cnnkernels
from cnnkernels import use_backend

STEPS = 3
Made = tuple[torch.nn.Module, Tensor]


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def speech() -> Made:
    """Of rows: a front as wav2vec2's, depthwise and dilated layers as a ConvTasNet's, up again as a HiFi-GAN."""
    model = torch.nn.Sequential(
        torch.nn.Conv1d(1, 16, 10, stride=5), torch.nn.GELU(),
        torch.nn.Conv1d(16, 16, 3, padding="same", dilation=2, groups=16), torch.nn.PReLU(),
        torch.nn.Conv1d(16, 8, 1), torch.nn.AvgPool1d(2), torch.nn.ReLU(),
        torch.nn.ConvTranspose1d(8, 4, 8, stride=4, padding=2), torch.nn.Conv1d(4, 1, 7, padding=3),
    )  # fmt: skip
    return model, torch.randn(4, 1, 150)


def generator() -> Made:
    """A small DCGAN's."""
    model = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(16, 32, 4, bias=False), torch.nn.BatchNorm2d(32), torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(16, 8, 3, 2, 1, 1, groups=4), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 3, 3, padding=1), torch.nn.Tanh(),
    )  # fmt: skip
    return model, torch.randn(4, 16, 1, 1)


def trained(
    make: Callable[[], tuple[torch.nn.Module, Tensor]], device: str, shuffle: int
) -> tuple[list[float], Tensor]:
    """Losses and the parameters at the end, flat."""
    torch.manual_seed(0)
    model, x = make()
    replaced = cnnkernels.replace_layers(model)
    assert not replaced.kept
    model, x = replaced.model.to(device), x.to(device)
    torch.manual_seed(shuffle)  # which the network has no part in
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (model(x) - 0.5).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def generator_in_channels_last() -> Made:
    model, x = generator()
    return model.to(memory_format=torch.channels_last), x


@pytest.mark.parametrize("make", [speech, generator, generator_in_channels_last])
def test_trains_twice_to_the_same_bits(device: str, make: Callable[[], Made]) -> None:
    with use_backend("cuda"):
        (losses, parameters), (again, others) = (trained(make, device, shuffle) for shuffle in (1, 2))
    assert losses == again and torch.equal(parameters, others)
    assert losses[-1] < losses[0]
