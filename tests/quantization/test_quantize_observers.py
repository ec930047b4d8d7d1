"""Codes, rounding and observers against the formulas written out plainly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cnnkernels.quantization import (
    MSE,
    Entropy,
    FakeQuantize,
    MinMax,
    Percentile,
    affine_code,
    fake_quantize,
    fake_quantize_weight,
    symmetric_scale,
)
from cnnkernels.quantization.observers import HALF, Histogram

RANGES = [(-1.0, 1.0), (0.0, 6.0), (0.5, 3.0), (-3.0, -0.25), (-1e-3, 2.0), (-7.0, 1e-3), (0.0, 1e-44), (-1e38, 3e38)]


def code_of(low: float, high: float) -> tuple[np.float32, int]:
    """The affine code in plain numbers."""
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return np.float32(1), 0
    scale = np.float32(max((high - low) / 255, 2.0**-126))
    return scale, int(np.clip(np.rint(-128 - low / float(scale)), -128, 127))


def rounded(x: float, scale: np.float32, zero_point: int) -> float:
    q = int(np.rint(np.float32(x) * (np.float32(1) / scale))) + zero_point
    return (min(max(q, -128), 127) - zero_point) * float(scale)


@pytest.mark.parametrize(("low", "high"), [*RANGES, (0.0, 0.0)])
def test_affine_code(low: float, high: float) -> None:
    scale, zero_point = affine_code(torch.tensor(low).double(), torch.tensor(high).double())
    assert (scale.item(), zero_point.item()) == code_of(low, high)
    assert scale.dtype is torch.float32 and zero_point.dtype is torch.int32
    # 0 has a code, and both ends are at most half a step from one.
    ends = torch.tensor([low, high, 0.0])
    off = (fake_quantize(ends, scale, zero_point) - ends).abs()
    assert off[2] == 0 and bool((off <= scale * 0.50001).all())


def test_fake_quantize_is_the_formula() -> None:
    scale, zero_point = np.float32(0.037), -31
    x = torch.linspace(-8, 8, 2001)
    got = fake_quantize(x, torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32))
    expected = torch.tensor([rounded(v, scale, zero_point) for v in x.tolist()], dtype=torch.float32)
    assert torch.equal(got, expected)
    assert got.unique().numel() == 256


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_fake_quantize_narrows_once(dtype: torch.dtype) -> None:
    scale, zero_point = torch.tensor(0.037), torch.tensor(-31, dtype=torch.int32)
    x = torch.linspace(-8, 8, 301).to(dtype)
    plain = [rounded(v, np.float32(0.037), -31) for v in x.tolist()]
    wide = torch.tensor(plain, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
    assert torch.equal(fake_quantize(x, scale, zero_point), wide.to(dtype))


def test_gradient_passes_inside_the_range_alone() -> None:
    scale, zero_point = torch.tensor(0.5), torch.tensor(100, dtype=torch.int32)
    # The codes reach from (-128 - 100) / 2 to (127 - 100) / 2; half a step further still rounds to an end.
    x = torch.tensor([-200.0, -114.3, -114.2, 0.0, 13.5, 13.7, 13.8, 200.0], requires_grad=True)
    y = fake_quantize(x, scale, zero_point)
    assert y.tolist() == [-114, -114, -114, 0, 13.5, 13.5, 13.5, 13.5]
    (gradient,) = torch.autograd.grad(y, x, 3 * torch.ones(8))
    assert gradient.tolist() == [0, 0, 3, 3, 3, 3, 0, 0]


def test_nan_is_not_hidden() -> None:
    one, zero = torch.tensor(1.0), torch.tensor(0, dtype=torch.int32)
    assert fake_quantize(torch.tensor([math.nan, math.inf]), one, zero).isnan().tolist() == [True, False]


def test_weights_have_a_scale_for_each_filter() -> None:
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.no_grad():
        weight[1] = 0
    expected = [max(abs(v) for v in row) for row in weight.flatten(1).tolist()]
    scale = symmetric_scale(weight)
    assert scale.tolist() == [np.float32(v) / np.float32(127) if v else 1 for v in expected]
    got = fake_quantize_weight(weight)
    for k in range(5):
        plain = [rounded(v, np.float32(scale[k].item()), 0) for v in weight[k].flatten().tolist()]
        assert torch.equal(got[k].flatten(), torch.tensor(plain, dtype=torch.float32))
    (gradient,) = torch.autograd.grad(got.sum(), weight)
    assert torch.equal(gradient, torch.ones_like(weight))
    again = fake_quantize_weight(got.detach())
    assert torch.equal(again, got), "rounding what is rounded changed it"


def watched(observer: MinMax, *batches: torch.Tensor) -> MinMax:
    for batch in batches:
        assert observer(batch) is batch
    return observer


def test_minmax() -> None:
    observer = watched(MinMax(), torch.tensor([1.0, -2.0]), torch.tensor([[0.5]]), torch.empty(0))
    assert observer.range() == (-2, 1)
    scale, zero_point = observer.code()
    assert (np.float32(scale), zero_point) == code_of(-2, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [MinMax, Percentile, Entropy, MSE])
def test_refuses_what_no_code_spans(kind: type[MinMax], bad: float) -> None:
    with pytest.raises(ValueError, match="no code spans that"):
        kind()(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="saw no data"):
        kind().range()


@pytest.mark.parametrize("first", [0.0, 1e-30, 0.3, 1.0, 5.0])
def test_histogram_counts_as_if_the_limit_had_been_known(first: float) -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(1)) * 3
    x[0], x[1] = 16.0, -15.999
    observer = watched(Histogram(), torch.tensor([first, -first / 2]), *x.sort().values.abs().split(1000), x)
    assert observer.limit == 32
    every = torch.cat([torch.tensor([first, -first / 2]), x.abs(), x]).double().numpy()
    expected, _ = np.histogram(every, bins=observer.edges().numpy())
    assert observer.counts.tolist() == expected.tolist()
    assert observer.zeros == np.count_nonzero(every == 0)


def heavy_tailed() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20000, generator=generator)
    x[:8] *= 30
    return x


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("percentile", [90.0, 99.9, 100.0])
def test_percentile_is_the_quantile_to_a_bin(percentile: float, positive: bool) -> None:
    x = heavy_tailed().relu() if positive else heavy_tailed()
    observer = watched(Percentile(percentile), x)
    low, high = observer.range()
    tail = (1 - percentile / 100) / 2
    width = observer.limit / HALF
    ordered = x.double().sort().values
    assert abs(high - np.quantile(ordered.numpy(), 1 - tail, method="lower")) <= width
    assert abs(low - np.quantile(ordered.numpy(), tail, method="higher")) <= width
    assert percentile < 100 or (low, high) == (x.min(), x.max())
    assert not positive or low == 0


def losses(x: torch.Tensor, thresholds: list[float], loss) -> list[float]:
    low, high = x.min().item(), x.max().item()
    return [loss(x.double().numpy(), max(low, -t), min(high, t)) for t in thresholds]


def square_error(x: np.ndarray, low: float, high: float) -> float:
    scale, zero_point = code_of(low, high)
    q = np.clip(np.rint(x / float(scale)) + zero_point, -128, 127)
    return float((((q - zero_point) * float(scale) - x) ** 2).mean())


@pytest.mark.parametrize("positive", [False, True])
def test_mse_is_near_the_least_square_error(positive: bool) -> None:
    """Of the values themselves, and of thresholds that the observer did not try."""
    x = heavy_tailed().relu() if positive else heavy_tailed()
    observer = watched(MSE(), x)
    best = min(losses(x, np.linspace(0.5, x.abs().max().item(), 100).tolist(), square_error))
    got = square_error(x.double().numpy(), *observer.range())
    everything = square_error(x.double().numpy(), x.min().item(), x.max().item())
    assert got <= 1.005 * best and got < 0.99 * everything


def divergence(counts: np.ndarray, centers: np.ndarray, low: float, high: float, bins: int) -> float:
    """Migacz's loss, bin by bin."""
    scale, zero_point = code_of(low, high)
    inside = range(HALF - bins, HALF + bins)
    p = {i: float(counts[i]) for i in inside}
    p[inside[0]] += counts[: inside[0]].sum()
    p[inside[-1]] += counts[inside[-1] + 1 :].sum()
    groups: dict[int, list[int]] = {}
    for i in inside:
        level = int(np.clip(np.rint(centers[i] / float(scale) + zero_point), -128, 127))
        groups.setdefault(level, []).append(i)
    q = dict.fromkeys(inside, 0.0)
    for members in groups.values():
        filled = [i for i in members if counts[i] > 0]
        for i in filled:
            q[i] = sum(counts[j] for j in members) / len(filled)
    total, floor = counts.sum(), 1 / (2 * counts.sum())
    sums = sum(q.values())
    return sum(p[i] / total * math.log(p[i] / total / max(q[i] / sums, floor)) for i in inside if p[i] > 0)


@pytest.mark.parametrize("positive", [False, True])
def test_entropy_is_the_least_divergence(positive: bool) -> None:
    """Of all values but zeros, of which there are many where ReLU has been."""
    x = heavy_tailed().relu() if positive else heavy_tailed()
    observer = watched(Entropy(), x)
    nonzero = watched(Histogram(), x[x != 0])
    counts, centers = nonzero.counts.numpy(), nonzero.centers().numpy()
    low, high = observer.range()
    width = observer.limit / HALF
    losses = {}
    for bins in (round(max(-low, high) / width), HALF // 4, HALF // 3, HALF):
        ends = max(observer.low, -bins * width), min(observer.high, bins * width)
        losses[bins] = divergence(counts, centers, *ends, bins)
        assert observer.loss(*ends, bins) == pytest.approx(losses[bins], rel=1e-9)
    assert min(losses.values()) == next(iter(losses.values()))
    assert 2.5 < high < 0.7 * observer.high, "the tail was not clipped, or too much was"


@pytest.mark.parametrize("kind", [MinMax, Percentile, Entropy, MSE])
def test_the_answer_does_not_depend_on_batches_or_their_order(kind: type[MinMax]) -> None:
    x = heavy_tailed()
    x[::2] = 0
    whole = watched(kind(), x).range()
    assert watched(kind(), *x.flip(0).split(1777)).range() == whole
    assert watched(kind(), *x.view(8, 5, 500).transpose(0, 1)).range() == whole


@pytest.mark.parametrize("kind", [MinMax, Percentile, Entropy, MSE])
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_a_constant(kind: type[MinMax], value: float) -> None:
    observer = watched(kind(), torch.full((300,), value))
    scale, zero_point = observer.code()
    kept = fake_quantize(torch.tensor(value), torch.tensor(scale), torch.tensor(zero_point, dtype=torch.int32))
    assert kept.item() == pytest.approx(value, rel=1e-3)


def test_fake_quantizer_follows_the_batches() -> None:
    layer = FakeQuantize(momentum=0.25)
    batches = [torch.tensor([-1.0, 3.0]), torch.tensor([0.5, 7.0]), torch.tensor([-5.0, 1.0])]
    low, high = -1.0, 3.0
    for i, batch in enumerate(batches):
        if i:
            low, high = low + 0.25 * (batch.min().item() - low), high + 0.25 * (batch.max().item() - high)
        got = layer(batch)
        assert layer.range() == (low, high)
        assert torch.equal(got, fake_quantize(batch, *affine_code(torch.tensor(low), torch.tensor(high))))
    layer.eval()(torch.tensor([100.0]))
    assert layer.range() == (low, high)
    copy = FakeQuantize()
    copy.load_state_dict(layer.state_dict())
    assert copy.code() == layer.code()
