"""Kernels with planted faults, and children that answer as a proof's would without any kernel."""

from __future__ import annotations

import ctypes
import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnkernels.certified import certificates
from cnnkernels.certified.certificates import Certificate
from cnnkernels.certified.families import FAMILIES, Family
from cnnkernels.dtypes import ELEMENTS

CPU = torch.device("cpu")
Launch = Callable[..., None]


def family(name: str) -> Family:
    return next(each for each in FAMILIES if str(each) == name)


def certificate(**failed: str) -> Certificate:
    """Of the interpreters, where all is certified but `failed`, by names with _ for a space and __ for _."""
    named = {name.replace("__", "-").replace("_", " ").replace("-", "_"): why for name, why in failed.items()}
    assert set(named) <= {str(each) for each in FAMILIES}
    families = {str(each): named.get(str(each), "") for each in FAMILIES}
    return Certificate(certificates.identity(CPU), certificates.now(), 1.0, families)


class Planted:
    """A backend's kernels, one of which is replaced by what a fault makes of it."""

    def __init__(self, kernels: Any, name: str, fault: Callable[..., None]) -> None:
        self._kernels, self._name, self._fault = kernels, name, fault

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy looks for its own before there are any kernels
            raise AttributeError(name)
        found = getattr(self._kernels, name)
        return functools.partial(self._fault, found) if name == self._name else found


# Of max_pool_forward(input, output, argmax, geometry, layout).
def one_element_of_a_tile(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    launch(x, y, *rest)
    if y.numel() > 1000:  # the one case of several tiles
        y[-1, -1, -1, -1] += 1


def writes_behind(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    launch(x, y, *rest)
    ctypes.memset(y.data_ptr() + y.numel() * y.element_size(), 0, 2)


def writes_before(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    launch(x, y, *rest)
    ctypes.memset(y.data_ptr() - 1, 7, 1)


def reads_behind(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    launch(x, y, *rest)
    y[0, 0, 0, 0] += ctypes.c_float.from_address(x.data_ptr() + x.numel() * x.element_size()).value


def leaves_one_out(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    before = y[0, 0, 0, 0].clone()
    launch(x, y, *rest)
    y[0, 0, 0, 0] = before


def drops_nan(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    launch(x, y, *rest)
    y.nan_to_num_(0)


def wrong_where_unaligned(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    launch(x, y, *rest)
    if x.data_ptr() % 16:
        y += 1


def wrong_in_a_thread(launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
    launch(x, y, *rest)
    if threading.current_thread() is not threading.main_thread():
        y += 1


def driver_call_fails(launch: Launch, *arguments: Any) -> None:
    raise RuntimeError("launching a kernel: an illegal memory access was encountered")


class WrongAfterAnother:
    """Right where it is called first, not after a problem of another size."""

    def __init__(self) -> None:
        self.before: torch.Size | None = None

    def __call__(self, launch: Launch, x: Tensor, y: Tensor, *rest: Any) -> None:
        launch(x, y, *rest)
        if self.before not in (None, x.shape):
            y += 1
        self.before = x.shape


def never_ends(launch: Launch, *arguments: Any) -> None:
    time.sleep(600)


def crashes(launch: Launch, *arguments: Any) -> None:
    ctypes.string_at(0)


# The child of a proof itself, real kernels and all, but for faults: [a method of the kernels, an element, a fault].
FAULTY_CHILD = """
import functools, json, sys
from cnnkernels import backends
from cnnkernels.proof import worker
from helpers import proving

kernels = backends.kernels
faults = [(name, element, getattr(proving, fault)) for name, element, fault in json.loads(sys.argv[1])]

@functools.cache
def planted(backend, kind):
    found = kernels(backend, kind)
    for name, element, fault in faults if backend == "cuda" else []:
        found = proving.Planted(found, name, proving.OfElement(element, fault() if isinstance(fault, type) else fault))
    return found

backends.kernels = planted
worker.main(sys.argv[2])
"""


class OfElement:
    """A fault of the kernels of one element alone."""

    def __init__(self, element: str, fault: Callable[..., None]) -> None:
        self._dtype, self._fault = ELEMENTS[element].dtype, fault

    def __call__(self, launch: Launch, *arguments: Any) -> None:
        if arguments[0].dtype is self._dtype:
            self._fault(launch, *arguments)
        else:
            launch(*arguments)


CHILD = """
import json, os, signal, sys, time
log, faults = sys.argv[1], json.loads(sys.argv[2])
print(json.dumps({"why_not": {"cuda": faults.get("cuda", ""), "triton": ""}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    name = " ".join(asked["family"])
    with open(log, "a") as file:
        file.write(f"{name}\\n")
    fault = faults.get(name, "")
    if fault == "never ends":
        time.sleep(600)
    if fault == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "is killed half-way through its answer":
        print('{"why": "', end="", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hangs half-way through its answer":
        print('{"why": "', end="", flush=True)
        time.sleep(600)
    if fault == "exits":
        sys.exit("CUDA error: device-side assert triggered")
    after = "another" if fault == "wrong after another" else ""
    why = "" if after and asked["only"] else fault
    print(json.dumps({"why": why, "trial": "a trial" if why else "", "after": after, "ran": 1}), flush=True)
"""


def child_with(log: Path, faults: dict[str, str]) -> tuple[str, ...]:
    """The command of a child that takes families down in a file, and has faults by their names."""
    return (sys.executable, "-c", CHILD, str(log), json.dumps(faults))


def faulty_child(*faults: tuple[str, str, str]) -> tuple[str, ...]:
    """The command of a proof's own child with planted faults: a method of the kernels, an element and a fault each."""
    return (sys.executable, "-c", FAULTY_CHILD, json.dumps(faults))
