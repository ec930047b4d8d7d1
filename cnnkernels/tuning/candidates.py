"""What is timed of a call: each backend's forward and gradients, on tensors of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import backends, mixed
from ..dtypes import dtype_name
from ..functional.arguments import as_axes, sides
from ..geometry import ConvGeometry, Layout
from ..operators import OPERATORS
from ..ops.checks import conv_geometry
from ..ops.conv_kernel import tf32_allowed
from ..ops.memory import layout_of
from .calls import Found, map_tensors, tensors_of
from .plans import MARGIN
from .problem import Problem
from .timing import QUICK, Chain, GpuChain, Work, in_turns, input_sets

Make = Callable[[int], Work]


class Asked(NamedTuple):
    """What a timer is asked about: a direction of a call, "forward", "backward_input", "backward_weight" (and what
    comes with it) or "backward" (all gradients); or of the whole model, the "step"."""

    operator: str
    direction: str
    call: Found | None
    bytes: int


# Microseconds of each backend: `make(i)` gives its work on the i-th of several sets of tensors.
Timer = Callable[[Asked, Mapping[str, Make]], Mapping[str, float]]


def names_for(found: Found) -> list[str]:
    """The backends that "auto" may take for a call here, PyTorch's own first."""
    problem = backends.problem_on(found.operator, found.device, found.dtype)
    return ["reference", *(name for name in backends.KERNEL_BACKENDS if not backends.why_not_taken(name, problem))]


def not_certified(found: Found) -> dict[str, str]:
    """The backends that can serve a call but are not certified for it here, and why: they are not timed."""
    problem = backends.problem_on(found.operator, found.device, found.dtype)
    able = [name for name in backends.KERNEL_BACKENDS if backends.why_not(name, problem) is None]
    return {name: why for name in able if (why := backends.why_not_taken(name, problem))}


def _is_convolution(found: Found) -> bool:
    """Transposed ones are, too."""
    return OPERATORS[found.operator].word in ("conv", "depthwise_conv")


def directions_of(found: Found, training: bool) -> dict[str, tuple[int, ...]]:
    """The directions to time, and of which tensors each gradient is: their places among the call's tensors."""
    wanted = [place for place, tensor in enumerate(tensors_of(found.arguments)) if training and tensor.requires_grad]
    directions: dict[str, tuple[int, ...]] = {"forward": ()}
    if not _is_convolution(found):
        return directions | ({"backward": tuple(wanted)} if wanted else {})
    if 0 in wanted:
        directions["backward_input"] = (0,)
    if others := tuple(place for place in wanted if place):
        directions["backward_weight"] = others
    return directions


def make_of(found: Found, backend: str, wanted: tuple[int, ...]) -> Make:
    """A backend's work on tensors of its own: the forward, or where gradients are wanted these alone."""

    def make(index: int) -> Work:
        arguments = map_tensors(_copy, found.arguments)
        if not wanted:

            def forward() -> Any:
                with torch.no_grad(), backends.use_backend(backend), _autocast(found):
                    return found.again(*arguments)

            return forward
        variables = [tensor for place, tensor in enumerate(tensors_of(arguments)) if place in wanted]
        for tensor in tensors_of(arguments):
            tensor.requires_grad_(any(tensor is variable for variable in variables))
        with torch.enable_grad(), backends.use_backend(backend), _autocast(found):
            output = tensors_of(found.again(*arguments))[0]
        grad = torch.ones_like(output)
        if found.grad_stride is not None and len(found.grad_stride) == grad.dim() and 0 not in found.grad_stride:
            grad = torch.empty_strided(grad.shape, found.grad_stride, dtype=grad.dtype, device=grad.device).fill_(1)
        return lambda: torch.autograd.grad(output, variables, grad, retain_graph=True)

    return make


def _copy(tensor: Tensor) -> Tensor:
    if 0 in tensor.stride():
        return tensor.detach().clone()
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    return made.copy_(tensor.detach())


def _autocast(found: Found) -> contextlib.AbstractContextManager[Any]:
    dtype = found.key[0]
    device = found.device.type
    return torch.autocast(device, dtype) if dtype is not None else torch.autocast(device, enabled=False)


def fastest(times: Mapping[str, float]) -> str | None:
    """PyTorch's own operator, unless a backend is faster by more than what timings scatter by; None of no times."""
    if not times:
        return None
    best = min(times, key=times.__getitem__)
    reference = times.get("reference")
    return "reference" if reference is not None and reference <= MARGIN * times[best] else best


def served_in_training(found: Found, times: Mapping[str, Mapping[str, float]]) -> str | None:
    """Who serves a call whose gradients are wanted: of a convolution each direction's fastest, else one for all."""
    if len(times) < 2:
        return None
    geometry = geometry_of(found)
    if geometry is None or not mixed.reference_serves(geometry):
        complete = set.intersection(*(set(by_backend) for by_backend in times.values()))
        return fastest({name: sum(by_backend[name] for by_backend in times.values()) for name in sorted(complete)})
    forward = fastest(times["forward"])
    parts = [fastest(times.get(direction, {})) or forward for direction in mixed.DIRECTIONS]
    if None in parts:
        return None
    if "transpose" in found.operator:  # its forward is the kernels' backward_input, and the other way round
        parts[:2] = parts[1], parts[0]
    return str(parts[0]) if len(set(parts)) == 1 else "/".join(map(str, parts))


def geometry_of(found: Found) -> ConvGeometry | None:
    """Of the convolution that the kernels compute; None where it is none."""
    if not _is_convolution(found):
        return None
    rank = 1 if found.operator.endswith("1d") else 2
    input, weight = found.arguments[:2]
    planes, filters = (
        (*(1,) * (rank + 2 - t.dim()), *t.shape[: t.dim() - rank], *(1,) * (2 - rank), *t.shape[t.dim() - rank :])
        for t in (input, weight)
    )
    op = found.operator
    if "transpose" in op:
        _, _, _, stride, padding, more, groups, dilation, _ = found.arguments
        steps, pads, extra, apart = (as_axes(op, "", given, rank) for given in (stride, padding, more, dilation))
        around = tuple(side for pad, add in zip(pads, extra, strict=True) for side in (pad, pad - add))
        extents = [
            (size - 1) * s + d * (taps - 1) + 1 - before - after
            for size, taps, s, d, before, after in zip(
                planes[-rank:], filters[-rank:], steps, apart, around[::2], around[1::2], strict=True
            )
        ]
        image = planes[0], filters[1] * groups, *(1,) * (2 - rank), *extents
        mode = "zeros"
    else:
        _, _, _, stride, padding, dilation, groups, _, mode, _ = found.arguments
        steps, apart = as_axes(op, "stride", stride, rank), as_axes(op, "dilation", dilation, rank)
        around, image = sides(op, weight.shape[-rank:], steps, padding, apart), planes
    front = 2 - rank
    return conv_geometry(
        image, filters, (1,) * front + tuple(steps), (0, 0) * front + tuple(around), (1,) * front + tuple(apart),
        groups, mode,
    )  # fmt: skip


def problems_of(found: Found, directions: Mapping[str, Any]) -> list[Problem]:
    """What the plans of a convolution's directions are chosen for."""
    geometry = geometry_of(found)
    dtype = found.key[0] or found.arguments[0].dtype
    if geometry is None or not mixed.reference_serves(geometry):
        return []
    either = [layout_of(t) for t in found.arguments[:2] if t.dim() == 4]
    layout = Layout.NHWC if Layout.NHWC in either else Layout.NCHW
    swapped = {"forward": "backward_input", "backward_input": "forward"} if "transpose" in found.operator else {}
    name = dtype_name(dtype, tf32_allowed(dtype))
    return [Problem(swapped.get(direction, direction), name, layout, geometry) for direction in directions]


@contextlib.contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """While entered, cuDNN tries its algorithms for each new shape, as whoever wants it fast has it do."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def timed_on_gpu(asked: Asked, makes: Mapping[str, Make]) -> dict[str, float]:
    """Medians of launches with cold caches, backends in turns."""
    sets = input_sets(asked.bytes, torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size)
    stream: Any = torch.cuda.Stream()
    chains: dict[str, Chain] = {name: GpuChain(make, sets, stream) for name, make in makes.items()}
    return {name: timing.median for name, timing in in_turns(chains, QUICK).items()}
