"""The runtime without a device, as built, and with another archive beside it."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from helpers.native import emulated_tests as emulated_tests

# Of CUDA's driver_types.h.
SUCCESS, INVALID_VALUE, INVALID_CONFIGURATION, INVALID_FUNCTION = 0, 1, 9, 98
NO_IMAGE, INVALID_HANDLE, OUT_OF_RESOURCES, LAUNCH_FAILURE = 209, 400, 701, 719
NOT_SUPPORTED, INVALID_CLUSTER = 801, 912
MAX_DYNAMIC_SHARED, NON_PORTABLE_CLUSTER = 8, 14

_copies = itertools.count()


def kernel(module: ModuleType, word: str) -> str:
    """The mangled name of the one kernel with that word."""
    (name,) = [name for name in module.cuda.kernels() if word in name]
    return name


def with_archive(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> ModuleType:
    """A copy of the tests' module, with a runtime of its own, beside an archive whose index is changed."""
    module = emulated_tests()
    path = Path(module.__file__)
    room = folder / f"copy{next(_copies)}"  # a name of its own, or the module that is there is found again
    room.mkdir()
    shutil.copy(path, room)
    with zipfile.ZipFile(path.with_name("_emulated_tests.zip")) as files:
        index = json.loads(files.read("index.json"))
        change(index)
        with zipfile.ZipFile(room / "_emulated_tests.zip", "w") as changed:
            for name in files.namelist():
                changed.writestr(name, json.dumps(index) if name == "index.json" else files.read(name))
    spec = importlib.util.spec_from_file_location(f"{room.name}._emulated_tests", room / path.name)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy
