"""The project's environment variables: what each is for, and how a switch is read.

Imports nothing but Python's own library, as setup.py reads it before anything is installed.
`python cnnkernels/environment.py` prints the tables of docs/environment.md.
"""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

ON, OFF = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
SWITCH = "switch"


class Variable(NamedTuple):
    values: str
    default: str
    what: str


RUNNING = {
    "CNNKERNELS_BACKEND": Variable(
        "`auto`, `cuda`, `triton`, `reference`", "`auto`", "who computes, where no `use_backend` says otherwise"
    ),
    "CNNKERNELS_INTERPRET": Variable(
        "switch, or `ptx`",
        "off",
        "CPU tensors run the kernels in the interpreters (sets `TRITON_INTERPRET=1`; where that is 0, Triton's run in "
        "the emulator); `ptx`: as nvcc and Triton compiled them, in the emulator",
    ),
    "CNNKERNELS_EMULATED_GPU": Variable(
        "`a100`, `rtx3090`, `rtx4090`, `h100`, `h200`, `rtx5090`", "`h200`", "the GPU that the emulator stands for"
    ),
    "CNNKERNELS_CACHE": Variable(
        "folders, `:` between them",
        "`cnnkernels` in `XDG_CACHE_HOME`, else in `~/.cache`",
        "where certificates and measured choices lie; the first that can be is written to",
    ),
    "CNNKERNELS_TUNED": Variable("files, `:` between them", "none", "more tables that `cnnkernels tune` wrote"),
    "CNNKERNELS_NATIVE_DIR": Variable(
        "a folder", "the package", "where to load the native modules from: `build/thread`, `build/address`"
    ),
    "CNNKERNELS_SCHEDULE": Variable(
        "`ordered`, `reversed`, `random`",
        "`ordered`",
        "the interpreter and the emulator: whose turn is next, and the order of blocks",
    ),
    "CNNKERNELS_DELIVERY": Variable(
        "`late`, `random`, `early`",
        "`late`",
        "the interpreter and the emulator: when an asynchronous copy arrives",
    ),
    "CNNKERNELS_SEED": Variable(
        "a number", "`0`", "the interpreter and the emulator: the seed of everything random, per block"
    ),
    "CNNKERNELS_THREADS": Variable(
        "a number", "`0`", "OS threads of the emulator and, at most 16, of the interpreter; `0` is as many as cores"
    ),
}
BUILDING = {
    "CXX": Variable("a command", "`c++`", "the C++20 compiler, options too: `CXX=g++-12`"),
    "NVCC": Variable("a command", "`nvcc`", "the CUDA compiler, looked for in `PATH`, then in `CUDA_HOME`"),
    "CUDA_HOME": Variable("a folder", "`/usr/local/cuda`", "the CUDA toolkit"),
    "MAX_JOBS": Variable("a number", "as many as cores", "compilers that run at the same time"),
    "CNNKERNELS_BUILD_CUDA": Variable(SWITCH, "on where nvcc is found", "compile the kernels for GPUs as well"),
    "CNNKERNELS_CUDA_ARCHS": Variable(
        "architectures, `;` between them", "`80;90+PTX`", "what to compile them for; `+PTX` for what is newer, too"
    ),
    "CNNKERNELS_BUILD_TESTS": Variable(SWITCH, "off", "build the kernels of `tests/csrc`"),
    "CNNKERNELS_DEBUG": Variable(SWITCH, "off", "build the interpreter's module for gdb"),
    "CNNKERNELS_SANITIZE": Variable(
        "`thread`, `address`", "none", "the interpreter's module, into `build/<sanitizer>`: `make sanitize`"
    ),
}
MEASURING = {
    "CNNKERNELS_COMMIT": Variable("a name", "what git says", "`cnnkernels bench`: the commit its results are noted by"),
    "CNNKERNELS_BENCH_DEADLINE": Variable("a time", "none", "`cnnkernels bench` sets it for itself when it restarts"),
}
VARIABLES = RUNNING | BUILDING | MEASURING


def flag(name: str, *others: str) -> bool | None:
    """A switch's state, None where it is not set or empty. `others`: words that the caller has looked for.

    Raises:
        ValueError: its value is no word for on or off.
    """
    value = os.environ.get(name, "")
    if value.lower() in ON:
        return True
    if value.lower() in OFF:
        return False
    if value:
        raise ValueError(f"{name} must be one of {', '.join((*ON, *OFF, *others))}, but got {value!r}")
    return None


def interpreting() -> Literal["", "sources", "ptx"]:
    """What CPU tensors run the kernels by: nothing, the interpreters or the emulator.

    Raises:
        ValueError: CNNKERNELS_INTERPRET is neither `ptx` nor a word for on or off.
    """
    name = "CNNKERNELS_INTERPRET"
    if os.environ.get(name, "").lower() == "ptx":
        return "ptx"
    return "sources" if flag(name, "ptx") else ""


def table(variables: dict[str, Variable]) -> str:
    lines = ["| variable | values | default | what |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {v.values} | {v.default} | {v.what} |" for name, v in variables.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(*map(table, (RUNNING, BUILDING, MEASURING)), sep="\n", end="")
