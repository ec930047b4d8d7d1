"""Whole networks: images a second and peak memory, with PyTorch's layers and with ours, eager and compiled.

The same network with the same weights, channels_last, on random images. A training step is forward, cross-entropy,
backward and SGD with momentum, under autocast; inference runs the network in the type itself. What a provider computes
is first compared with fp64 on small images: the root mean square error of outputs and gradients may be twice that of
PyTorch's eager layers.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cnnkernels import backends, replace_layers
from cnnkernels.dtypes import ELEMENTS, HALF_DTYPES
from cnnkernels.testing.numerics import UNIT_ROUNDOFF
from cnnkernels.tuning.timing import HostChain, Patience, in_turns

from .measure import Bench
from .networks import NETWORKS, Network
from .providers import flags
from .results import FAILED, OK, WRONG, Results
from .summary import table

MODES = ("inference", "training")
# Providers that are timed in turns: all of a group are on the GPU together.
GROUPS = (("torch", "cuda", "triton"), ("torch", "torch compiled", "cuda compiled"))
SMALL = (4, 64)  # images of the comparison with fp64, and their size
PATIENCE = Patience(samples=10, seconds=1.0, most_samples=30, most_seconds=4.0, fewest_samples=3, warm_up=1)


@dataclass(frozen=True)
class Measured:
    """One provider's network in one mode. Times in microseconds a step, memory in bytes."""

    network: str
    mode: str
    dtype: str
    provider: str
    batch: int
    status: str
    reason: str = ""
    median: float | None = None
    p20: float | None = None
    p80: float | None = None
    peak_bytes: int | None = None
    error: float | None = None
    allowed: float | None = None
    swapped: int = 0
    kept: int = 0
    session: int = 0

    @property
    def images_a_second(self) -> float | None:
        return 1e6 * self.batch / self.median if self.median else None

    @property
    def name(self) -> tuple[str, str, str, str]:
        return self.network, self.mode, self.dtype, self.provider


def layers_of(provider: str, model: nn.Module) -> tuple[nn.Module, int, int]:
    """A copy of the network with a provider's layers, and how many of the field's were swapped and kept."""
    model = copy.deepcopy(model)
    backend = provider.split()[0]
    swapped = kept = 0
    if backend != "torch":
        replacement = replace_layers(model, backend=backend)
        model, swapped, kept = replacement.model, len(replacement.swapped), len(replacement.kept)
    return model, swapped, kept


def step_of(
    provider: str, model: nn.Module, mode: str, dtype: str, images: Tensor, labels: Tensor
) -> Callable[[], Any]:
    """One step of a network, as a call; parameters change from step to step when training."""
    run = torch.compile(model) if provider.endswith("compiled") else model
    kind = ELEMENTS[dtype].dtype
    if mode == "inference":

        def infer() -> Tensor:
            with torch.inference_mode():
                return run(images)

        model.to(kind).eval()
        images = images.to(kind)
        return infer
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def train() -> Tensor:
        loss = loss_of(run, dtype, images, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return train


def _autocast(dtype: str, device: str) -> contextlib.AbstractContextManager[Any]:
    mixed = ELEMENTS[dtype].dtype in HALF_DTYPES
    return torch.autocast(device, dtype=ELEMENTS[dtype].dtype) if mixed else contextlib.nullcontext()


def loss_of(run: Callable[..., Tensor], dtype: str, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the network's outputs."""
    with _autocast(dtype, images.device.type):
        outputs = run(images)
    return nn.functional.cross_entropy(outputs.to(torch.promote_types(outputs.dtype, torch.float32)), labels)


def results_of(model: nn.Module, mode: str, dtype: str, images: Tensor, labels: Tensor) -> list[Tensor]:
    """What is compared: the outputs, or the loss and the gradients of the first and the last parameters."""
    if mode == "inference":
        with torch.no_grad():
            return [model.eval()(images)]
    parameters = list(model.train().parameters())
    loss = loss_of(model, dtype, images, labels)
    gradients = torch.autograd.grad(loss, (parameters[0], parameters[-1]))
    return [loss.detach(), *gradients]


def _rms(values: Tensor) -> float:
    return values.double().square().mean().sqrt().item()


class Truth:
    """A network's results in fp64 and PyTorch's own in the type, on small images."""

    def __init__(self, model: nn.Module, network: Network, mode: str, dtype: str, device: str) -> None:
        self.mode, self.dtype = mode, dtype
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # else nobody drops the same
        self.images, self.labels = network.inputs(*SMALL, device, seed=1)
        self.truth = results_of(copy.deepcopy(self.model).double(), mode, "fp32", self.images.double(), self.labels)
        self.theirs = self._results("torch")

    def _results(self, provider: str) -> list[Tensor]:
        model, _, _ = layers_of(provider, self.model)
        images = self.images
        if self.mode == "inference":
            model, images = model.to(ELEMENTS[self.dtype].dtype), images.to(ELEMENTS[self.dtype].dtype)
        return results_of(model, self.mode, self.dtype, images, self.labels)

    def judge(self, provider: str) -> tuple[float, float]:
        """The error and its allowance where they come closest. A compiled network is judged as its eager layers."""
        worst = (-1.0, 0.0, 0.0)
        for actual, theirs, truth in zip(self._results(provider), self.theirs, self.truth, strict=True):
            error = _rms(actual.double() - truth)
            allowed = 2 * _rms(theirs.double() - truth) + UNIT_ROUNDOFF[ELEMENTS[self.dtype].dtype] * _rms(truth)
            worst = max(worst, (math.inf if math.isnan(error) else error / allowed, error, allowed))
        return worst[1:]


class Step:
    """A network's step as what the timer samples."""

    launches, graph = 1, False

    def __init__(self, run: Callable[[], Any], gpu: bool) -> None:
        self.run = run
        self.gpu = gpu

    def sample(self) -> float:
        if not self.gpu:
            return HostChain(lambda _: self.run, 1).sample()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.run()
        end.record()
        end.synchronize()
        return 1e3 * start.elapsed_time(end)


def _peak(step: Callable[[], Any], before: int) -> int:
    """Bytes at the peak of a step beyond `before`, what was there without the network."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(
    name: str, mode: str, dtype: str, providers: Sequence[str], bench: Bench, patience: Patience = PATIENCE
) -> Iterator[Measured]:
    """Each provider's numbers and memory, then all providers' times in turns."""
    network, device = NETWORKS[name], bench.machine.device
    gpu = device == "cuda"
    torch.manual_seed(0)
    model = network.make().to(device).to(memory_format=torch.channels_last)
    images, labels = network.inputs(network.batch, network.size, device)
    steps: dict[str, Step] = {}
    found: dict[str, Measured] = {}
    with flags(tf32=dtype == "tf32", benchmark=True):
        truth = Truth(model, network, mode, dtype, device)
        for provider in providers:
            blank = Measured(name, mode, dtype, provider, network.batch, OK, session=bench.session)
            try:
                error, allowed = truth.judge(provider)
                if not error <= allowed:
                    reason = f"error {error:.3g}, allowed {allowed:.3g}"
                    bench.tell(f"WRONG {provider}: {name} {mode} {dtype}: {reason}")
                    yield replace(blank, status=WRONG, reason=reason, error=error, allowed=allowed)
                    continue
                before = torch.cuda.memory_allocated() if gpu else 0
                own, swapped, kept = layers_of(provider, model)
                step = step_of(provider, own, mode, dtype, images, labels)
                for _ in range(2):
                    step()
                peak = _peak(step, before) if gpu else None
            except Exception as failure:
                reason = f"{type(failure).__name__}: {str(failure).strip().splitlines()[0] if str(failure) else ''}"[
                    :300
                ]
                bench.tell(f"FAILED {provider}: {name} {mode} {dtype}: {reason}")
                yield replace(blank, status=FAILED, reason=reason)
                continue
            steps[provider] = Step(step, gpu)
            found[provider] = replace(blank, error=error, allowed=allowed, peak_bytes=peak, swapped=swapped, kept=kept)
        timings = in_turns(steps, patience) if steps else {}
    for provider, timing in timings.items():
        yield replace(found[provider], median=timing.median, p20=timing.p20, p80=timing.p80)


def able(provider: str, device: str) -> bool:
    """Whether this installation has the provider's kernels."""
    backend = provider.split()[0]
    return backend == "torch" or backend in backends.available_backends(device)


def run_all(
    names: Sequence[str], dtypes: Sequence[str], bench: Bench, results: Results, late: Callable[[], bool]
) -> tuple[list[Measured], list[str]]:
    """Every network, mode and type, eager before compiled; also names what there was no time for."""
    done = {
        (e["network"], e["mode"], e["dtype"], e["provider"])
        for e in results.extras
        if e["kind"] == "network" and e["status"] == OK and _same(results, e["session"])
    }
    measured: list[Measured] = []
    cut = []
    for group in GROUPS:
        for name in names:
            for mode in MODES:
                for dtype in dtypes:
                    providers = [p for p in group if able(p, bench.machine.device)]
                    if all((name, mode, dtype, p) in done for p in providers):
                        continue
                    if late():
                        cut.append(f"{name} {mode} {dtype}: {', '.join(providers)}")
                        continue
                    for one in measure(name, mode, dtype, providers, bench):
                        results.add_extra("network", asdict(one))
                        measured.append(one)
                    bench.tell("\n".join(table_of([asdict(one) for one in measured[-len(providers) :]])[1:]))
                    if bench.machine.device == "cuda":
                        torch.cuda.empty_cache()
                        torch._dynamo.reset()
    return measured, cut


def _same(results: Results, session: int) -> bool:
    """Whether a session is of the sources of the last one, the current one."""
    earlier, now = results.sessions[session], results.sessions[-1]
    return all(earlier.get(word) == now.get(word) for word in ("gpu", "sources", "torch"))


HEADER = ("network", "mode", "type", "layers", "batch", "ms", "images/s", "x torch", "peak GB")


def table_of(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Networks as a table; the later of two measurements of the same counts."""
    words = Measured.__dataclass_fields__
    latest = {one.name: one for entry in entries if (one := Measured(**{k: v for k, v in entry.items() if k in words}))}
    lines = []
    for one in latest.values():
        eager = latest.get((*one.name[:3], "torch"))
        cells = [one.mode, one.dtype, one.provider, str(one.batch)]
        if one.median is None:
            lines.append([one.network, *cells, one.status, "-", "-", "-"])
            continue
        ratio = f"{eager.median / one.median:.2f}" if eager is not None and eager.median else "-"
        peak = f"{one.peak_bytes / 1e9:.2f}" if one.peak_bytes is not None else "-"
        lines.append([one.network, *cells, f"{one.median / 1e3:.2f}", f"{one.images_a_second:.0f}", ratio, peak])
    return table(HEADER, lines)
