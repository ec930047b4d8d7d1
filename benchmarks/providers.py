"""Who computes a case: our CUDA and Triton kernels, and everything PyTorch offers beside them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import backends
from cnnkernels.testing.cases import ConvCase

from .cases import Case
from .families import INPUT_SCALE, GemmCase, weight_scales

Work = Callable[[], tuple[Tensor, ...]]


@contextlib.contextmanager
def flags(cudnn: bool = True, tf32: bool = False, benchmark: bool = False) -> Iterator[None]:
    """PyTorch's switches for convolutions and matrix products, as they were afterwards."""
    names = (
        (torch.backends.cudnn, "enabled", cudnn),
        (torch.backends.cudnn, "benchmark", benchmark),
        (torch.backends.cudnn, "allow_tf32", tf32),
        (torch.backends.cuda.matmul, "allow_tf32", tf32),
    )
    before = [getattr(owner, name) for owner, name, _ in names]
    for owner, name, value in names:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(names, before, strict=True):
            setattr(owner, name, value)


def work(case: Case, forward: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Work:
    """What a case's direction does with a forward: inputs are its operands, then the gradient of its output.

    A gradient's forward pass runs here, once; what is returned only runs backward, as often as it is called.
    """
    wanted = case.differentiated
    if not wanted:

        def infer() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (forward(*inputs),)

        return infer
    *operands, grad_output = inputs
    operands = [operand.detach().requires_grad_(place in wanted) for place, operand in enumerate(operands)]
    variables = [operands[place] for place in wanted]

    def train() -> tuple[Tensor, ...]:
        output = forward(*operands)
        return (output.detach(), *torch.autograd.grad(output, variables, grad_output))

    if case.direction == "training":
        return train
    output = forward(*operands)
    return lambda: torch.autograd.grad(output, variables, grad_output, retain_graph=True)


class Provider:
    """Computes cases. `ours` is held to the project's rule for errors, everyone else to what any order of summation
    in their type may do."""

    ours = False

    def __init__(self, name: str) -> None:
        self.name = name

    def refuses(self, case: Case, device: str) -> str | None:
        """Why the case is not for this provider, None where it is."""
        raise NotImplementedError

    def forward(self, case: Case) -> Callable[..., Tensor]:
        """The case's operator, as a function of its operands."""
        raise NotImplementedError

    def arithmetic(self, case: Case) -> torch.dtype:
        """The type it computes in, and rounds its output to."""
        return case.torch_dtype

    def flags(self, case: Case) -> contextlib.AbstractContextManager[None]:
        return flags(tf32=case.dtype == "tf32", benchmark=True)

    def setup(self, case: Case, inputs: Sequence[Tensor]) -> Work:
        """What to call, again and again, for speed, memory and numbers alike; outputs are new tensors."""
        with self.flags(case):
            run = work(case, self.forward(case), inputs)

        def under_flags() -> tuple[Tensor, ...]:
            with self.flags(case):
                return run()

        return under_flags


class Ours(Provider):
    """This project's kernels on one backend, called by their public name."""

    ours = True

    def refuses(self, case: Case, device: str) -> str | None:
        if missing := case.operator.missing():
            return missing
        capability = torch.cuda.get_device_capability() if device == "cuda" else None
        problem = backends.Problem(case.family, device, case.torch_dtype, capability)
        why = backends.why_not(self.name, problem)  # type: ignore[arg-type]
        kernel = case.operator.kernel
        if why is None and kernel and not hasattr(backends.kernels(self.name, device), kernel):
            return f"the {self.name} backend has no {kernel} yet"
        return why

    def forward(self, case: Case) -> Callable[..., Tensor]:
        def call(*operands: Tensor) -> Tensor:
            with backends.use_backend(self.name):
                return case.operator.ours(case.problem, *operands)

        return call


class Eager(Provider):
    """PyTorch's own operator as a user gets it, which is cuDNN's where cuDNN has one, or with cuDNN switched off."""

    def __init__(self, name: str, cudnn: bool) -> None:
        super().__init__(name)
        self.cudnn = cudnn

    def refuses(self, case: Case, device: str) -> str | None:
        if case.dtype == "int8":
            return "PyTorch has no such INT8 operator on a GPU"
        if not self.cudnn and "pool" in case.family:
            return f"PyTorch's {case.family} has nothing to do with cuDNN"
        return None

    def forward(self, case: Case) -> Callable[..., Tensor]:
        return functools.partial(case.operator.torch, case.problem)

    def flags(self, case: Case) -> contextlib.AbstractContextManager[None]:
        return flags(cudnn=self.cudnn, tf32=case.dtype == "tf32", benchmark=True)


class Compiler:
    """torch.compile with everything it can tune; CUDA graphs are the timer's."""

    MODE = "max-autotune-no-cudagraphs"
    MOST_KEPT = 2  # a case, and its part that is verified

    def __init__(self) -> None:
        self.kept: dict[str, Callable[..., Tensor]] = {}

    def __call__(self, case: Case, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The function, compiled once a case, for all its sets of inputs."""
        if case.key not in self.kept:
            import torch._functorch.config

            torch._functorch.config.donated_buffer = False  # a backward pass must be able to run again
            if len(self.kept) == self.MOST_KEPT:
                self.kept.clear()
                torch._dynamo.reset()  # it gives up on a function that it has compiled for many shapes
            self.kept[case.key] = torch.compile(function, mode=self.MODE, dynamic=False)
        return self.kept[case.key]


class Compiled(Eager):
    """PyTorch's own operator under torch.compile."""

    def __init__(self, name: str) -> None:
        super().__init__(name, cudnn=True)
        self.compiler = Compiler()

    def forward(self, case: Case) -> Callable[..., Tensor]:
        return self.compiler(case, super().forward(case))


class IntMM(Provider):
    """torch._int_mm, which takes what cuBLASLt takes; a layer's scales come after it, in kernels of their own."""

    def refuses(self, case: Case, device: str) -> str | None:
        if not isinstance(case.problem, GemmCase):
            return "multiplies INT8 matrices"
        p = case.problem
        if device == "cuda" and (p.m <= 16 or p.n % 8 or p.k % 8):
            return "torch._int_mm needs M > 16 and multiples of 8 for N and K"
        return None

    def arithmetic(self, case: Case) -> torch.dtype:
        return torch.bfloat16 if case.family == "int8_linear" else case.torch_dtype

    def forward(self, case: Case) -> Callable[..., Tensor]:
        if case.family == "int8_gemm":
            return lambda a, b: torch._int_mm(a, b.t())
        return lambda x, w, scales: (torch._int_mm(x, w.t()) * scales).bfloat16()

    def setup(self, case: Case, inputs: Sequence[Tensor]) -> Work:
        return super().setup(case, inputs if case.family == "int8_gemm" else (*inputs, _scales(case, inputs)))


def _scales(case: Case, inputs: Sequence[Tensor]) -> Tensor:
    """What one of int8_linear's sums stands for, for each output."""
    return INPUT_SCALE * weight_scales(case.problem.n, inputs[0].device)  # type: ignore[union-attr]


class CompiledIntMM(IntMM):
    """The same under torch.compile, which makes one kernel of what follows the product, or puts it into its store."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.compiler = Compiler()

    def refuses(self, case: Case, device: str) -> str | None:
        if case.family != "int8_linear":
            return "compiles what follows torch._int_mm"
        return super().refuses(case, device)

    def forward(self, case: Case) -> Callable[..., Tensor]:
        return self.compiler(case, super().forward(case))


class BF16(Provider):
    """The same work in bf16: what a user of PyTorch has where INT8 is not served."""

    def refuses(self, case: Case, device: str) -> str | None:
        return None if case.dtype == "int8" else "stands in for INT8"

    def arithmetic(self, case: Case) -> torch.dtype:
        return torch.bfloat16

    def forward(self, case: Case) -> Callable[..., Tensor]:
        p = case.problem
        if isinstance(p, ConvCase):
            padding = (p.padding[0], p.padding[2])
            return lambda x, w: F.conv2d(x, w, None, p.stride, padding, p.dilation, p.groups)
        return lambda a, b: a @ b.t()

    def setup(self, case: Case, inputs: Sequence[Tensor]) -> Work:
        operands = [operand.bfloat16() for operand in inputs]
        if case.family == "int8_linear":  # a weight in bf16 has its scales in it
            operands[1] = (inputs[1] * _scales(case, inputs)[:, None]).bfloat16()
        return super().setup(case, operands)


PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        Ours("cuda"),
        Ours("triton"),
        Eager("torch", cudnn=True),
        Eager("aten", cudnn=False),
        Compiled("compile"),
        IntMM("int_mm"),
        CompiledIntMM("compiled_int_mm"),
        BF16("bf16"),
    )
}
# Those that tune take half a minute a case.
QUICK_PROVIDERS = tuple(name for name in PROVIDERS if name not in ("compile", "compiled_int_mm"))
