"""`cnnkernels.tune` with a clock of the test's own: what is measured, kept and followed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnkernels
from cnnkernels import backends, certified
from cnnkernels.certified.certificates import Certificate
from cnnkernels.cli import main as cli
from cnnkernels.cli import tune as command
from cnnkernels.records import tuned
from cnnkernels.tuning import tune_layers
from cnnkernels.tuning.candidates import Asked
from cnnkernels.tuning.tuning import Line
from helpers.proving import certificate
from helpers.tuned import Clock, anew, cache, served  # noqa: F401


def conv(device: str, **options: int) -> nn.Module:
    """A convolution whose filter is of small integers."""
    layer = cnnkernels.nn.Conv2d(2, 2, 3, **options).to(device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape))
    return layer


def images(device: str, n: int = 1) -> Tensor:
    return torch.randint(-3, 4, (n, 2, 5, 5), device=device).float()


@pytest.mark.parametrize(("ours", "winner"), [(5.0, "cuda"), (20.0, "reference")])
def test_the_winner_is_kept_and_followed(
    cache: Path,  # noqa: F811
    served: list[str],  # noqa: F811
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    ours: float,
    winner: str,
) -> None:
    layer, x = conv(device), images(device)
    found = cnnkernels.tune(layer, x, timer=Clock(ours))
    assert [line.winner for line in found.lines] == [winner]
    assert (found.lines[0].reference, found.lines[0].ours, found.gain) == (20.0, 2 * ours, max(0.0, 20.0 - 2 * ours))
    anew(monkeypatch)
    served.clear()
    layer(x).sum().backward()
    assert set(served) == ({"cuda"} if winner == "cuda" else set())
    path = found.path
    assert path is not None and path.parent == cache / "tuned"
    assert {(c.inference, c.training) for c in tuned.load(path).choices} == {(winner, winner)}


@pytest.mark.parametrize(("ours", "winner"), [(10.0, "reference"), (9.9, "reference"), (9.0, "cuda")])
def test_a_tie_goes_to_pytorch(cache: Path, device: str, ours: float, winner: str) -> None:  # noqa: F811
    found = cnnkernels.tune(conv(device), images(device), training=False, timer=Clock(ours))
    assert [line.winner for line in found.lines] == [winner]


LAYERS = {
    "conv2d": lambda: cnnkernels.nn.Conv2d(2, 4, 3, stride=2, padding=1),
    "activated": lambda: cnnkernels.nn.Conv2dAct(2, 4, 3),
    "conv1d": lambda: cnnkernels.nn.Conv1d(2, 4, 3, padding=1),
    "depthwise": lambda: cnnkernels.nn.Conv2d(2, 2, 3, padding=1, groups=2),
    "conv_transpose2d": lambda: cnnkernels.nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1),
    "conv_transpose1d": lambda: cnnkernels.nn.ConvTranspose1d(2, 4, 3, stride=2),
}
DIRECTIONS = ("forward", "backward_input", "backward_weight")


@pytest.mark.parametrize(
    ("name", "fast"),
    [
        *(("conv2d", direction) for direction in DIRECTIONS),
        ("activated", "backward_input"),
        ("conv1d", "backward_input"),
        ("depthwise", "forward"),
        ("depthwise", "backward_weight"),
        ("conv_transpose2d", "forward"),
        ("conv_transpose2d", "backward_input"),
        ("conv_transpose1d", "backward_weight"),
    ],
)
def test_forward_and_gradients_are_chosen_separately(
    cache: Path,  # noqa: F811
    served: list[str],  # noqa: F811
    device: str,
    name: str,
    fast: str,
) -> None:
    """One direction by our kernels, the others by PyTorch's operator, and the same bits as PyTorch's."""
    layer = LAYERS[name]().to(device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape))
    x = torch.randint(-3, 4, (2, 2, 5) if "1d" in name else (2, 2, 5, 5), device=device).float().requires_grad_()
    found = cnnkernels.tune(layer, x, timer=Clock({fast: 5.0}))
    kernels = [fast, *[direction for direction in DIRECTIONS if direction != fast]]
    if "transpose" in name and fast != "backward_weight":  # the kernels' names are the convolution's that it transposes
        kernels[0] = "backward_input" if fast == "forward" else "forward"
    mixed = "/".join("cuda" if direction == kernels[0] else "reference" for direction in DIRECTIONS)
    assert [line.winner for line in found.lines] == [mixed]
    assert found.gain == 5.0
    served.clear()
    output = layer(x)
    grad = torch.randint(-3, 4, output.shape, device=device).float()
    ours = output, *torch.autograd.grad(output, [x, *layer.parameters()], grad)
    assert mixed in served
    with cnnkernels.use_backend("reference"):
        output = layer(x)
    theirs = output, *torch.autograd.grad(output, [x, *layer.parameters()], grad)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other) and mine.stride() == other.stride()


def test_mixed_kernels_are_those_of_their_directions(device: str) -> None:
    cuda = backends.kernels("cuda", device)
    made = backends.kernels("cuda/reference/cuda", device)
    assert made.conv_forward == cuda.conv_forward and made.conv_backward_weight == cuda.conv_backward_weight
    assert made.conv_backward_input != cuda.conv_backward_input and made.conv_backward_bias == cuda.conv_backward_bias


def test_a_backend_that_fails_is_left_out_and_named(
    cache: Path,  # noqa: F811
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(backends.kernels("cuda", device), "conv_backward_weight", fails, raising=False)
    found = cnnkernels.tune(conv(device), images(device), timer=Clock())
    (line,) = found.lines
    assert (line.winner, line.ours, line.failed) == ("reference", None, {"cuda": "RuntimeError: no such kernel"})
    assert "cuda is left out: RuntimeError: no such kernel" in str(found)
    assert found.path is not None
    (choice, *_) = tuned.load(found.path).choices
    assert choice.microseconds == {"forward": {"reference": 10.0}, "backward_weight": {"reference": 10.0}}


def test_who_is_asked_for_by_name_serves(cache: Path, served: list[str], device: str) -> None:  # noqa: F811
    layer, x = conv(device), images(device)
    cnnkernels.tune(layer, x, training=False, timer=Clock(20.0))
    served.clear()
    with torch.no_grad():
        layer(x)
        assert served == []
        with cnnkernels.use_backend("cuda"):
            layer(x)
        layer.backend = "cuda"
        layer(x)
    assert served == ["cuda", "cuda"]


def test_another_batch_type_or_layout_is_served_as_without_a_table(
    cache: Path,  # noqa: F811
    served: list[str],  # noqa: F811
    device: str,
) -> None:
    layer, x = conv(device), images(device)
    with torch.no_grad():
        cnnkernels.tune(layer, x, training=False, timer=Clock(20.0))
        served.clear()
        layer(x), layer(x.contiguous(memory_format=torch.channels_last))
        assert served == ["cuda"]  # the image alone is channels_last: the filter is not, as it was when timed
        layer(images(device, 2))
        layer.double()(x.double())
        assert served == ["cuda"] * 3
        layer.float().to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert served == ["cuda"] * 3


def test_a_model_whose_gradients_were_not_timed_is_trained_as_without_a_table(
    cache: Path,  # noqa: F811
    served: list[str],  # noqa: F811
    device: str,
) -> None:
    layer, x = conv(device), images(device)
    cnnkernels.tune(layer, x, training=False, timer=Clock(20.0))
    served.clear()
    layer(x)
    assert served == ["cuda"]


def test_the_model_is_left_as_it_was(cache: Path, device: str) -> None:  # noqa: F811
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).to(device)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = images(device)
    state, benchmark = torch.get_rng_state(), torch.backends.cudnn.benchmark
    cnnkernels.tune(model, x, timer=Clock())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert type(model[0]) is nn.Conv2d and model.training
    assert torch.equal(torch.get_rng_state(), state) and torch.backends.cudnn.benchmark == benchmark


def test_layers_that_make_the_same_call_are_timed_once(cache: Path, device: str) -> None:  # noqa: F811
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)).to(device)
    clock = Clock()
    found = cnnkernels.tune(model, images(device), training=False, timer=clock)
    assert [(line.layers, line.reference) for line in found.lines] == [(("0", "1"), 10.0)]
    assert [asked.direction for asked in clock.asked] == ["forward", "forward", "step"]  # contiguous, channels_last
    assert (found.total("reference"), found.total("chosen"), found.step) == (20.0, 10.0, 10.0)
    text = str(found)
    assert "0 and 1 more  conv2d 1x2x5x5 by 2x2x3x3 float32        10.0      5.0  cuda" in text
    assert "all channels_last they would take PyTorch 20.0 us, as chosen 10.0 us" in text


def test_what_was_measured_before_an_interrupt_is_kept(cache: Path, device: str) -> None:  # noqa: F811
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.MaxPool2d(2)).to(device)
    clock = Clock()

    def interrupted(asked: object, makes: object) -> dict[str, float]:
        if len(clock.asked) == 1:
            raise KeyboardInterrupt
        return clock(asked, makes)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        cnnkernels.tune(model, images(device), training=False, timer=interrupted)
    (path,) = (cache / "tuned").glob("*.json")
    assert [choice.operator for choice in tuned.load(path).choices] == ["conv2d"]


def test_plans_are_timed_first_and_kept_in_the_same_table(cache: Path, device: str) -> None:  # noqa: F811
    """The second plan that is asked about is the fastest."""
    times = iter([50.0, 40.0])
    found = tune_layers(
        cnnkernels.nn.Conv2d(8, 16, 3, padding=1).to(device),
        torch.zeros(1, 8, 4, 4, device=device),
        training=False,
        timer=Clock(),
        plan_timer=lambda problem, backend, plan: next(times, 50.0),
    )
    assert found.path is not None
    table = tuned.load(found.path)
    (row,) = table.rows
    assert (row.direction, row.layout, row.microseconds) == ("forward", "nchw", 40.0) and row.geometry["c"] == 8
    assert tuned.plans(table.gpu, "cuda")[row.key] == row.plan and len(table.choices) == 2


def test_layers_are_replaced_and_tuned_at_once(cache: Path, served: list[str], device: str) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="example_input and tune=True come together, but got tune=True"):
        cnnkernels.replace_layers(conv(device), tune=True)
    with pytest.raises(ValueError, match="come together, but got tune=False"):
        cnnkernels.replace_layers(conv(device), example_input=images(device))
    if device == "cpu":
        with pytest.raises(ValueError, match="times kernels on a GPU, but the model's tensors are on cpu: move"):
            cnnkernels.replace_layers(nn.Sequential(nn.Conv2d(2, 2, 3)), example_input=images(device), tune=True)
        with pytest.raises(ValueError, match="times kernels on a GPU, but the model's tensors are on cpu: move"):
            cnnkernels.tune(nn.Sequential(nn.Conv2d(2, 2, 3)), images(device))
        assert not (cache / "tuned").exists()


def test_a_model_without_calls_is_refused(cache: Path, device: str) -> None:  # noqa: F811
    with pytest.raises(ValueError, match="no layer of the model that follows `auto` made a call"):
        cnnkernels.tune(nn.Linear(2, 2).to(device), torch.zeros(1, 2, device=device), timer=Clock())
    pinned = cnnkernels.nn.Conv2d(2, 2, 3).to(device)
    pinned.backend = "reference"
    with pytest.raises(ValueError, match="layers with a backend of their own"):
        cnnkernels.tune(pinned, images(device), timer=Clock())
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, not int"):
        cnnkernels.tune(3, images(device), timer=Clock())  # type: ignore[arg-type]


def test_a_picture_of_it(cache: Path, device: str, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("matplotlib")
    from cnnkernels.visualize import draw_tuning

    figure = draw_tuning(cnnkernels.tune(conv(device), images(device), training=False, timer=Clock()))
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [10.0, 5.0, 5.0]


def test_a_network_by_its_name(
    cache: Path,  # noqa: F811
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the layout and type that are asked for, without gradients."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "tune", functools.partial(cnnkernels.tune, timer=Clock()))
    table, picture = tmp_path / "table.json", tmp_path / "picture.png"
    words = ["tune", "small:network", "--input", "1,2,5,5", "--dtype", "bf16", "--layout", "nhwc", "--inference"]
    args = cli._parser().parse_args([*words, "--output", str(table), "--picture", str(picture)])
    made = nn.Sequential(nn.Conv2d(2, 2, 3))
    monkeypatch.setattr(command, "model_of", {"small:network": made}.__getitem__)
    assert command.network(args, device) == 0
    assert "conv2d 1x2x5x5 by 2x2x3x3 bfloat16 channels_last" in capsys.readouterr().out
    assert {choice.training for choice in tuned.load(table).choices} == {None}
    assert picture.stat().st_size > 1000 and not made.training
    args.input = None
    assert command.network(args, device) == 2
    assert "give an input of the network (--input)" in capsys.readouterr().err


def test_what_is_not_certified_is_not_timed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    timed: list[set[str]] = []

    class Noting(Clock):
        def __call__(self, asked: Asked, makes: Mapping[str, Any]) -> dict[str, float]:
            timed.append(set(makes))
            return super().__call__(asked, makes)

    def tuned_with(made: Certificate | None) -> Line:
        timed.clear()
        certified._held.clear()
        certified.forget()
        if made is not None:
            certified.hold(made)
        backends.forget()
        return tune_layers(conv("cpu"), images("cpu"), timer=Noting()).lines[0]

    monkeypatch.setattr(certified, "NEEDED", {"cpu"})
    try:
        line = tuned_with(None)
        assert line.failed == {"cuda": "its kernels are not proved on CPU: `cnnkernels prove` does it"}
        assert line.winner == "reference" and set.union(*timed) == {"reference"}
        line = tuned_with(certificate(cuda_conv_backward__weight_fma_fp32="wrong"))
        assert line.failed == {"cuda": "cuda conv backward_weight fma fp32 failed on CPU: wrong"}
        assert set.union(*timed) == {"reference"}
        line = tuned_with(certificate())
        assert line.winner == "cuda" and line.failed == {} and {"reference", "cuda"} in timed
    finally:
        certified._held.clear()
        monkeypatch.undo()
        certified.forget()
        backends.forget()
