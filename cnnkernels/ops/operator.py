"""An operator in the dispatcher, and eager's short way around it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet

from ..package import NAME

LIBRARY = torch.library.Library(NAME, "FRAGMENT")
OPERATORS = getattr(torch.ops, NAME)

# Everything that marks a plain CPU or CUDA tensor. Any other key (fake, functional, batched, negated, sparse, a
# subclass, ...) needs the dispatcher.
_PLAIN = 0
for _key in ("CPU", "CUDA", "AutogradCPU", "AutogradCUDA", "ADInplaceOrView", "AutocastCPU", "AutocastCUDA"):
    _PLAIN |= DispatchKeySet(getattr(DispatchKey, _key)).raw_repr()
_OTHER = ~_PLAIN

_keys = torch._C._dispatch_keys
_functorch_active = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack
_jit_tracing = torch._C._get_tracing_state

# Under torch.jit.trace each size is a tensor, and each check of one warns that it will not be traced. PyTorch leaves
# these warnings out for its own checks.
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=rf"{NAME}\.")


def _plain(args: tuple[Any, ...]) -> bool:
    """Whether nobody looks on (a dispatch mode, a trace) and every tensor is a plain one."""
    if _dispatch_modes() > 0 or _jit_tracing() is not None:
        return False
    for arg in args:  # noqa: SIM110, a loop takes half the time of all()
        if isinstance(arg, Tensor) and _keys(arg).raw_repr() & _OTHER:
            return False
    return True


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor's values may be looked at: it is no part of a trace, a batch or another transformation."""
    return not torch.compiler.is_compiling() and not _functorch_active() and _plain((tensor,))


class Operator:
    """One operator `torch.ops.cnnkernels.<name>`, called like a function.

    Args:
        schema: the operator's signature in PyTorch's schema language.
        run: computes on plain tensors of one device.
        fake: makes outputs of the same shape, dtype and strides as `run` without values.
        vmap: the batching rule, as `torch.library.register_vmap` takes it.
        setup_context, backward: the derivative, as `torch.library.register_autograd` takes them.
        jvp: (inputs, outputs, their tangents or None) -> the outputs' tangents, for forward-mode differentiation.

    `backward` and `jvp` call operators, so that both can be differentiated again.

    Eager calls on plain tensors run directly, under an autograd Function where a gradient is wanted: the way through
    the dispatcher costs more host time than a small kernel takes, and is there for whoever looks on. torch.func and
    forward-mode differentiation take autograd Functions alone, in the slower style that separates `setup_context`.
    """

    def __init__(
        self,
        schema: str,
        run: Callable[..., Any],
        fake: Callable[..., Any],
        vmap: Callable[..., Any],
        setup_context: Callable[..., None] | None = None,
        backward: Callable[..., Any] | None = None,
        jvp: Callable[..., Any] | None = None,
    ) -> None:
        name = schema.split("(", 1)[0]
        qualified = f"{NAME}::{name}"
        LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        for key in ("CPU", "CUDA"):
            LIBRARY.impl(name, run, key)
        torch.library.register_fake(qualified, fake, lib=LIBRARY)
        torch.library.register_vmap(qualified, vmap, lib=LIBRARY)
        self.name = name
        self.run = run
        self.op = getattr(OPERATORS, name).default
        self._sizes = tuple(i for i, argument in enumerate(_arguments(schema)) if argument.startswith("SymInt["))
        self._has_strides = any(_arguments(schema)[i].endswith("_stride") for i in self._sizes)
        if self._sizes and not self._has_strides:
            self._define_traced(schema)
        self.differentiable = False
        if setup_context is not None and backward is not None and jvp is not None:
            self.differentiable = True
            torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=LIBRARY)
            self._eager = _eager_function(name, run, setup_context, backward)
            self._transformed = _transformed_function(name, self.op, setup_context, backward, jvp, vmap)

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.op(*args)
        if self.differentiable and (_functorch_active() or torch.autograd.forward_ad._current_level >= 0):
            return self._transformed.apply(*args)
        if not _plain(args):
            return self.op(*args) if _jit_tracing() is None else self._trace(*args)
        if self.differentiable and torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return self._eager.apply(*args)
        return self.run(*args)

    def _define_traced(self, schema: str) -> None:
        """The overload `traced`, which takes a tensor of that shape for each list of sizes: torch.jit.trace follows
        sizes into and out of tensors alone."""
        LIBRARY.define(re.sub(r"SymInt\[\d?\]", "Tensor", schema).replace("(", ".traced(", 1))

        def with_sizes(*args: Any) -> Any:
            return self.op(*(arg.shape if i in self._sizes else arg for i, arg in enumerate(args)))

        LIBRARY.impl(f"{self.name}.traced", with_sizes, "CompositeImplicitAutograd")

    def _trace(self, *args: Any) -> Any:
        """A call that torch.jit.trace records."""
        if not self._sizes:
            return self.op(*args)
        if self._has_strides:
            raise RuntimeError(
                f"torch.jit.trace can not record {self.name}, as the strides of a gradient would become constants: "
                "differentiate what a trace returns instead, or use torch.compile"
            )
        shape = args[0].new_empty(())
        call = (shape.expand(*arg) if i in self._sizes else arg for i, arg in enumerate(args))
        return getattr(OPERATORS, self.name).traced(*call)


def _arguments(schema: str) -> list[str]:
    return schema[schema.index("(") + 1 : schema.index(") ->")].split(", ")


def _eager_function(
    name: str, run: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> Any:
    def forward(ctx: Any, *args: Any) -> Any:
        output = run(*args)
        setup_context(ctx, args, output)
        return output

    # without torch.autograd.Function's torch.func support, which is looked up at every call
    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name.title().replace("_", ""), (torch.autograd.function._SingleLevelFunction,), members)


def _transformed_function(
    name: str,
    op: Callable[..., Any],
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
    jvp: Callable[..., Any],
    vmap: Callable[..., Any],
) -> Any:
    def forward(*args: Any) -> Any:
        return op(*args)

    def setup_both(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        setup_context(ctx, inputs, output)
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.call = tuple(None if isinstance(value, Tensor) else value for value in inputs)
        ctx.places = tuple(i for i, value in enumerate(inputs) if isinstance(value, Tensor))
        ctx.save_for_forward(*(inputs[i] for i in ctx.places), *outputs)

    def jvp_of(ctx: Any, *tangents: Any) -> Any:
        inputs = list(ctx.call)
        saved = ctx.saved_tensors
        for place, tensor in zip(ctx.places, saved, strict=False):
            inputs[place] = tensor
        return jvp(tuple(inputs), saved[len(ctx.places) :], tangents)

    members = {
        "forward": staticmethod(forward),
        "setup_context": staticmethod(setup_both),
        "backward": staticmethod(backward),
        "jvp": staticmethod(jvp_of),
        "vmap": staticmethod(vmap),
    }
    return type(name.title().replace("_", ""), (torch.autograd.Function,), members)


def cast_for_autocast(device: str, *tensors: Tensor | None) -> tuple[Any, ...]:
    """What autocast makes of a convolution's tensors, as of PyTorch's: its dtype for every floating one but float64."""
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        t.to(dtype) if t is not None and t.is_floating_point() and t.dtype is not torch.float64 else t for t in tensors
    )


def register_autocast(name: str, tensors: int, cast: Callable[..., tuple[Any, ...]] = cast_for_autocast) -> None:
    """Under autocast an operator runs on what `cast` makes, for a device, of its arguments up to the `tensors`-th."""
    op = getattr(OPERATORS, name).default
    for device in ("CPU", "CUDA"):
        autocast = DispatchKeySet(getattr(DispatchKey, f"Autocast{device}"))

        def under_autocast(*args: Any, autocast: Any = autocast, device: str = device.lower()) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(autocast):
                return op(*cast(device, *args[:tensors]), *args[tensors:])

        LIBRARY.impl(name, under_autocast, f"Autocast{device}")
