"""`cnnkernels demo`: handwritten digits learned on our kernels, step for step beside torch.nn.

The same network from the same start sees the same batches, once in torch.nn and once on each backend. In exact
arithmetic the losses would be equal; here they may differ by rounding, and rounding grows as training goes on. How
far it carries is measured on torch.nn itself, by Monte Carlo arithmetic (D. S. Parker, 1997): a sum of K products
computed in floating point is the exact sum of operands that are off by about sqrt(K) u each, u the unit roundoff
(N. J. Higham, T. Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019). So
torch.nn's network is trained a few times more with every parameter off by as much at every step, K being the longest
sum of the training step. A backend whose losses stay closer to torch.nn's than the furthest of these twins differs
by rounding; one that goes further computes something else.

All of it in double precision: in single precision rounding decides, about once in such a training, which of two
nearly equal numbers max-pool takes; from there the losses part by 1e-3 to 1e-1 though nothing is wrong.
"""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import backends, nn
from ..testing.numerics import UNIT_ROUNDOFF

BATCH = 32
CHANNELS = (16, 32)
LEARNING_RATE = 0.15
TWINS = 8
ENOUGH = 0.95  # of the digits held back
DTYPE = torch.float64


class Digits(NamedTuple):
    """Images [N, 1, 8, 8] in [0, 1] and labels [N], four fifths to train on and one fifth held back."""

    images: Tensor
    labels: Tensor
    held_images: Tensor
    held_labels: Tensor


class Run(NamedTuple):
    """One network's training: the loss before every step, the trained network, what it got right, how long it took."""

    name: str
    losses: Tensor
    model: torch.nn.Sequential
    accuracy: float
    seconds: float

    def distance(self, other: Run) -> Tensor:
        """How far the losses are apart at each step."""
        return (self.losses - other.losses).abs()


def load_digits(seed: int, device: str) -> Digits:
    """The 1797 digits that scikit-learn ships (E. Alpaydin, C. Kaynak, UCI, 1998), split at random."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images / 16).to(DTYPE).unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    held, train = order[: len(order) // 5], order[len(order) // 5 :]
    return Digits(*(t.to(device) for t in (images[train], labels[train], images[held], labels[held])))


def network(layers: object) -> torch.nn.Sequential:
    """Two convolutions, each with ReLU and max-pooling, and a linear layer: 8x8 digits to ten scores.

    `layers` is cnnkernels.nn or torch.nn; both start alike from one seed.
    """
    narrow, wide = CHANNELS
    return torch.nn.Sequential(
        layers.Conv2d(1, narrow, 3, padding=1),  # type: ignore[attr-defined]
        torch.nn.ReLU(),
        layers.MaxPool2d(2),  # type: ignore[attr-defined]
        layers.Conv2d(narrow, wide, 3, padding=1),  # type: ignore[attr-defined]
        torch.nn.ReLU(),
        layers.MaxPool2d(2),  # type: ignore[attr-defined]
        torch.nn.Flatten(),
        torch.nn.Linear(wide * 2 * 2, 10),
    ).to(DTYPE)


def longest_sum() -> int:
    """The longest of the sums a training step is made of: the first convolution's backward_weight, over N P Q."""
    return BATCH * 8 * 8


def train(
    model: torch.nn.Sequential,
    digits: Digits,
    epochs: int,
    seed: int,
    after_step: Callable[[float], None],
    perturb: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Stochastic gradient descent with Nesterov's momentum; the batches depend on the seed alone.

    Args:
        after_step: called with each loss.
        perturb: called with each parameter after each step.

    Returns:
        The loss before each step, fp64.
    """
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9, nesterov=True)
    per_epoch = len(digits.labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=epochs * per_epoch, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(len(digits.labels), generator=generator).to(digits.labels.device)
        for batch in order[: per_epoch * BATCH].split(BATCH):
            loss = F.cross_entropy(model(digits.images[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if perturb is not None:
                for parameter in parameters:
                    perturb(parameter)
            losses.append(loss.item())
            after_step(losses[-1])
    return torch.tensor(losses, dtype=torch.float64)


def trained(
    name: str,
    model: torch.nn.Sequential,
    digits: Digits,
    epochs: int,
    seed: int,
    after_step: Callable[[float], None],
) -> Run:
    """Trains a model and asks it for the digits held back."""
    started = time.perf_counter()
    losses = train(model, digits, epochs, seed, after_step)
    with torch.no_grad():
        right = model(digits.held_images).argmax(1) == digits.held_labels
    accuracy = right.double().mean().item()
    return Run(name, losses, model, accuracy, time.perf_counter() - started)


def rounding_twins(
    start: torch.nn.Sequential, digits: Digits, epochs: int, seed: int, after_step: Callable[[float], None]
) -> list[Tensor]:
    """The losses of torch.nn's network trained with its parameters off by sqrt(K) u at every step, TWINS times."""
    size = math.sqrt(longest_sum()) * UNIT_ROUNDOFF[DTYPE]
    curves = []
    for twin in range(TWINS):
        generator = torch.Generator(digits.images.device).manual_seed(twin)

        def perturb(parameter: Tensor, generator: torch.Generator = generator) -> None:
            noise = torch.empty_like(parameter).uniform_(-1, 1, generator=generator)
            with torch.no_grad():
                parameter.addcmul_(parameter, noise, value=size)

        model = copy.deepcopy(start)
        for parameter in model.parameters():
            perturb(parameter)
        curves.append(train(model, digits, epochs, seed, after_step, perturb))
    return curves


@contextlib.contextmanager
def quiet_pytorch() -> Iterator[None]:
    """PyTorch on one thread, as the network is too small to share, and reproducible on a GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(deterministic=True):
            yield
    finally:
        torch.set_num_threads(threads)


def _show(device: str, theirs: Run, runs: Sequence[Run], allowed: float) -> bool:
    """Prints the table; whether all is well."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "last loss", "distance", "allowed", "accuracy", "time", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    table.add_row("torch.nn", f"{theirs.losses[-1]:.4f}", "", "", f"{theirs.accuracy:.1%}", f"{theirs.seconds:.1f} s")
    well = True
    for run in runs:
        distance = run.distance(theirs).max().item()
        faults = []
        if not distance <= allowed:  # also where it is NaN
            faults.append("strays")
        if run.accuracy < ENOUGH:
            faults.append(f"below {ENOUGH:.0%}")
        well = well and not faults
        table.add_row(
            run.name,
            f"{run.losses[-1]:.4f}",
            f"{distance:.1e}",
            f"{allowed:.1e}",
            f"{run.accuracy:.1%}",
            f"{run.seconds:.1f} s",
            f"[red]{', '.join(faults)}[/]" if faults else "[green]ok[/]",
        )
    console = Console()
    console.print(table)
    where = "on the GPU" if device == "cuda" else "on no GPU: the times are not what one takes"
    console.print(
        "Distance: the largest between a loss and torch.nn's at the same step. Allowed: that of the furthest of "
        f"{TWINS} runs of torch.nn with rounding added at every step. Accuracy: on the digits held back. "
        f"The kernels ran {where}.",
        highlight=False,
    )
    return well


def chosen_backends(names: Sequence[str] | None, device: str) -> list[str] | None:
    """The backends asked for, or all that have kernels here; None where one cannot run or there is none, told of."""
    available: list[str] = [name for name in backends.available_backends(device) if name != "reference"]
    for name in available if names is None else names:
        if name not in available:
            decision = backends.choose(backends.Problem("conv2d", device, torch.float32), name)
            print(f"cnnkernels demo: the {name} backend cannot run here: {decision.reason}", file=sys.stderr)
            return None
    if not available:
        print("cnnkernels demo: no backend has kernels here; `cnnkernels info` says why", file=sys.stderr)
    return (available if names is None else list(dict.fromkeys(names))) or None


def run(names: Sequence[str] | None, device: str, epochs: int, seed: int, output: str) -> int:
    """Trains on every backend asked for (None: all that run here), prints the table, writes the picture.

    Returns:
        0 where every backend stays with torch.nn and recognises 95 % of the digits held back, else 1; 2 where there
        is no backend, or a package is missing that the demo needs.
    """
    try:
        import sklearn  # noqa: F401
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from . import demo_figure
    except ImportError as error:
        print(f"cnnkernels demo: {error.name} is missing: `pip install 'cnnkernels[demo]'`", file=sys.stderr)
        return 2
    if (chosen := chosen_backends(names, device)) is None:
        return 2

    digits = load_digits(seed, device)
    torch.manual_seed(seed)
    start = network(torch.nn).to(device)
    steps = epochs * (len(digits.labels) // BATCH)
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
    )
    print(f"{len(digits.labels)} handwritten digits to learn, {len(digits.held_labels)} held back")
    with quiet_pytorch(), Progress(*columns) as progress:

        def bar(description: str, total: int) -> Callable[[float], None]:
            task = progress.add_task(description, total=total, loss="")
            return lambda loss: progress.update(task, advance=1, loss=f"loss {loss:.4f}")

        theirs = trained("torch.nn", copy.deepcopy(start), digits, epochs, seed, bar("torch.nn", steps))
        after_step = bar(f"torch.nn's rounding, {TWINS} x", TWINS * steps)
        twins = rounding_twins(start, digits, epochs, seed, after_step)
        runs = []
        for name in chosen:
            model = network(nn).to(device)
            model.load_state_dict(start.state_dict())
            with backends.use_backend(name):
                runs.append(trained(name, model, digits, epochs, seed, bar(f"cnnkernels, {name}", steps)))
    allowed = max((curve - theirs.losses).abs().max().item() for curve in twins)
    well = _show(device, theirs, runs, allowed)
    with backends.use_backend(chosen[0]):
        demo_figure.draw(output, theirs, runs, twins, digits)
    print(f"wrote {output}")
    return 0 if well else 1
