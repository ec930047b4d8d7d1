"""Certificates: which families of kernels proved themselves on a GPU, as `cnnkernels prove` found.

One is a JSON file in the user's cache folder (CNNKERNELS_CACHE, else XDG_CACHE_HOME/cnnkernels, else
~/.cache/cnnkernels) and holds for exactly one `Identity`: another GPU, driver, build or version has another file.
CNNKERNELS_CACHE may name several folders: all are read, the first that can be written to is written to.

    {"format": 1, "identity": {"gpu": "NVIDIA H200", ...}, "date": "2026-11-30T22:05:11+00:00", "seconds": 41.0,
     "families": {"cuda conv forward mma bf16": "", "cuda conv forward wgmma bf16": "it took more than 30 s"}}

A family is certified where nothing stands beside it, else the text says why it is not.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..package import NAME
from ..records import cache

FORMAT = 1
PACKAGE = Path(__file__).resolve().parent.parent


class Identity(NamedTuple):
    """What a certificate holds for. `kernels`: of the native module and of Triton's sources, as digests."""

    gpu: str
    capability: str
    processors: int
    driver: str
    kernels: str
    torch: str
    triton: str


class Certificate(NamedTuple):
    """`families`: by name, empty where one is certified, else why it is not."""

    identity: Identity
    date: str
    seconds: float
    families: dict[str, str]

    @property
    def failed(self) -> dict[str, str]:
        return {name: why for name, why in self.families.items() if why}

    def __str__(self) -> str:
        good = len(self.families) - len(self.failed)
        lines = [f"{self.identity.gpu}: {good} of {len(self.families)} families of kernels certified, {self.since}"]
        return "\n".join([*lines, *(f"  not {name}: {why}" for name, why in self.failed.items())])

    @property
    def since(self) -> str:
        return f"proved {self.date.replace('T', ' ')[:16]} UTC"


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@functools.cache
def _kernels(module: str) -> str:
    """Of a build: the head of the native module, where its linker's build ID is, and its size; every Triton source."""
    digest = hashlib.sha256()
    spec = importlib.util.find_spec(f"{NAME}.{module}")
    if spec is not None and spec.origin:
        with open(spec.origin, "rb") as file:
            digest.update(file.read(1 << 16))
            digest.update(str(os.fstat(file.fileno()).st_size).encode())
    triton = importlib.util.find_spec(f"{NAME}.triton_kernels")
    for folder in [] if triton is None else sorted(triton.submodule_search_locations or []):
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _driver() -> str:
    """Its release where the kernel module says it, else the CUDA that it serves."""
    with contextlib.suppress(OSError):
        if found := re.search(r"Module\s+(?:for \S+\s+)?([\d.]+)", Path("/proc/driver/nvidia/version").read_text()):
            return found[1]
    get = getattr(torch._C, "_cuda_getDriverVersion", None)  # not of a PyTorch without CUDA
    return f"CUDA {get()}" if get else "none"


def _triton() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def identity(device: torch.device) -> Identity:
    """Of a GPU; of the CPU, of what interprets the kernels there. A slice of a GPU (MIG) is one of its own, by its
    name and its processors."""
    if device.type != "cuda":
        return Identity("CPU", "none", 0, "none", _kernels("_interpreter"), torch.__version__, _triton())
    gpu = torch.cuda.get_device_properties(device)
    return Identity(
        gpu.name, f"{gpu.major}.{gpu.minor}", gpu.multi_processor_count, _driver(), _kernels("_cuda"),
        torch.__version__, _triton(),
    )  # fmt: skip


def file_name(of: Identity) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", of.gpu.lower()).strip("-")
    return f"{plain}-{hashlib.sha256(json.dumps(of).encode()).hexdigest()[:12]}.json"


def read(path: Path, of: Identity | None = None) -> Certificate:
    """A certificate of `of`, or of whichever GPU it is.

    Raises:
        ValueError: with what is wrong in it.
    """
    data: Any = json.loads(path.read_text())
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    given = data.get("identity")
    if not isinstance(given, dict) or set(given) != set(Identity._fields):
        raise ValueError("it does not say what it is of")
    if of is not None and given != of._asdict():
        raise ValueError("it is of another GPU, driver or version")
    families: Any
    date, seconds, families = (data.get(name) for name in ("date", "seconds", "families"))
    whole = isinstance(families, dict) and all(isinstance(why, str) for why in families.values())
    if not (whole and isinstance(date, str) and isinstance(seconds, int | float)):
        raise ValueError("it has no date, seconds or families")
    return Certificate(Identity(**given), date, float(seconds), families)


def load(of: Identity) -> Certificate | None:
    """The certificate of a GPU; a file that is none is passed over with a warning."""
    for folder in cache.folders():
        path = folder / file_name(of)
        try:
            return read(path, of)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:  # json's and UTF-8's errors are ValueErrors
            warnings.warn(f"cnnkernels: {path} is no certificate, and ignored: {error}", stacklevel=2)
    return None


def save(certificate: Certificate) -> Path | None:
    """Writes it whole or not at all, and says where; None, with a warning, where no folder takes it."""
    text = json.dumps({"format": FORMAT, "identity": certificate.identity._asdict()} | _rest(certificate), indent=1)
    refused = []
    for folder in cache.folders():
        path = folder / file_name(certificate.identity)
        try:
            cache.write(path, text + "\n")
            return path
        except OSError as error:
            refused.append(f"{folder}: {error.strerror or error}")
    why = "; ".join(refused)
    warnings.warn(
        f"cnnkernels: the certificate holds for this process alone, as it cannot be kept: {why}", stacklevel=2
    )
    return None


def _rest(certificate: Certificate) -> dict[str, Any]:
    return {name: value for name, value in certificate._asdict().items() if name != "identity"}


@contextlib.contextmanager
def lock(of: Identity) -> Iterator[bool]:
    """Held by one process of this user on this machine at a time, gone with it however it ends; says whether it had to
    wait. It lies among temporary files, as a cache may be read-only."""
    path = Path(tempfile.gettempdir(), f"cnnkernels-{os.getuid()}-{file_name(of)}.lock")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # nowhere to write: each process makes its own
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = False
        except BlockingIOError:
            fcntl.flock(handle, fcntl.LOCK_EX)
            waited = True
        yield waited
    finally:
        os.close(handle)
