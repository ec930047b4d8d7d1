"""CUTLASS's kernels, as tests/csrc/cutlass instantiates them, with problems for each and PyTorch's answers."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

Sizes = tuple[int, ...]
CONVOLUTIONS = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}
TYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32, "s8": torch.int8}


def cutlass_module() -> ModuleType:
    """Skips where nvcc or the package nvidia-cutlass was not there when the tests' kernels were built."""
    module = pytest.importorskip("cnnkernels._emulated_cutlass_tests", reason="`make test-cutlass` builds it")
    module.cuda.attributes(module.cuda.kernels()[0])  # makes a context, which CUTLASS takes for given
    return module


class Problem(NamedTuple):
    """What a kernel is called with: A, B, D and numbers; and what D has to be."""

    a: torch.Tensor
    b: torch.Tensor
    d: torch.Tensor
    numbers: list[int]
    expected: torch.Tensor


class Case(NamedTuple):
    name: str
    kernel: str
    problem: Callable[[str], Problem]


def small_integers(sizes: Sizes, dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(-3, 4, sizes, generator=torch.Generator().manual_seed(len(sizes) + sum(sizes))).to(dtype)


def dtype_of(kernel: str) -> torch.dtype:
    (dtype,) = [TYPES[word] for word in kernel.split("_") if word in TYPES]
    return dtype


class Conv(NamedTuple):
    """Extents of a convolution's images and filter, N and K first and channels last."""

    input: Sizes
    filter: Sizes
    before: Sizes
    behind: Sizes
    stride: Sizes
    dilation: Sizes

    def __call__(self, kernel: str) -> Problem:
        dtype = dtype_of(kernel)
        spatial = len(self.stride)
        x = small_integers(self.input, dtype).double().requires_grad_()
        w = small_integers(self.filter, dtype).double().requires_grad_()
        margins = [side for pair in zip(self.before[::-1], self.behind[::-1], strict=True) for side in pair]
        padded = torch.nn.functional.pad(x.movedim(-1, 1), margins)
        convolution = CONVOLUTIONS[spatial]
        y = convolution(padded, w.movedim(-1, 1), stride=self.stride, dilation=self.dilation).movedim(1, -1)
        dy = small_integers(tuple(y.shape), dtype).double()
        y.backward(dy)
        assert x.grad is not None and w.grad is not None
        a, b, expected = {"f": (x, w, y), "d": (dy, w, x.grad), "w": (dy, x, w.grad)}[kernel[0]]
        sums = torch.int32 if dtype == torch.int8 else torch.float32
        return Problem(
            a.detach().to(dtype).contiguous(),
            b.detach().to(dtype).contiguous(),
            torch.full(expected.shape, 99, dtype=sums),
            [size for sizes in self for size in sizes],
            expected.detach().to(sums).contiguous(),
        )


class Gemm(NamedTuple):
    m: int
    n: int
    k: int

    def __call__(self, kernel: str) -> Problem:
        mn_major = "mn_major" in kernel
        dtype = torch.float16 if kernel.split("_")[1] not in TYPES else dtype_of(kernel)
        a, b = small_integers((self.m, self.k), dtype), small_integers((self.k, self.n), dtype)
        out = {torch.int8: torch.int32}.get(dtype, torch.float32)
        if kernel == "gemm_f16_cluster":  # sums that f16 has to round
            out, a = torch.float16, a * 64 + a.sign()
        expected = (a.double() @ b.double()).to(out)
        if kernel == "gemm_mn_major_unswizzled":
            expected = -expected
        a, b = (a.T, b) if mn_major else (a, b.T)
        d = torch.full((self.m, self.n), 99, dtype=out)
        return Problem(a.contiguous(), b.contiguous(), d, [self.m, self.n, self.k], expected)


CASES = [
    Case("fprop", "fprop2d_f16", Conv((2, 9, 11, 64), (64, 3, 3, 64), (1, 1), (1, 1), (1, 1), (1, 1))),
    Case(
        "fprop, strided and dilated",
        "fprop2d_f16",
        Conv((3, 12, 17, 72), (72, 3, 2, 72), (2, 0), (1, 3), (2, 3), (1, 2)),
    ),
    Case("fprop of single pixels", "fprop2d_f16", Conv((2, 9, 8, 64), (64, 1, 1, 64), (0, 0), (0, 0), (2, 2), (1, 1))),
    Case(
        "fprop, multicast",
        "fprop2d_bf16_multicast",
        Conv((2, 8, 9, 64), (128, 3, 3, 64), (1, 1), (1, 1), (2, 1), (1, 1)),
    ),
    Case(
        "fprop of few channels",
        "fprop2d_f16_narrow",
        Conv((2, 9, 10, 24), (64, 3, 3, 24), (1, 2), (1, 0), (1, 2), (2, 1)),
    ),
    Case("fprop of lines", "fprop1d_tf32", Conv((3, 37, 40), (64, 5, 40), (3,), (2,), (2,), (2,))),
    Case(
        "fprop of volumes",
        "fprop3d_s8",
        Conv((2, 5, 6, 7, 32), (64, 3, 2, 3, 32), (1, 0, 2), (1, 1, 0), (2, 1, 2), (1, 2, 1)),
    ),
    Case("dgrad", "dgrad2d_f16", Conv((2, 7, 10, 72), (64, 3, 2, 72), (1, 0), (2, 1), (1, 1), (1, 1))),
    Case("dgrad, dilated", "dgrad2d_f16", Conv((2, 9, 9, 64), (64, 3, 3, 64), (2, 1), (1, 3), (1, 1), (2, 2))),
    Case(
        "dgrad of few channels",
        "dgrad3d_bf16_narrow",
        Conv((2, 4, 5, 6, 16), (64, 2, 3, 2, 16), (1, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 2)),
    ),
    Case("wgrad", "wgrad2d_f16", Conv((2, 9, 10, 64), (64, 3, 3, 64), (1, 1), (1, 1), (1, 1), (1, 1))),
    Case(
        "wgrad, strided and dilated",
        "wgrad2d_f16",
        Conv((5, 9, 12, 72), (72, 3, 2, 72), (1, 2), (2, 0), (2, 3), (1, 2)),
    ),
    Case(
        "wgrad, multicast",
        "wgrad2d_bf16_multicast",
        Conv((3, 7, 8, 64), (128, 2, 3, 64), (0, 1), (1, 1), (1, 2), (1, 1)),
    ),
    Case("GEMM of clusters", "gemm_f16_cluster", Gemm(520, 200, 328)),
    Case("GEMM along M and N", "gemm_bf16_mn_major", Gemm(200, 264, 328)),
    Case("GEMM of TF32 along M and N", "gemm_tf32_mn_major", Gemm(136, 72, 200)),
    Case("GEMM of bytes", "gemm_s8", Gemm(136, 80, 720)),
    Case("GEMM, no swizzle", "gemm_k_major_unswizzled", Gemm(136, 72, 264)),
    Case("GEMM, no swizzle, negated", "gemm_mn_major_unswizzled", Gemm(136, 72, 264)),
    Case("GEMM, rows apart", "gemm_rows_apart", Gemm(136, 72, 264)),
]


def is_right(module: ModuleType, case: Case) -> bool:
    """Runs a case.

    Raises:
        RuntimeError: the emulator or its runtime says that something is wrong.
    """
    problem = case.problem(case.kernel)
    tensors = problem.a, problem.b, problem.d
    module.set_memory([(t.data_ptr(), t.nbytes) for t in tensors])
    module.run(case.kernel, *(t.data_ptr() for t in tensors), *problem.numbers)
    return torch.equal(problem.d, problem.expected)
