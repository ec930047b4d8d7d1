"""A convolution to be explained or tuned: one direction of one geometry in one type and layout, and its floor."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import torch

from .. import package
from ..dtypes import ELEMENTS
from ..geometry import ConvGeometry, Layout
from ..native import load


class Problem(NamedTuple):
    """direction is "forward", "backward_input" or "backward_weight"; dtype one of `cnnkernels.dtypes.PRODUCTS`."""

    direction: str
    dtype: str
    layout: Layout
    geometry: ConvGeometry

    @property
    def input_size(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return g.n, g.c, g.h, g.w

    @property
    def weight_size(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return g.k, g.c // g.groups, g.r, g.s

    @property
    def output_size(self) -> tuple[int, int, int, int]:
        g = self.geometry
        return g.n, g.k, g.p, g.q

    @property
    def is_empty(self) -> bool:
        """Whether no kernel is launched, as a batch of 0 has nothing to compute."""
        return 0 in self.input_size or 0 in self.output_size

    @property
    def operations(self) -> int:
        """Multiplications and additions, of products with padding too."""
        g = self.geometry
        return 2 * g.n * g.p * g.q * g.k * (g.c // g.groups) * g.r * g.s

    @property
    def bytes(self) -> int:
        """Input, filter and output, each once."""
        return ELEMENTS[self.dtype].dtype.itemsize * sum(
            map(math.prod, (self.input_size, self.weight_size, self.output_size))
        )


class Floor(NamedTuple):
    """What a GPU cannot be faster than: its rates (FLOP/s, bytes/s) and the seconds they make."""

    rate: float
    bandwidth: float
    arithmetic: float
    memory: float

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory)


def host_module() -> Any:
    """The native module that every installation has: selection is a function on the host."""
    return load("interpreter").module


def machine(name: str | None) -> Any:
    """A machine of csrc/common/gpu.h: the one called `name`, in any case and with any spaces or dashes; else the
    GPU at hand; else an H200. It has wgmma unless the build was made for GPUs without it.

    Raises:
        ValueError: no machine is called so; the error has all names.
    """
    module = host_module()
    built = package.load("_cuda") if package.has("_cuda") else None
    if name is not None or not torch.cuda.is_available():
        plain = re.sub(r"[\s_-]", "", name or "h200").lower()
        known = next((one for one in module.gpus() if one.name == plain), None)
        found = known or module.gpu_named(name)
        found.wgmma = built is None or "sm_90a" in built.built_for
        return found
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
    found = module.gpu_like(gpu.name, 10 * gpu.major + gpu.minor, gpu.multi_processor_count)
    found.wgmma = built is None or built.this_gpu().wgmma  # what is loaded, which is not all that was built
    return found


def floor(problem: Problem, machine: Any) -> Floor:
    """The floor on a machine of csrc/common/gpu.h, at the shares of the data sheet's rates that are assumed to be
    within reach."""
    module = host_module()
    peak = {
        "fp64": machine.fma64, "fp32": machine.fma32, "tf32": machine.tensor_tf32,
        "fp16": machine.tensor16, "bf16": machine.tensor16,
    }[problem.dtype]  # fmt: skip
    rate, bandwidth = module.reached_of_peak * peak, module.reached_of_memory * machine.memory
    return Floor(rate, bandwidth, problem.operations / rate, problem.bytes / bandwidth)


def triton_problem(problem: Problem, name: str, arch: int) -> Any:
    """As the launcher in triton_kernels/conv/launch.py asks."""
    from ..triton_kernels.conv import launch as conv2d
    from ..triton_kernels.conv import select as conv_select

    g = conv2d.plain(problem.geometry)
    g = g if problem.direction == "backward_weight" else g._replace(n=1)
    return conv_select.Problem(problem.direction, problem.dtype, problem.layout, g, name, arch)  # type: ignore[arg-type]


def depthwise_problem(problem: Problem, arch: int) -> Any:
    """As the launcher in triton_kernels/depthwise_conv/launch.py asks."""
    from ..triton_kernels.depthwise_conv import select

    size = ELEMENTS[problem.dtype].dtype.itemsize
    return select.Problem(problem.direction, size, problem.layout, problem.geometry, arch)  # type: ignore[arg-type]


def chosen_whole(found: Any) -> Any | None:
    """The candidate that serves a problem as a whole, before its implicit GEMMs; None where they serve it."""
    if found.chosen_grouped >= 0:
        return found.grouped[found.chosen_grouped]
    return found.wgmma[found.chosen_wgmma] if found.chosen_wgmma >= 0 else None
