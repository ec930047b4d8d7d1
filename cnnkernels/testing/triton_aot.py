"""Compiles the Triton kernels for GPUs that are not there, and reads what ptxas made of them.

A call of a backend function is made as usual, on meta tensors, but each launch in it stops once its kernel is
compiled. So what is compiled is what that call would run: the configuration that selection takes, the arguments'
specialisation (multiples of 16, ones) and all.

    with compiling(90) as kernels:
        triton_kernels.max_pool_forward(input, output, argmax, geometry, layout)
    kernels[0].registers, kernels[0].count("LDG")

Triton decides at the import of a kernel whether to interpret it, so this needs a process without TRITON_INTERPRET;
`compile_all` starts its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..dtypes import PRODUCTS
from ..epilogue import Epilogue
from ..geometry import Layout, argmax_dtype
from .cases import AVG_POOL2D, MAX_POOL2D, ConvCase, DepthwiseSeparableCase, PoolCase
from .int8_aot import Int8Call, WeightOnlyCall, int8_calls
from .norm_aot import NormCall, norm_calls
from .quantize_aot import Int8PoolCall, QuantizeCall, quantize_calls

ARCHITECTURES = (80, 90, 100)


@dataclass(frozen=True)
class Compiled:
    """One kernel as compiled for one architecture.

    `spill_bytes` is a thread's stack frame: a Triton kernel keeps nothing there but what did not fit its registers.
    """

    family: str
    name: str
    specialization: str
    arch: int
    threads: int
    registers: int
    spill_bytes: int
    shared_bytes: int
    sass: str
    ptx: str

    def count(self, pattern: str) -> int:
        """How many machine instructions have a mnemonic that starts with a regular expression: count("HMMA|HGMMA")."""
        return len(re.findall(rf"\*/\s+(?:@!?U?P\w+\s+)?(?:{pattern})", self.sass))


class _NoDevice:
    """Triton's driver where there is no device: it only says what to compile for. The device's number is the
    architecture's, as kernels are cached by device."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.arch, 32)

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def compiling(arch: int, family: str = "", specialization: str = "") -> Iterator[list[Compiled]]:
    """Within it a launch compiles its kernel for sm_`arch` and does nothing more; the list takes what was compiled.

    Raises:
        RuntimeError: in a process where Triton interprets.
    """
    import triton
    from triton.runtime.driver import driver

    if triton.knobs.runtime.interpret:
        raise RuntimeError("TRITON_INTERPRET is set: Triton compiles nothing in this process")
    compiled: list[Compiled] = []
    run = triton.JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        # the operator too, as every one has its forward_kernel: its package and the kernel's module
        operator = ".".join(self.fn.__module__.split(".")[-2:])
        compiled.append(_read(kernel, arch, family or operator, self.fn.__name__, specialization))
        return kernel

    active = driver._active
    triton.JITFunction.run = compile_only
    driver.set_active(_NoDevice(arch))
    try:
        yield compiled
    finally:
        driver._active = active
        triton.JITFunction.run = run


def _read(kernel: Any, arch: int, family: str, name: str, specialization: str) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = _cuobjdump("-res-usage", file.name)
        sass = _cuobjdump("-sass", file.name)
    found = dict(re.findall(r"(REG|STACK):(\d+)", usage))
    metadata = kernel.metadata
    return Compiled(
        family, name, specialization, arch, metadata.num_warps * 32, int(found["REG"]), int(found["STACK"]),
        metadata.shared, sass, kernel.asm["ptx"],
    )  # fmt: skip


def _cuobjdump(what: str, path: str) -> str:
    """The binary utility of triton's wheel."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [str(tools / "cuobjdump"), what, path]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


class Call(NamedTuple):
    """A call of a backend function for one architecture, on meta tensors. `configuration`: None leaves the choice to
    selection. `activation`: of a whole fused epilogue, for conv_forward."""

    op: str
    case: ConvCase | PoolCase | DepthwiseSeparableCase
    dtype: str
    layout: Layout
    arch: int
    configuration: Any = None
    activation: str = ""

    @property
    def specialization(self) -> str:
        tile = f" {self.configuration}" if self.configuration else ""
        reason = getattr(self.case, "depthwise", self.case).reason
        fused = f" fused {self.activation}" if self.activation else ""
        return f"{self.dtype} {self.layout.name.lower()} {reason}{fused}{tile}"

    def __call__(self) -> None:
        from .. import triton_kernels as kernels

        function = getattr(kernels, self.op)
        dtype, tf32 = PRODUCTS[self.dtype]

        def tensor(shape: tuple[int, ...], dtype: torch.dtype = dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device="meta").to(memory_format=self.layout.memory_format)

        case, layout = self.case, self.layout
        if isinstance(case, DepthwiseSeparableCase):
            biases = (torch.empty(size, dtype=dtype, device="meta") for size in (case.depthwise.k, case.filters))
            tensors = [tensor(shape) for shape in (case.input_shape, case.depthwise_shape, case.pointwise_shape)]
            if self.op == "depthwise_separable_conv_backward":
                errors = tensor(case.intermediate_shape), tensor(case.pointwise_shape)
                made_anew = next(biases), None
                flags = "relu6", 0.0, self.configuration
                function(tensor(case.output_shape), *tensors, *made_anew, *errors, case.geometry, layout, *flags)
                return
            written = tensor(case.output_shape), None
            flags = tf32, "relu6", "none", 0.0, self.configuration
            function(*tensors, *biases, *written, case.geometry, layout, *flags)
            return
        if isinstance(case, ConvCase):
            x, w, y = tensor(case.input_shape), tensor(case.weight_shape), tensor(case.output_shape)
            b = torch.empty(case.k, dtype=dtype, device="meta")
            if self.activation:
                fused = Epilogue(torch.empty_like(b), torch.empty_like(b), torch.empty_like(y), self.activation)
                function(x, w, b, y, case.geometry, layout, tf32, self.configuration, fused)
                return
            operator, _, product = self.op.rpartition("conv_")
            operands = {
                "forward": (x, w, b, y),
                "backward_input": (y, w, x),
                "backward_weight": (y, x, w),
                "backward_bias": (y, b),
            }[product]
            flags = (
                () if product == "backward_bias" else (self.configuration,) if operator else (tf32, self.configuration)
            )
            function(*operands, case.geometry, layout, *flags)
            return
        x, y = tensor(case.input_shape), tensor(case.output_shape)
        if "avg_pool" in self.op:
            pair = (x, y) if self.op.endswith("forward") else (y, x)
            function(*pair, case.geometry, layout, *(() if case.bins else (True, None)))
            return
        argmax = tensor(case.output_shape, argmax_dtype(*case.kernel))
        indices = tensor(case.output_shape, torch.int64)
        operands = {
            "max_pool_forward": (x, y, argmax, case.geometry),
            "max_pool_backward": (y, argmax, x, case.geometry),
            "max_pool_gather": (x, argmax, y, case.geometry),
            "max_pool_indices": (argmax, indices, case.geometry),
            "max_unpool_forward": (y, indices, tensor(case.input_shape, torch.int32), x),
            "max_unpool_backward": (x, indices, y),
        }[self.op]
        function(*operands, layout)


AnyCall = Call | Int8Call | WeightOnlyCall | QuantizeCall | Int8PoolCall | NormCall

CONV2D_PRODUCTS = ("forward", "backward_input", "backward_weight")
MAX_POOL2D_OPS = (
    "max_pool_forward",
    "max_pool_backward",
    "max_pool_gather",
    "max_pool_indices",
    "max_unpool_forward",
    "max_unpool_backward",
)
AVG_POOL2D_OPS = ("avg_pool_forward", "avg_pool_backward")
# Sizes as they occur: nothing is allocated.
WHOLE = ConvCase("3x3", 32, 256, 56, 56, 256, 3, 3, padding=(1, 1, 1, 1))
ODD = ConvCase("odd channels", 32, 255, 56, 56, 253, 3, 3, padding=(1, 1, 1, 1))
OTHER_CONV2D = (
    ConvCase("stem", 32, 3, 224, 224, 64, 7, 7, (2, 2), (3, 3, 3, 3)),
    ConvCase("1x1", 32, 256, 56, 56, 64, 1, 1),
    ConvCase("strided", 32, 128, 56, 56, 128, 3, 3, (2, 2), (1, 1, 1, 1)),
    ConvCase("narrow groups", 32, 96, 56, 56, 96, 7, 7, padding=(3, 3, 3, 3), groups=48),
    ConvCase("beyond 2^31 elements", 4096, 256, 56, 56, 256, 3, 3, padding=(1, 1, 1, 1)),
    ConvCase("an image beyond 2^31 elements", 2, 256, 3000, 3000, 256, 3, 3, padding=(1, 1, 1, 1)),
)
# Networks' layers: MobileNetV2, EfficientNet-B0, ConvNeXt-T, RepLKNet-31B.
DEPTHWISE_3X3 = ConvCase("depthwise 3x3", 32, 144, 56, 56, 144, 3, 3, padding=(1, 1, 1, 1), groups=144)
DEPTHWISE_7X7 = ConvCase("depthwise 7x7", 32, 96, 56, 56, 96, 7, 7, padding=(3, 3, 3, 3), groups=96)
OTHER_DEPTHWISE = (
    ConvCase("depthwise 3x3 strided", 32, 96, 112, 112, 96, 3, 3, (2, 2), (1, 1, 1, 1), groups=96),
    ConvCase("depthwise 5x5", 32, 240, 28, 28, 240, 5, 5, padding=(2, 2, 2, 2), groups=240),
    ConvCase("depthwise 31x31", 32, 128, 56, 56, 128, 31, 31, padding=(15, 15, 15, 15), groups=128),
)
DEPTHWISE_WIDE = ConvCase("depthwise beyond 2^31 elements", 8192, 144, 56, 56, 144, 3, 3, (1, 1), (1,) * 4, groups=144)
# MobileNetV2's depthwise and the 1x1 after it.
SEPARABLE = DepthwiseSeparableCase(DEPTHWISE_3X3, 24)
OTHER_SEPARABLE = (
    DepthwiseSeparableCase(ConvCase("fused 3x3 of 7x7", 32, 960, 7, 7, 960, 3, 3, (1, 1), (1,) * 4, groups=960), 320),
    DepthwiseSeparableCase(OTHER_DEPTHWISE[0], 24),
    DepthwiseSeparableCase(DEPTHWISE_7X7, 384),
)
ODD_DEPTHWISE = ConvCase("odd channels", 32, 35, 7, 7, 70, 3, 3, padding=(1, 1, 1, 1), groups=35)


def conv_candidates(op: str, case: ConvCase, dtype: str, layout: Layout, arch: int) -> list[Call]:
    """A call for every configuration that selection may take for a case."""
    from ..triton_kernels.conv.select import Problem, candidates

    problem = Problem(op, dtype, layout, case.geometry, "", arch)  # type: ignore[arg-type]
    return [Call(f"conv_{op}", case, dtype, layout, arch, c) for c in candidates(problem)]


def fused_conv_calls(layout: Layout, dtype: str, arch: int) -> list[Call]:
    """What selection takes for a fused epilogue, of activations with and without an exponential."""
    cases = (WHOLE, ODD, *OTHER_CONV2D) if dtype in ("fp32", "bf16") else (WHOLE, ODD)
    found = [Call("conv_forward", case, dtype, layout, arch, activation="relu") for case in cases]
    return [*found, Call("conv_forward", WHOLE, dtype, layout, arch, activation="gelu")]


def depthwise_conv_calls(layout: Layout, dtype: str, arch: int) -> list[Call]:
    """What selection takes for layers of each kernel size."""
    cases: tuple[ConvCase, ...] = (DEPTHWISE_3X3, DEPTHWISE_7X7)
    if dtype == "bf16":
        cases += (*OTHER_DEPTHWISE, DEPTHWISE_WIDE, ODD_DEPTHWISE)
    return [Call(f"depthwise_conv_{op}", case, dtype, layout, arch) for op in CONV2D_PRODUCTS for case in cases]


def depthwise_separable_conv_calls(layout: Layout, dtype: str, arch: int) -> list[Call]:
    cases = (SEPARABLE, *OTHER_SEPARABLE) if dtype in ("fp32", "bf16") else (SEPARABLE,)
    found = [Call("depthwise_separable_conv_forward", case, dtype, layout, arch) for case in cases]
    if dtype in ("fp32", "tf32"):  # whose backward is composed
        return found
    return found + [Call("depthwise_separable_conv_backward", case, dtype, layout, arch) for case in cases]


def avg_pool_calls(layout: Layout, dtype: str, arch: int) -> list[Call]:
    """Windows and bins of one divisor, and those that overhang and overlap; a plane in one part and in several."""
    cases = (*AVG_POOL2D[1:3], *AVG_POOL2D[-5:-1])
    ops = {case: [op if case.bins is None else f"adaptive_{op}" for op in AVG_POOL2D_OPS] for case in cases}
    return [Call(op, case, dtype, layout, arch) for case in cases for op in ops[case]]


def calls() -> list[AnyCall]:
    """Every kernel of every operator in every dtype and layout: each configuration on a usual size and on odd channels,
    and what selection takes at the sizes that lead down another path."""
    found: list[AnyCall] = []
    for arch in ARCHITECTURES:
        found += quantize_calls(arch)
        found += norm_calls(arch)
        found += int8_calls(arch, WHOLE, (ODD, *OTHER_CONV2D, DEPTHWISE_3X3, DEPTHWISE_7X7, *OTHER_DEPTHWISE))
        for layout in Layout:
            for dtype in PRODUCTS:
                for op in CONV2D_PRODUCTS:
                    for case in (WHOLE, ODD):
                        found += conv_candidates(op, case, dtype, layout, arch)
                    if dtype in ("fp32", "bf16"):
                        found += [Call(f"conv_{op}", case, dtype, layout, arch) for case in OTHER_CONV2D]
                found += fused_conv_calls(layout, dtype, arch)
                found += depthwise_separable_conv_calls(layout, dtype, arch)
                if dtype != "tf32":
                    found.append(Call("conv_backward_bias", WHOLE, dtype, layout, arch))
                    found += [Call(op, case, dtype, layout, arch) for op in MAX_POOL2D_OPS for case in MAX_POOL2D[1:3]]
                    found += avg_pool_calls(layout, dtype, arch)
                    found += depthwise_conv_calls(layout, dtype, arch)
    return found


def _interpret_nothing() -> None:
    """In a new process, before triton is imported."""
    for name in ("TRITON_INTERPRET", "CNNKERNELS_INTERPRET"):
        os.environ.pop(name, None)


def _compile(call: AnyCall) -> list[Compiled]:
    with compiling(call.arch, specialization=call.specialization) as kernels:
        call()
    return kernels


def compile_all(calls_: Iterable[AnyCall] | None = None, processes: int | None = None) -> Iterator[Compiled]:
    """Compiles what the calls launch (default: `calls()`), each distinct kernel once, in processes of its own."""
    spawn = multiprocessing.get_context("spawn")
    seen = set()
    with ProcessPoolExecutor(processes or os.cpu_count(), spawn, _interpret_nothing) as pool:
        for kernels in pool.map(_compile, calls() if calls_ is None else calls_, chunksize=4):
            for kernel in kernels:
                key = (kernel.family, kernel.name, kernel.arch, kernel.sass)
                if key not in seen:
                    seen.add(key)
                    yield kernel
