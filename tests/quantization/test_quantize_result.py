"""quantize: what it takes, which graphs it believes, and what its result refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkernels import quantize
from helpers.models.quantize import Net, conv_norm, distance, images, output, trained

pytestmark = pytest.mark.usefixtures("on_the_reference")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_type_after_quantizing_is_refused(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.ConvTranspose2d(2, 4, 2), nn.Conv2d(4, 2, 1)).eval()
    result = quantize(model, images(2)).model
    before = [p.dtype for p in result.parameters()]
    with pytest.raises(TypeError, match=f"captured in torch.float32: convert the float model to {dtype}"):
        result.to(dtype)
    assert [p.dtype for p in result.parameters()] == before
    assert result.to(torch.float32) is result


def test_other_sizes() -> None:
    """One image of one size is captured for batches of any, and for sizes that the code has the same way for."""

    def code(m: Any, x: Tensor) -> Tensor:
        if x.shape[-1] % 4:
            raise RuntimeError("not a multiple of 4")
        return m.d(F.relu(m.c(x))).flatten(1).mean(1)

    model = trained(Net(code))
    result = quantize(model, images(2, 1, 8)).model
    for shape in ((3, 8), (1, 4), (5, 16)):
        x = images(2, *shape)
        assert output(result, x).shape == output(model, x).shape
    with pytest.raises(ValueError, match=r"the captured model is for inputs with .*x.size\(\)\[3\].*4"):
        result(images(2, 1, 10))
    with pytest.raises(ValueError, match=r"inputs with x.size\(\)\[1\] == 2"):
        result(images(3, 1, 8))


class Doubles(nn.Module):
    """Says something else to torch.export."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return 2 * y if torch.compiler.is_compiling() else y


def in_place_hook() -> nn.Module:
    """A hooked ReLU changes what the sum reads."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.relu = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)
            self.relu.register_forward_hook(lambda module, args, output: None)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(self.relu(y)) + y

    return Sum()


@pytest.mark.parametrize(
    ("make", "why"),
    [(Doubles, "its graph computes something else than its code"), (in_place_hook, "changes a in place")],
)
def test_a_graph_that_is_not_the_code_is_not_believed(make: Callable[[], nn.Module], why: str) -> None:
    model, x = trained(make()), images()
    result = quantize(model, x)
    assert len(result.notes) == 1 and why in result.notes[0]
    assert result.quantized and distance(output(result.model, x), output(model, x)) < 0.03


class Looks(nn.Module):
    """Looks at values, and at its parts' parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.block = conv_norm(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x) * self.block[0].weight.abs().mean()
        return y if y.sum() > -1e9 else -y


def test_parts_that_cannot_stand_apart_stay_in_float() -> None:
    model, x = trained(Looks()), images()
    result = quantize(model, x)
    assert not result.quantized and [line.reason for line in result.kept] == ["the code that runs it has no graph"]
    assert torch.equal(output(result.model, x), output(model, x))


def test_keep() -> None:
    model, x = trained(nn.Sequential(conv_norm(3, 4), conv_norm(4, 4), nn.Flatten(), nn.Linear(576, 3))), images()
    for keep, kept in (
        (["1"], {"1.0"}),
        ([nn.Linear], {"3"}),
        ([lambda name, layer: name == "0.0", "3"], {"0.0", "3"}),
    ):
        result = quantize(model, x, keep=keep)
        assert {line.names[0] for line in result.kept if line.reason == "keep names it"} == kept
        assert len(result.quantized) == 3 - len(kept)
    assert not quantize(model, mode="dynamic", keep=[nn.Linear]).quantized
    with pytest.raises(ValueError, match="the model has no module that keep='head' could name"):
        quantize(model, x, keep=["head"])
    with pytest.raises(TypeError, match="a part of 'keep' must be a name, a type or a function, not int"):
        quantize(model, x, keep=[3])  # type: ignore[list-item]


def test_data_of_every_kind() -> None:
    model, x = trained(conv_norm(3, 4)), images()
    expected = quantize(model, x).values
    labels = torch.zeros(len(x))
    assert quantize(model, [(x, labels)]).values == expected, "of images and labels the model takes the images"
    assert quantize(torch.compile(model), x).values == expected
    for data, message in (
        (5, "or a function of the model, not int"),
        ("x", "not str"),
        (x.numpy(), "not ndarray"),
        ([x.numpy()], "a batch must be a tensor, or a tuple, list or dict of arguments, not ndarray"),
    ):
        with pytest.raises(TypeError, match=message):
            quantize(model, data)
    with pytest.raises(TypeError, match="is compiled by TorchScript: give the model that it was made of"):
        quantize(torch.jit.trace(model, x), x)
    with pytest.warns(UserWarning, match="all values of input were 0: their codes mean nothing"):
        quantize(model, torch.zeros_like(x))
