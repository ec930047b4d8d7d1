"""One case: each provider's numbers, memory and reproducibility, then all providers' times in turns."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from cnnkernels.tuning.timing import Chain, GpuChain, HostChain, Patience, Timing, extra_memory, in_turns, input_sets

from .cases import Case
from .machine import Ceilings, Machine
from .providers import Provider
from .results import FAILED, LOST, MISSING, OK, WRONG, Record
from .verify import Reference, make_inputs, same_bits

# Of a case's inputs, outputs and gradients: what its sets, its fp64 reference and all providers' outputs take at most.
MEMORY_FACTOR = 8


class DeviceLost(RuntimeError):
    """The GPU answers nobody in this process any more."""


@dataclass(frozen=True)
class Bench:
    """What measures: the machine, its ceilings, and how long to sample."""

    machine: Machine
    ceilings: Ceilings
    patience: Patience
    session: int = 0
    tell: Callable[[str], None] = field(default=print)
    at_work: list[str] = field(default_factory=list)  # whom the GPU runs for now: for who watches that it does not hang

    def blank(self, case: Case, provider: str, status: str, reason: str = "") -> Record:
        """A record without measurements."""
        return Record(
            key=case.key,
            provider=provider,
            status=status,
            family=case.family,
            direction=case.direction,
            dtype=case.dtype,
            layout=case.layout.name.lower() if case.operator.layouts else "",
            shape=case.shape,
            batch=case.samples,
            networks=case.networks,
            flops=case.flops,
            bytes=case.bytes,
            floor=self.ceilings.floor(case.flops, case.bytes, case.dtype),
            reason=reason,
            session=self.session,
        )

    def measure(self, case: Case, providers: Sequence[Provider]) -> Iterator[Record]:
        """A record of every provider.

        Raises:
            DeviceLost: where the GPU does not recover from a provider's error; its record came before.
        """
        able = []
        for provider in providers:
            if reason := provider.refuses(case, self.machine.device):
                yield self.blank(case, provider.name, MISSING, reason)
            else:
                able.append(provider)
        if not able:
            return
        if MEMORY_FACTOR * case.bytes > self.machine.memory_bytes:
            yield from (self.blank(case, p.name, MISSING, "needs more memory than the GPU has") for p in able)
            return
        right: dict[str, Record] = {}
        try:
            reference = Reference(case, make_inputs(case, self.machine.device, seed=0))
        except Exception as error:
            yield from self._failed(case, able, "the reference: ", error)
            return
        for provider in able:
            self.at_work[:] = [provider.name]
            try:
                record = self._verify(case, provider, reference)
            except Exception as error:
                yield from self._failed(case, [provider], "", error)
                continue
            if record.status == OK:
                right[provider.name] = record
            else:
                yield record
        del reference
        chosen = [provider for provider in able if provider.name in right]
        timings: dict[str, Timing] = {}
        with self._chains(case, chosen) as (chains, broken):
            for provider, error in broken:
                yield from self._failed(case, [provider], "timing: ", error)
                right.pop(provider.name)
            self.at_work[:] = list(chains)
            try:
                timings = in_turns(chains, self.patience) if chains else {}
            except Exception as error:
                yield from self._failed(case, [p for p in chosen if p.name in right], "timing: ", error)
        for name, timing in timings.items():
            yield replace(right[name], **vars(timing))

    def _verify(self, case: Case, provider: Provider, reference: Reference) -> Record:
        """A provider's numbers, whether two runs agree, and what memory a run takes beside them."""
        verdict = reference.judge(provider)
        work = provider.setup(case, reference.inputs)
        first = work()
        reproducible = same_bits(first, work())
        del first
        extra = extra_memory(work) if self.machine.device == "cuda" else None
        record = self.blank(case, provider.name, OK if verdict.right else WRONG)
        if not verdict.right:
            reason = f"error {verdict.error:.3g}, allowed {verdict.allowed:.3g}"
            self.tell(f"WRONG {provider.name}: {case.key}: {reason}")
            record = replace(record, reason=reason)
        return replace(
            record,
            error=verdict.error,
            allowed=verdict.allowed,
            verified_samples=verdict.samples,
            reproducible=reproducible,
            extra_bytes=extra,
        )

    @contextlib.contextmanager
    def _chains(
        self, case: Case, providers: Sequence[Provider]
    ) -> Iterator[tuple[dict[str, Chain], list[tuple[Provider, Exception]]]]:
        """Each provider's launches over the same sets of inputs, and those that could not be set up."""
        gpu = self.machine.device == "cuda"
        sets = [make_inputs(case, self.machine.device, seed) for seed in range(self._sets(case))]
        stream: Any = torch.cuda.Stream() if gpu else None
        if gpu:
            torch.cuda.synchronize()
        chains: dict[str, Chain] = {}
        broken = []
        for provider in providers:
            self.at_work[:] = [provider.name]

            def make(index: int, provider: Provider = provider) -> Any:
                return provider.setup(case, sets[index])

            try:
                chains[provider.name] = GpuChain(make, len(sets), stream) if gpu else HostChain(make, len(sets))
            except Exception as error:
                broken.append((provider, error))
        try:
            yield chains, broken
        finally:
            chains.clear()
            sets.clear()
            if gpu:
                torch.cuda.empty_cache()

    def _sets(self, case: Case) -> int:
        return input_sets(case.bytes, self.machine.l2_bytes)

    def _failed(self, case: Case, providers: Sequence[Provider], where: str, error: Exception) -> Iterator[Record]:
        """A record of what went wrong; whether the GPU still answers decides how to go on."""
        text = f"{where}{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:300]
        lost = self.machine.device == "cuda" and not _answers()
        for provider in providers:
            self.tell(f"FAILED {provider.name}: {case.key}: {text}")
            yield self.blank(case, provider.name, LOST if lost else FAILED, text)
        if not isinstance(error, torch.OutOfMemoryError):
            self.tell("".join(traceback.format_exception(error)[-4:]).rstrip())
        if lost:
            raise DeviceLost(text) from error
        error.__traceback__ = None  # its frames hold tensors


def _answers() -> bool:
    """Whether the GPU still does what this process asks."""
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").sum().item()
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False
    return True
