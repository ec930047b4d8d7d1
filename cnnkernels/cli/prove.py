"""`cnnkernels prove`: tests every kernel on the GPU at hand and keeps the certificate that "auto" goes by."""

from __future__ import annotations

import sys
import time

import torch

from .. import backends
from ..certified import certificates
from ..certified.families import FAMILIES, Family
from ..proof import run as proof
from ..records import cache


def chosen(words: list[list[str]] | None) -> list[Family]:
    """The families whose names have all words of one of the lists; all where there are none."""
    if not words:
        return list(FAMILIES)
    return [each for each in FAMILIES if any(set(some) <= set(each) for some in words)]


def run(again: bool, only: list[list[str]] | None, names: bool) -> int:
    """Proves each kind of GPU; 0 where all is certified, 1 where something is not, 2 where there is no GPU.

    With CNNKERNELS_INTERPRET=1 the interpreters stand for one. `only`: families to try, without a certificate. `names`:
    print them alone.
    """
    families = chosen(only)
    if not families:
        print(
            "cnnkernels prove: no family of kernels has these words; `cnnkernels prove --list` names all",
            file=sys.stderr,
        )
        return 2
    if names:
        print(*families, sep="\n")
        return 0
    if backends.INTERPRETING:
        devices = [torch.device("cpu")]
    elif torch.cuda.is_available():
        devices = proof.gpus()
    else:
        print(f"cnnkernels prove: {proof.certified.without_gpu()}", file=sys.stderr)
        return 2
    failed = 0
    for device in devices:
        started = time.perf_counter()
        if only:
            found = proof.try_families(device, families)
            print(*(f"{name}: {why or 'right'}" for name, why in found.items()), sep="\n")
            failed += any(found.values())
            continue
        made = proof.prove_device(device, families, again=again)
        print(f"{made}\n  {time.perf_counter() - started:.0f} s; kept as {certificates.file_name(made.identity)} in")
        print(*(f"  {folder}" for folder in cache.folders()), sep="\n")
        failed += bool(made.failed)
    return 1 if failed else 0
