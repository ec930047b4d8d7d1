"""`cnnkernels demo --int8`: the digit network, trained in floating point, then quantized to INT8 without training.

The INT8 network runs on every backend. Its sums are integers and its other operations are rounded one by one, so all
backends must give the reference's scores bit for bit; and of the digits held back it must recognise as many as the
float network, but for half a point.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .. import backends
from ..quantization import Quantization, quantize
from .demo import Digits, chosen_backends, load_digits, network, quiet_pytorch, trained

ALLOWED = 0.5  # points of accuracy
CALIBRATION = 256  # digits that the ranges are taken from
OBSERVERS = ("minmax", "percentile", "entropy", "mse")


class Answer(NamedTuple):
    """What a network made of the digits held back: its scores, the share it got right, and how long it took."""

    name: str
    scores: Tensor
    accuracy: float
    seconds: float


def _ask(name: str, model: torch.nn.Module, digits: Digits) -> Answer:
    started = time.perf_counter()
    with torch.no_grad():
        scores = model(digits.held_images)
    accuracy = (scores.argmax(1) == digits.held_labels).double().mean().item()
    return Answer(name, scores, accuracy, time.perf_counter() - started)


def _show(device: str, exact: Answer, answers: Sequence[Answer], reference: Tensor, result: Quantization) -> bool:
    """Prints the table; whether all is well."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "accuracy", "points", "bytes", "smaller", "time", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    table.add_row(
        exact.name, f"{exact.accuracy:.1%}", "", f"{result.float_bytes}", "", f"{exact.seconds:.1f} s"
    )  # fmt: skip
    well = True
    for answer in answers:
        points = 100 * (answer.accuracy - exact.accuracy)
        faults = []
        if not points >= -ALLOWED:
            faults.append("inaccurate")
        if not torch.equal(answer.scores, reference):
            faults.append("differs")
        well = well and not faults
        table.add_row(
            answer.name,
            f"{answer.accuracy:.1%}",
            f"{points:+.2f}",
            f"{result.int8_bytes}",
            f"{result.float_bytes / result.int8_bytes:.2f}x",
            f"{answer.seconds:.1f} s",
            f"[red]{', '.join(faults)}[/]" if faults else "[green]ok[/]",
        )
    console = Console()
    console.print(table)
    where = "on the GPU" if device == "cuda" else "on no GPU: the times are not what one takes"
    console.print(
        f"Accuracy: on the {len(reference)} digits held back, ranges from {CALIBRATION} of the others. ok: at most "
        f"{ALLOWED} points lost, and the scores are the reference's bit for bit. The kernels ran {where}.",
        highlight=False,
    )
    return well


def run(names: Sequence[str] | None, device: str, epochs: int, seed: int, output: str) -> int:
    """Trains, quantizes, asks every backend (None: all that run here), prints the table, writes the picture.

    Returns:
        0 where every backend keeps within half a point of the float network's accuracy and to the reference's bits,
        else 1; 2 where there is no backend, or a package is missing that the demo needs.
    """
    try:
        import rich  # noqa: F401
        import sklearn  # noqa: F401

        from . import demo_int8_figure
    except ImportError as error:
        print(f"cnnkernels demo: {error.name} is missing: `pip install 'cnnkernels[demo]'`", file=sys.stderr)
        return 2
    if (chosen := chosen_backends(names, device)) is None:
        return 2
    digits = load_digits(seed, device)
    print(f"{len(digits.labels)} handwritten digits to learn, {len(digits.held_labels)} held back")
    torch.manual_seed(seed)
    with quiet_pytorch():
        model = trained("torch.nn", network(torch.nn).to(device), digits, epochs, seed, lambda loss: None).model
        model.float().eval()
        digits = Digits(digits.images.float(), digits.labels, digits.held_images.float(), digits.held_labels)
        exact = _ask("torch.nn, float32", model, digits)
        with backends.use_backend("reference"):
            results = {name: quantize(model, digits.images[:CALIBRATION], observer=name) for name in OBSERVERS}
            result = results["minmax"]
            reference = _ask("INT8, reference", result.model, digits)
            noise = {name: made.signal_to_noise(digits.held_images) for name, made in results.items()}
        answers = [reference]
        for name in chosen:
            with backends.use_backend(name):
                answers.append(_ask(f"INT8, {name}", result.model, digits))
    print(result)
    well = _show(device, exact, answers, reference.scores, result)
    demo_int8_figure.draw(output, model, result, noise, digits.held_images)
    print(f"wrote {output}")
    return 0 if well else 1
