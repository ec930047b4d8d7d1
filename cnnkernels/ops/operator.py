"""An operator in the dispatcher, and eager's short way around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet

LIBRARY = torch.library.Library("cnnkernels", "FRAGMENT")

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


def _needs_dispatcher(args: tuple[Any, ...]) -> bool:
    """Whether somebody looks on (torch.compile, torch.func, a mode, a trace, forward AD) or a tensor is not plain."""
    return (
        torch.compiler.is_compiling()
        or _functorch_active()
        or _dispatch_modes() > 0
        or _jit_tracing() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or any(isinstance(arg, Tensor) and _keys(arg).raw_repr() & _OTHER for arg in args)
    )


class Operator:
    """One operator `torch.ops.cnnkernels.<name>`, called like a function.

    Args:
        schema: the operator's signature in PyTorch's schema language.
        run: computes on plain tensors of one device.
        fake: makes outputs of the same shape, dtype and strides as `run` without values.
        setup_context, backward: the derivative, as `torch.library.register_autograd` takes them. `backward` calls
            operators, so that it can be differentiated again.
        vmap: the batching rule, as `torch.library.register_vmap` takes it.

    Eager calls on plain tensors apply an autograd Function of the same `setup_context` and `backward` directly; the
    way through the dispatcher costs more host time than a small kernel takes, and is there for whoever looks on.
    """

    def __init__(
        self,
        schema: str,
        run: Callable[..., Any],
        fake: Callable[..., Any],
        setup_context: Callable[..., None] | None = None,
        backward: Callable[..., Any] | None = None,
        vmap: Callable[..., Any] | None = None,
    ) -> None:
        name = schema.split("(", 1)[0]
        qualified = f"cnnkernels::{name}"
        LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        for key in ("CPU", "CUDA"):
            LIBRARY.impl(name, run, key)
        torch.library.register_fake(qualified, fake, lib=LIBRARY)
        self.name = name
        self.run = run
        self.op = getattr(torch.ops.cnnkernels, name).default
        self.function: Any = None
        if backward is not None and setup_context is not None:
            torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=LIBRARY)
            self.function = _autograd_function(name, run, setup_context, backward)
        if vmap is not None:
            torch.library.register_vmap(qualified, vmap, lib=LIBRARY)

    def __call__(self, *args: Any) -> Any:
        if _needs_dispatcher(args):
            return self.op(*args)
        if self.function is not None and torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
            return self.function.apply(*args)
        return self.run(*args)


def _autograd_function(
    name: str, run: Callable[..., Any], setup_context: Callable[..., None], backward: Callable[..., Any]
) -> type[torch.autograd.Function]:
    def forward(ctx: Any, *args: Any) -> Any:
        output = run(*args)
        setup_context(ctx, args, output)
        return output

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name.title().replace("_", ""), (torch.autograd.Function,), members)


def register_autocast(name: str, device: str, cast: Callable[..., tuple[Any, ...]]) -> None:
    """Under autocast on `device` ("CPU" or "CUDA") an operator runs on what `cast` makes of its arguments."""
    op = getattr(torch.ops.cnnkernels, name).default
    autocast = DispatchKeySet(getattr(DispatchKey, f"Autocast{device}"))

    def under_autocast(*args: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(autocast):
            return op(*cast(*args))

    LIBRARY.impl(name, under_autocast, f"Autocast{device}")
