"""What the certificates of the GPUs at hand say to selection: which backends are certified for an operator, and which
engines give way to the next. Each GPU's is read once a process."""

from __future__ import annotations

import functools
import warnings
from typing import Any, Literal, NamedTuple

import torch

from .. import package
from ..dtypes import ELEMENTS
from ..native import load
from . import certificates
from .absent import why_no_gpu
from .certificates import Certificate
from .families import FAMILIES, Family, needed

COMMAND = "cnnkernels prove"
# Whose tensors no kernel takes unproved; those of the interpreters stand for no GPU.
NEEDED = {"cuda"}

# Devices, backends and words whose fp32 products are not rounded to TF32, as that failed.
WITHOUT_TF32: set[tuple[torch.device, str, str]] = set()

_gave_way: dict[torch.device, list[Family]] = {}
_held: dict[certificates.Identity, Certificate] = {}  # made by this process: kept where no folder takes them


def without_gpu() -> str:
    """What is said where there is nothing to prove the kernels on."""
    return f"PyTorch sees no GPU to prove the kernels on: {why_no_gpu()}"


class Proof(NamedTuple):
    """What is known of an operator and type on a GPU. `since` is empty where there is no certificate; `missing`: by
    backend, why it is not certified."""

    gpu: str
    since: str
    missing: tuple[tuple[str, str], ...] = ()

    def why_not(self, backend: str) -> str | None:
        """Why a backend is not certified, None where it is; PyTorch's own operators need no proof."""
        if backend == "reference":
            return None
        if not self.since:
            return f"its kernels are not proved on {self.gpu}: `{COMMAND}` does it"
        return dict(self.missing).get(backend)


def hold(made: Certificate) -> None:
    """Goes by a certificate in this process, whether or not it could be kept."""
    _held[made.identity] = made
    forget()


def forget() -> None:
    """Has certificates read again."""
    certificate.cache_clear()
    proof.cache_clear()


@functools.cache
def certificate(device: torch.device) -> Certificate | None:
    """Of a device; engines that failed there give way from now on."""
    of = certificates.identity(device)
    found = _held.get(of) or certificates.load(of)
    if found is not None:
        _give_way(found, device)
    return found


def _give_way(found: Certificate, device: torch.device) -> None:
    """On that device alone. What gave way by an earlier certificate is taken again first."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    failed = [family for family in FAMILIES if family.gives_way and str(family) in found.failed]
    for family in _gave_way.pop(device, []):
        _set(family, device, False)
    for family in failed:
        _set(family, device, True)
    _gave_way[device] = failed


def _set(family: Family, device: torch.device, gives_way: bool) -> None:
    name: Literal["cuda", "interpreter"] = "cuda" if device.type == "cuda" else "interpreter"
    if family.element == "tf32" and family.engine in ("mma", "dot"):
        (WITHOUT_TF32.add if gives_way else WITHOUT_TF32.discard)((device, family.backend, family.word))
    elif family.backend == "cuda" and package.has(f"_{name}"):
        native: Any = load(name)
        code = ELEMENTS[family.element].code
        native.give_way(family.word, family.direction, family.engine, code, device.index or 0, gives_way)


@functools.cache
def proof(op: str, device: torch.device, dtype: torch.dtype) -> Proof | None:
    """What the device's certificate says of an operator; None where no proof is asked for."""
    if device.type not in NEEDED:
        return None
    if device.type == "cuda" and not torch.cuda.is_available():  # of a tensor that is not there
        return None
    found = certificate(device)
    gpu = certificates.identity(device).gpu
    if found is None:
        return Proof(gpu, "")
    missing = [(backend, why) for backend in ("cuda", "triton") if (why := _missing(found, op, dtype, backend))]
    return Proof(gpu, found.since, tuple(missing))


def _missing(found: Certificate, op: str, dtype: torch.dtype, backend: str) -> str:
    try:
        families = needed(op, dtype, backend)
    except KeyError:  # a type that no kernel takes
        return ""
    failed = [(family, found.families.get(str(family), "it was not tried")) for family in families]
    bad = [f"{family} failed on {found.identity.gpu}: {why}" for family, why in failed if why]
    return bad[0] + (f" (and {len(bad) - 1} more: `cnnkernels info`)" if len(bad) > 1 else "") if bad else ""


_warned: set[str] = set()


def warn_of(proof: Proof | None, backend: str, request: str) -> None:
    """Once each: that a GPU has no certificate, and that a backend asked for by name is not certified there."""
    if proof is None or request == "reference":
        return
    if request == "auto":
        text = f"PyTorch's own operators serve on {proof.gpu}, as the kernels are not proved there: run `{COMMAND}`, or"
        text = "" if proof.since else f"{text} cnnkernels.prove()"
    else:
        why = proof.why_not(backend)
        text = f"the {backend} backend was asked for by name and runs, though {why}" if why else ""
    if text and text not in _warned:
        _warned.add(text)
        warnings.warn(f"cnnkernels: {text}", stacklevel=5)
