"""What is said of a model is true of models whose answer is known, and the model stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkernels import visualize


class Corner(nn.Module):
    """Class 1's score is the sum of the image's top left quarter, class 0's is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        corner = maps[:, 0, : x.shape[2] // 2, : x.shape[3] // 2].sum((1, 2))
        return torch.stack([torch.zeros_like(corner), corner], 1)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, dilation=2),
        nn.Flatten(), nn.Linear(6 * 16, 5),
    ).eval()  # fmt: skip


def test_filters_are_the_weights_stretched() -> None:
    conv = nn.Conv2d(3, 4, 3)
    conv.weight.data[1] = 0
    shown = visualize.filters(conv)
    assert shown[0].abs().max() == 1 and shown[1].abs().max() == 0
    assert torch.allclose(shown[0] * conv.weight[0].detach().abs().max(), conv.weight[0].detach())
    with pytest.raises(ValueError, match=r"filters \[K, C, R, S\], but got Linear"):
        visualize.filters(nn.Linear(3, 4))


def test_feature_maps_are_what_layers_return() -> None:
    model, images = small(), torch.randn(2, 3, 16, 16)
    maps = visualize.feature_maps(model, images, ["0", model[3]])
    assert list(maps) == ["0", "3"]
    assert torch.equal(maps["0"], model[0](images)) and torch.equal(maps["3"], model[:4](images))
    with pytest.raises(ValueError, match=r"must be one of the model's, 0, 1, .* but got '9'"):
        visualize.feature_maps(model, images, ["9"])
    twice = nn.ModuleDict({"used": nn.ReLU(), "unused": nn.ReLU()})
    twice.forward = lambda x: twice["used"](x)
    with pytest.raises(ValueError, match="unused did not run"):
        visualize.feature_maps(twice, images, ["unused"])


def test_grad_cam_is_its_formula() -> None:
    """a_k is 1/4 for the first map, whose quarter counts, and 0 for the second."""
    images = torch.rand(3, 1, 8, 8)
    heat = visualize.grad_cam(Corner(), images, "conv", target=1)
    assert torch.allclose(heat, images[:, 0] / images[:, 0].amax((1, 2), keepdim=True))
    model = small()
    weighted = visualize.grad_cam(model, torch.randn(2, 3, 16, 16), "4", target=torch.tensor([1, 4]))
    assert weighted.shape == (2, 16, 16) and weighted.amax((1, 2)).tolist() == [1, 1]


def test_grad_cam_by_hand() -> None:
    model, images = small(), torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = model[:5](images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model[5:](maps)[0, 2], maps)
    heat = F.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1))[None].detach()
    heat = F.interpolate(heat, (16, 16), mode="bilinear", align_corners=False)[0, 0]
    assert torch.allclose(visualize.grad_cam(model, images, "4", 2)[0], heat / heat.max(), atol=1e-6)


def test_grad_cam_refuses() -> None:
    model, images = small(), torch.randn(1, 3, 16, 16)
    with pytest.raises(ValueError, match="target must be below 5, the number of classes, but got"):
        visualize.grad_cam(model, images, "4", 5)
    with pytest.raises(ValueError, match=r"6 must return maps \[N, K, P, Q\], but returned \[1, 5\]"):
        visualize.grad_cam(model, images, "6")
    with pytest.raises(ValueError, match=r"scores \[N, classes\], but returned \[1, 6, 4, 4\]"):
        visualize.grad_cam(model[:5], images, "4")


def test_occlusion_is_what_was_covered() -> None:
    """Squares of 2, 2 apart; covering takes away what a square adds to the corner."""
    images = torch.rand(2, 1, 8, 8)
    fallen = visualize.occlusion(Corner(), images, window=2, stride=2, target=1, batch=3)
    squares = F.avg_pool2d(images, 2)[:, 0] * 4
    squares[:, 2:] = 0
    squares[:, :, 2:] = 0
    assert torch.allclose(fallen, squares, atol=1e-5)
    assert visualize.occlusion(Corner(), images, window=3, stride=4).shape == (2, 3, 3)
    with pytest.raises(ValueError, match="window must be at most the image's 8 x 8, but got 9"):
        visualize.occlusion(Corner(), images, window=9)
    with pytest.raises(ValueError, match="stride must be at least 1, but got 0"):
        visualize.occlusion(Corner(), images, window=2, stride=0)


def test_maximize_finds_the_pattern() -> None:
    """A unit that looks for a bright left and a dark right half of 4 columns."""
    conv = nn.Conv2d(1, 2, (4, 4), bias=False)
    conv.weight.data.zero_()
    conv.weight.data[1] = torch.tensor([1.0, 1, -1, -1]).expand(1, 4, 4)
    model = nn.Sequential(conv)
    found = visualize.maximize(model, "0", 1, (1, 4, 4), steps=40, shift=0)
    assert (found[0, :, :2] > 0.5).all() and (found[0, :, 2:] < -0.5).all()
    assert torch.equal(found, visualize.maximize(model, "0", 1, (1, 4, 4), steps=40, shift=0))
    assert conv.weight.grad is None
    with pytest.raises(ValueError, match="channel must be one of the layer 0's 2, but got 2"):
        visualize.maximize(model, "0", 2, (1, 4, 4))


def test_receptive_field_is_the_formula() -> None:
    """f <- f + dilation (R - 1) j, j <- j stride: 3, then 3 + 1 = 4 after the pool, then 4 + 2 * 2 * 2 = 12."""
    model, size = small()[:5], (3, 32, 32)
    for layer, field in (("0", 3), ("4", 12)):
        found = visualize.receptive_field(model, layer, size, samples=16)
        assert found.size == (field, field), layer
        outside = found.influence.clone()
        outside[found.top : found.bottom, found.left : found.right] = 0
        assert found.influence.any() and not outside.any()
    assert visualize.receptive_field(model, "0", size, position=(0, 31))[:4] == (0, 2, 30, 32)
    with pytest.raises(ValueError, match=r"within \[32, 32\], but got \(32, 0\)"):
        visualize.receptive_field(model, "0", size, position=(32, 0))


def test_cost_counts_every_layer() -> None:
    images = torch.randn(2, 3, 16, 16)
    found = visualize.cost(small(), images)
    assert [layer.name for layer in found.layers] == [str(i) for i in range(7)]
    first = found.layers[0]
    assert first[:5] == ("0", "Conv2d", (2, 3, 16, 16), (2, 4, 16, 16), 4 * 3 * 9 + 4)
    assert first.operations == 2 * 2 * 4 * 16 * 16 * 27
    assert first.bytes == 4 * (2 * 3 * 256 + 2 * 4 * 256 + 112)
    assert found.layers[2].operations == 0 and found.layers[2].floor > 0
    assert found.layers[6].operations == 2 * 2 * 96 * 5
    assert found.operations == sum(layer.operations for layer in found.layers)
    assert found.parameters == sum(p.numel() for p in small().parameters())
    text = str(found).splitlines()
    assert text[0].split()[:2] == ["layer", "kind"] and len(text) == 10 and "model's, for an h200" in text[-1]
    slower = visualize.cost(small(), images, gpu="a100")
    assert slower.gpu == "a100" and slower.floor > found.floor


def test_nothing_is_left_behind() -> None:
    """Hooks, gradients, buffers and modes; also where a function fails."""
    model, images = small(), torch.randn(1, 3, 16, 16)
    before = copy.deepcopy(model.state_dict())
    visualize.grad_cam(model, images, "4")
    visualize.occlusion(model, images, 8)
    visualize.cost(model, images)
    with pytest.raises(ValueError):
        visualize.grad_cam(model, images, "6")
    with pytest.raises(RuntimeError):
        visualize.cost(model, torch.randn(1, 3, 20, 20))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_models_have_heat() -> None:
    model = small().requires_grad_(False)
    with torch.no_grad():
        assert visualize.grad_cam(model, torch.randn(1, 3, 16, 16), "4", 1).shape == (1, 16, 16)


def test_figures_show_it() -> None:
    pytest.importorskip("matplotlib")
    model, images = small(), torch.randn(3, 3, 16, 16)
    assert len(visualize.draw_filters(visualize.filters(model[0])).axes) == 4
    assert len(visualize.draw_filters(visualize.filters(model[4]), most=5).axes) == 5
    heat = visualize.grad_cam(model, images, "4")
    assert len(visualize.draw_maps(heat, images).axes) == 3
    assert len(visualize.draw_maps(visualize.feature_maps(model, images, ["0"])["0"][0]).axes) == 4
    (axis,) = visualize.draw_cost(visualize.cost(model, images)).axes
    assert len(axis.patches) == 7
    with pytest.raises(ValueError, match=r"maps must be \[N, P, Q\], but got \[3, 3, 16, 16\]"):
        visualize.draw_maps(images)
