"""int8_conv2d: exact integers, and the epilogue's bits, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnkernels import functional as F
from cnnkernels import use_backend
from cnnkernels.testing.cases import ConvCase
from cnnkernels.testing.int8_cases import INT8_CONV2D
from helpers.int8 import columns_last, convolution, floats, formula, integers


def call(case: ConvCase, input: Tensor, weight: Tensor, **given: Any) -> Tensor:
    """Uneven padding, which F.int8_conv2d has no argument for, as input's own border of zero points."""
    top, bottom, left, right = case.padding
    given = {"stride": case.stride, "dilation": case.dilation, "groups": case.groups} | given
    if (top, left) == (bottom, right):
        return F.int8_conv2d(input, weight, padding=(top, left), **given)
    zero_point = given.get("input_zero_point", 0)
    padded = torch.nn.functional.pad(input.int(), (left, right, top, bottom), value=zero_point).to(input.dtype)
    return F.int8_conv2d(padded, weight, **given)


def operands(case: ConvCase, device: str, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    last = {"memory_format": torch.channels_last}
    x, w = integers(case.input_shape, 1, dtype), integers(case.weight_shape, 2)
    return x.to(device).contiguous(**last), w.to(device).contiguous(**last)


@pytest.mark.parametrize("case", INT8_CONV2D, ids=str)
def test_each_case_is_exact(backend: str, device: str, case: ConvCase) -> None:
    x, w = operands(case, device)
    with use_backend(backend):
        y = call(case, x, w)
        shifted = call(case, x, w, input_zero_point=-7)
    assert y.dtype is torch.int32 and y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y.cpu().long(), torch.from_numpy(convolution(case, x, w)))
    assert torch.equal(shifted.cpu().long(), torch.from_numpy(convolution(case, x, w, -7)))


SAME = ConvCase("same", 2, 12, 6, 5, 21, 3, 3, padding=(1, 1, 1, 1))
DEPTHWISE = ConvCase("depthwise", 2, 16, 6, 5, 16, 3, 3, padding=(1, 1, 1, 1), groups=16)
SHAPE = SAME.output_shape
EPILOGUES: dict[str, dict[str, Any]] = {
    "a scale a filter": {"input_scale": 0.043, "weight_scale": floats((21,), 3, 0.01, 0.1), "bias": floats((21,), 4)},
    "a scale in a tensor": {
        "input_scale": torch.tensor([0.07]),
        "weight_scale": floats((21, 1, 1, 1), 5, 1e-3, 0.01),
        "input_zero_point": 33,
        "activation": "hardswish",
        "out_dtype": torch.bfloat16,
    },
    "fp16 residual": {
        "weight_scale": 0.0007,
        "residual": floats(SHAPE, 6, -9, 9).half(),
        "activation": "leaky_relu",
        "negative_slope": 0.2,
        "out_dtype": torch.float16,
    },
    "requantized": {
        "input_scale": 0.02,
        "weight_scale": floats((21,), 7, 0.01, 0.1),
        "input_zero_point": -20,
        "bias": floats((21,), 8, -50, 50),
        "residual": integers(SHAPE, 9),
        "residual_scale": 0.21,
        "residual_zero_point": 6,
        "activation": "relu",
        "out_scale": 0.8,
        "out_zero_point": -100,
    },
    "uint8 to uint8": {
        "input_scale": 0.02,
        "weight_scale": 0.05,
        "input_zero_point": 128,
        "out_dtype": torch.uint8,
        "out_scale": 0.9,
        "out_zero_point": 99,
    },
}


def expected(case: ConvCase, x: Tensor, w: Tensor, given: dict[str, Any]) -> Tensor:
    """The formula over rows of pixels, as an image again."""
    rest = dict(given)
    sums = columns_last(convolution(case, x, w, rest.pop("input_zero_point", 0)))
    names = {"input_scale": "scale_a", "weight_scale": "scale_b"}
    rest = {names.get(name, name): value for name, value in rest.items()}
    if "residual" in rest:
        rest["residual"] = columns_last(rest["residual"].cpu())
    rest.setdefault("out_dtype", torch.int8 if "out_scale" in rest else torch.float32)
    n, k, p, q = case.output_shape
    return formula(sums, **rest).view(n, p, q, k).movedim(-1, 1)


@pytest.mark.parametrize("name", EPILOGUES)
def test_the_epilogue_is_the_formula_bit_for_bit(backend: str, device: str, name: str) -> None:
    given = EPILOGUES[name]
    x, w = operands(SAME, device, torch.uint8 if "uint8" in name else torch.int8)
    placed = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in given.items()}
    with use_backend(backend):
        y = call(SAME, x, w, **placed)
    right = expected(SAME, x, w, given)
    assert y.dtype is right.dtype and y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y.cpu(), right)
    assert y.unique().numel() > 20


def test_the_epilogue_of_a_depthwise_convolution(backend: str, device: str) -> None:
    x, w = operands(DEPTHWISE, device)
    given: dict[str, Any] = {
        "input_scale": 0.02,
        "weight_scale": floats((16,), 3, 0.01, 0.1).to(device),
        "input_zero_point": 5,
        "bias": floats((16,), 4, -9, 9).to(device),
        "residual": integers(DEPTHWISE.output_shape, 5).to(device),
        "residual_scale": 0.1,
        "activation": "relu6",
        "out_scale": 0.05,
        "out_zero_point": -60,
    }
    with use_backend(backend):
        y = call(DEPTHWISE, x, w, **given)
    assert torch.equal(y.cpu(), expected(DEPTHWISE, x, w, given))
    assert y.unique().numel() > 20


def test_a_sum_of_filters_that_is_known_changes_nothing(backend: str, device: str) -> None:
    x, w = operands(SAME, device)
    sums = w.flatten(1).sum(1, dtype=torch.int32)
    with use_backend(backend):
        assert torch.equal(call(SAME, x, w, input_zero_point=9), call(SAME, x, w, input_zero_point=9, weight_sum=sums))


def test_a_chain_stays_int8(backend: str, device: str) -> None:
    """conv, relu, conv + residual, pool of nothing: each layer's output is the next one's input."""
    x, w = operands(SAME, device)
    back = ConvCase("back", *SHAPE, 12, 1, 1)
    v = integers(back.weight_shape, 5).to(device)
    first = {"input_scale": 0.02, "weight_scale": 0.03, "input_zero_point": 4, "activation": "relu", "out_scale": 0.4}
    second = {"input_scale": 0.4, "weight_scale": 0.01, "residual_scale": 0.02, "residual_zero_point": 4}
    with use_backend(backend):
        y = call(SAME, x, w, **first, out_zero_point=-128)
        z = call(back, y, v, **second, input_zero_point=-128, residual=x, out_scale=2.0)
    between = expected(SAME, x, w, {**first, "out_zero_point": -128})
    assert y.dtype is z.dtype is torch.int8
    assert torch.equal(y.cpu(), between)
    last = {**second, "input_zero_point": -128, "residual": x, "out_scale": 2.0}
    assert torch.equal(z.cpu(), expected(back, between, v, last))


def test_any_memory_format_and_no_batch(backend: str, device: str) -> None:
    """Contiguous, transposed, offset and expanded operands: the output is channels_last all the same."""
    x, w = operands(SAME, device)
    right = torch.from_numpy(convolution(SAME, x, w))
    with use_backend(backend):
        inputs = {
            "contiguous": x.contiguous(),
            "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
            "part of a larger one": torch.nn.functional.pad(x, (1, 2, 1, 1))[:, :, 1:-1, 1:-2],
        }
        for name, view in inputs.items():
            y = call(SAME, view, w.contiguous())
            assert torch.equal(y.cpu().long(), right), name
            assert y.is_contiguous(memory_format=torch.channels_last), name
        one = x[:1].expand(2, -1, -1, -1)
        assert torch.equal(call(SAME, one, w)[1].cpu().long(), right[0])
        residual = floats(SHAPE[1:], 3).to(device)
        y = call(SAME, x[0], w, residual=residual, weight_scale=0.001)
        whole = call(SAME, x[:1], w, residual=residual[None], weight_scale=0.001)
    assert y.shape == SHAPE[1:] and torch.equal(y, whole[0])


def test_named_padding(backend: str, device: str) -> None:
    x = integers((1, 4, 5, 6), 1).to(device)
    w = integers((3, 4, 2, 4), 2).to(device)
    with use_backend(backend):
        same, valid = F.int8_conv2d(x, w, padding="same"), F.int8_conv2d(x, w, padding="valid")
    case = ConvCase("", 1, 4, 5, 6, 3, 2, 4, padding=(0, 1, 1, 2))
    assert torch.equal(same.cpu().long(), torch.from_numpy(convolution(case, x, w)))
    assert valid.shape == (1, 3, 4, 3) and torch.equal(valid, same[:, :, :4, 1:4])


def test_the_longest_sums_are_exact_and_longer_ones_refused(device: str) -> None:
    """1x1 of 131071 channels, all -128; with a zero point 65793 are the most."""
    x = torch.full((1, 131072, 1, 1), -128, dtype=torch.int8, device=device)
    with use_backend("reference"):
        assert F.int8_conv2d(x[:, 1:], x[:, 1:]).item() == 131071 * 2**14
        with pytest.raises(ValueError, match=r"K=131072 .* at most 131071"):
            F.int8_conv2d(x, x)
        with pytest.raises(ValueError, match=r"K=65794 .* input of uint8 or with a zero point .* at most 65793"):
            F.int8_conv2d(x[:, :65794], x[:, :65794], input_zero_point=1)


def test_empty_sizes(backend: str, device: str) -> None:
    w = torch.ones(3, 4, 3, 3, dtype=torch.int8, device=device)
    bias = torch.tensor([1.0, -2.0, 3.0], device=device)
    with use_backend(backend):
        y = F.int8_conv2d(torch.ones(0, 4, 5, 5, dtype=torch.int8, device=device), w, bias)
        assert y.shape == (0, 3, 3, 3) and y.dtype is torch.float32
        channels = torch.ones(2, 0, 5, 5, dtype=torch.int8, device=device)
        y = F.int8_conv2d(channels, w[:, :0], bias, out_scale=0.5, input_zero_point=3)
    assert y.shape == (2, 3, 3, 3) and torch.equal(
        y.movedim(1, -1).unique(dim=2)[0, 0], torch.tensor([[2, -4, 6]], device=device).to(torch.int8)
    )


def test_a_floating_input_is_quantized_first(backend: str, device: str) -> None:
    x = floats(SAME.input_shape, 1, -3, 3).to(torch.float16)
    w = integers(SAME.weight_shape, 2).to(device)
    with use_backend(backend):
        y = call(SAME, x.to(device), w, input_scale=0.02, input_zero_point=5, weight_scale=0.01)
    f = np.float32
    q = np.clip(np.rint(x.float().numpy() * (f(1) / f(0.02))) + 5, -128, 127).astype(np.int8)
    given = {"input_scale": 0.02, "input_zero_point": 5, "weight_scale": 0.01, "out_dtype": torch.float16}
    assert torch.equal(y.cpu(), expected(SAME, torch.from_numpy(q), w, given))
