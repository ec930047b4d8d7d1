"""Which backend serves a call: cuda, triton, reference or auto.

`use_backend` asks for one in a scope, CNNKERNELS_BACKEND for a process; `choose` says which one serves a call,
why, and why the others do not. CNNKERNELS_INTERPRET=1 makes CPU tensors run the kernels in the interpreters, `ptx`
as nvcc and Triton compiled them in the emulator. Both variables are read once, when the package is imported.
On a GPU "auto" takes kernels that are certified there alone (`cnnkernels.certified`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from . import certified, package
from .certified import Proof
from .environment import interpreting
from .mixed import Mixed, Reference
from .native import BUILD_HINT, load
from .operators import OPERATOR_OF, Operator
from .records import tuned
from .records.measured import Measured, Recorder, measured
from .scope import BACKENDS, KERNEL_BACKENDS, Backend, Request, checked, requested, scope, traced
from .scope import use_backend as use_backend

OLDEST_CAPABILITY = (8, 0)


_ASKED = interpreting()
INTERPRETING = _ASKED != ""
CPU_MODULE: Literal["emulated", "interpreter"] = "emulated" if _ASKED == "ptx" else "interpreter"
if INTERPRETING and sys.modules.get("triton") is None:  # triton reads it when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "0" if _ASKED == "ptx" else "1")
# Its own library of kernels is made to be interpreted, or not, when triton is imported.
_TRITON_CAME_FIRST = "TRITON_INTERPRET" not in os.environ and _ASKED == "sources"
# Kernels that Triton does not interpret take CPU tensors in the emulator.
_TRITON_EMULATED = INTERPRETING and os.environ.get("TRITON_INTERPRET") != "1"

_jit_tracing = torch._C._get_tracing_state


class Problem(NamedTuple):
    """What the choice depends on; `capability` is the CUDA device's, None elsewhere; `proof` what its certificate says,
    None where none is asked for: of a device that is not at hand."""

    op: str
    device: str
    dtype: torch.dtype
    capability: tuple[int, int] | None = None
    proof: Proof | None = None


class Decision(NamedTuple):
    """The backend that serves a call and why; `backend` is None where the one asked for can not."""

    problem: Problem
    request: Request
    backend: Backend | None
    reason: str
    rejected: tuple[tuple[Backend, str], ...] = ()

    def __str__(self) -> str:
        op, device, dtype, *_ = self.problem
        lines = [f"{op} of {dtype} on {device}, asked for {self.request}: {self.backend or 'none'}, {self.reason}"]
        lines += [f"  not {name}: {why}" for name, why in self.rejected]
        return "\n".join(lines)


def _look_for(backend: Backend, device: str) -> str | None:
    if device == "cpu" and not INTERPRETING:
        return "CPU tensors run kernels only in the interpreter: set CNNKERNELS_INTERPRET=1"
    if backend == "triton":
        if device == "cpu" and _TRITON_CAME_FIRST:
            return "triton was imported before cnnkernels: set TRITON_INTERPRET=1 beside CNNKERNELS_INTERPRET=1"
        if device == "cuda" and INTERPRETING:
            return "CNNKERNELS_INTERPRET has Triton's kernels run on CPU tensors only"
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed: `pip install triton`"
        if device == "cpu" and _TRITON_EMULATED and not package.has("_emulator"):
            return f"cnnkernels._emulator is not built: {BUILD_HINT}"
        return None
    module = f"_{CPU_MODULE}" if device == "cpu" else "_cuda"
    if device == "meta" or package.has(module):
        return None
    return f"cnnkernels.{module} is not built: {BUILD_HINT}" + ", where nvcc is found" * module.endswith("emulated")


# A table, and made here, so that torch.compile reads constants.
_MISSING: dict[tuple[str, str], str | None] = {
    (backend, device): _look_for(backend, device) for backend in KERNEL_BACKENDS for device in ("cpu", "cuda", "meta")
}


def why_missing(backend: str, device: str) -> str | None:
    """Why this installation has no such kernels for a device type, None where it has."""
    return _MISSING.get((backend, device), f"there are no kernels for {device} tensors")


def _operator(op: str) -> Operator:
    if op not in OPERATOR_OF:
        raise ValueError(f"op must be one of {', '.join(OPERATOR_OF)}, but got {op!r}")
    return OPERATOR_OF[op]


def why_not(backend: Backend, problem: Problem) -> str | None:
    """Why a backend can not serve a problem, None where it can."""
    if backend == "reference":
        return None
    operator = _operator(problem.op)
    if backend not in operator.backends:
        return f"{backend} has no kernels of {problem.op}"
    missing = why_missing(backend, problem.device)
    if missing is not None:
        return missing
    dtypes = operator.dtypes
    if problem.dtype not in dtypes:
        *names, last, given = (str(dtype).removeprefix("torch.") for dtype in (*dtypes, problem.dtype))
        return f"the kernels take {', '.join(names)} and {last}, not {given}"
    if problem.capability is not None and problem.capability < OLDEST_CAPABILITY:
        return "the kernels need compute capability {}.{}, the device has {}.{}".format(
            *OLDEST_CAPABILITY, *problem.capability
        )
    return None


def why_not_taken(backend: Backend, problem: Problem) -> str | None:
    """Why "auto" does not take a backend, None where it may: it cannot serve, or is not certified."""
    why = why_not(backend, problem)
    return problem.proof.why_not(backend) if why is None and problem.proof is not None else why


def decide(problem: Problem, request: Request) -> Decision:
    """The choice as a pure function of the problem and of what was asked for.

    "auto" takes the first of cuda, triton, reference that can serve the call and, on a GPU, is certified there. A
    backend asked for by name serves it, certified or not, or none does.
    """
    proof = problem.proof
    if request != "auto":
        why = why_not(request, problem)
        if why is None:
            unproved = proof.why_not(request) if proof is not None else None
            return Decision(
                problem, request, request, "asked for by name" + (f", though {unproved}" if unproved else "")
            )
        return Decision(problem, request, None, why, ((request, why),))
    if problem.device == "meta":
        return Decision(problem, request, "reference", "meta tensors have no values to compute")
    rejected: list[tuple[Backend, str]] = []
    for backend in BACKENDS:
        why = why_not_taken(backend, problem)
        if why is None:
            reason = "the first of cuda, triton, reference that can"
            if proof is not None and backend != "reference":
                reason += f" and is certified on {proof.gpu}, {proof.since}"
            if backend == "reference":
                reason = f"PyTorch's own operator, as no kernel can{' and is certified' if proof is not None else ''}"
            elif problem.device == "cpu":
                emulated = _TRITON_EMULATED if backend == "triton" else CPU_MODULE == "emulated"
                reason += ", in the emulator" if emulated else ", in the interpreter"
            return Decision(problem, request, backend, reason, tuple(rejected))
        rejected.append((backend, why))
    raise AssertionError("unreachable: the reference serves everything")


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _with_index(device: torch.device) -> torch.device:
    """The current GPU where none is named: what is remembered of a device must not be of whichever was current."""
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return device


def problem_of(op: str, tensor: Tensor) -> Problem:
    """The problem that a call of `op` poses whose first tensor this is."""
    return problem_on(op, tensor.device, tensor.dtype)


def problem_on(op: str, device: torch.device, dtype: torch.dtype) -> Problem:
    """The same by the tensor's device and type."""
    capability = _capability(device) if device.type == "cuda" else None
    return Problem(op, device.type, dtype, capability, certified.proof(op, device, dtype))


def choose(problem: Problem, request: str | None = None) -> Decision:
    """Which backend serves a problem, why, and why the others do not; printable.

    Args:
        problem: `Problem("conv2d", "cuda", torch.bfloat16, (9, 0))`, or `problem_of("conv2d", input)`.
        request: "cuda", "triton", "reference" or "auto"; None takes what `use_backend` and CNNKERNELS_BACKEND say.

    Returns:
        The decision. Its `backend` is None where the one asked for by name can not serve the problem.

    Example:
        >>> problem = cnnkernels.backends.problem_of("conv2d", torch.zeros(1, 3, 8, 8))
        >>> cnnkernels.choose(problem, "reference").backend
        'reference'
    """
    return decide(problem, requested() if request is None else checked(request, "request"))


def serving(op: str, device: torch.device, dtype: torch.dtype) -> str | Measured:
    """The backend that serves a call here, or the table of measured calls that says which.

    Raises:
        NotImplementedError: where the kernels asked for do not take the tensor's dtype, and for an INT8 operator in an
            export to ONNX.
        RuntimeError: where the backend asked for by name can not serve the call for another reason.
    """
    if is_compiling() or _jit_tracing() is not None:
        if exporting_to_onnx():
            return _for_onnx(op)
        if is_compiling():
            if device.type in certified.NEEDED:
                return _certified_serving(op, device, dtype, traced.request)
            return _serving(op, device, dtype, traced.request)
    return remembered_serving(op, device, dtype, scope.get())


def traced_for_onnx() -> bool:
    """Whether the code at work is what torch.onnx.export traces."""
    return (is_compiling() or _jit_tracing() is not None) and exporting_to_onnx()


def exporting_to_onnx() -> bool:
    """Whether torch.onnx.export is tracing a model."""
    return torch.onnx.is_in_onnx_export()


# As torch.compiler.assume_constant_result does, without its import of torch._dynamo, which takes seconds: Dynamo calls
# the function then, where it would take PyTorch's own for False, also in an export.
exporting_to_onnx._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _for_onnx(op: str) -> Backend:
    """PyTorch's own operators, whichever backend is asked for: a graph in ONNX runs without any of them."""
    if _operator(op).int8:
        raise NotImplementedError(
            f"{op}: INT8 functions of cnnkernels can not be exported to ONNX; layers of cnnkernels.nn can"
        )
    return "reference"


def _serving(op: str, device: torch.device, dtype: torch.dtype, request: Request) -> Backend:
    decision = decide(problem_on(op, device, dtype), request)
    if decision.backend is None:
        kind = RuntimeError if dtype in _operator(op).dtypes else NotImplementedError
        raise kind(f"{op}: the {request} backend can not serve this call: {decision.reason}")
    certified.warn_of(decision.problem.proof, decision.backend, request)
    return decision.backend


@tuned.until_forgotten
@functools.cache
def remembered_serving(op: str, device: torch.device, dtype: torch.dtype, request: Request) -> str | Measured:
    """As `_serving`, but for "auto" what `cnnkernels tune` measured of the operator on this device, if anything."""
    if isinstance(request, Recorder):
        return request.of(op, dtype)
    backend = _serving(op, device, dtype, request)
    if request != "auto" or backend == "reference":
        return backend
    problem = problem_on(op, device, dtype)
    return measured(op, _with_index(device), backend, lambda name: why_not_taken(name, problem) is None)  # type: ignore[arg-type]


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """While entered, PyTorch's own operators serve what no backend is asked for by name, and its calls are noted."""
    recorder = Recorder()
    token = scope.set(recorder)  # type: ignore[arg-type]
    try:
        yield recorder
    finally:
        scope.reset(token)
        remembered_serving.cache_clear()  # it holds the recorder, and so the calls' tensors


# A constant to Dynamo, as above: it can not trace the reading of a certificate.
def _certified_serving(op: str, device: torch.device, dtype: torch.dtype, request: Request) -> Backend:
    return _serving(op, device, dtype, request)


_certified_serving._dynamo_marked_constant = True  # type: ignore[attr-defined]


def forget() -> None:
    """Has calls be decided anew, as certificates have changed."""
    remembered_serving.cache_clear()


def available_backends(device: str | torch.device | None = None) -> tuple[Backend, ...]:
    """The backends that can serve tensors on a device (default: cuda where there is one, else cpu), best first.

    Example:
        >>> "reference" in cnnkernels.available_backends()
        True
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = _with_index(torch.device(device))
    capability = _capability(device) if device.type == "cuda" and torch.cuda.is_available() else None
    problem = Problem("conv2d", device.type, torch.float32, capability)
    return tuple(backend for backend in BACKENDS if why_not(backend, problem) is None)


@functools.cache
def kernels(backend: str, device: str) -> Any:
    """A backend's kernels for a device type: an object with the functions of `native.NativeKernels`.

    Raises:
        ImportError: with the build command, where they were not built or installed.
    """
    if "/" in backend:
        return Mixed(*(Reference if name == "reference" else kernels(name, device) for name in backend.split("/")))
    if backend == "cuda":
        return load("cuda" if device == "cuda" else CPU_MODULE)
    if backend != "triton":
        raise ValueError(f"backend must be 'cuda' or 'triton', but got {backend!r}")
    missing = why_missing("triton", device)
    if missing is not None:
        raise ImportError(missing)
    if device == "cpu" and _TRITON_EMULATED:
        from .emulator import serve_triton

        serve_triton()
    return package.load("triton_kernels")
