"""Triton's interpreter as the tests speed it up (helpers/triton_interpreter.py): the same bits, words given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

import triton
import triton.language as tl
import triton.language.core as core
from triton.runtime import interpreter

from cnnkernels import functional, use_backend
from helpers.device import HAS_GPU

pytestmark = pytest.mark.skipif(HAS_GPU, reason="Triton interprets nothing where there is a GPU")


def words() -> dict[tuple[str, str], Any]:
    """What a launch may change."""
    return {(str(where), name): getattr(where, name) for where in (tl, core, tl.tensor, tl.math) for name in dir(where)}


@triton.jit
def total(x):
    return tl.sum(x)  # of Triton's standard library, which knows core


@triton.jit
def sums_kernel(x, y, SIZE: tl.constexpr, SIGN: tl.constexpr):
    i = tl.arange(0, SIZE)
    rows = tl.load(x + tl.program_id(0) * SIZE + i).to(tl.int8)
    tl.store(y + tl.program_id(0), total(tl.where(i % 3 == 0, SIGN * rows, rows)))


def sums(sign: int) -> torch.Tensor:
    x = torch.arange(-48, 48).view(3, 32)
    y = torch.zeros(3, dtype=torch.int32)
    sums_kernel[(3,)](x, y, SIZE=32, SIGN=sign)
    return y


def network() -> torch.Tensor:
    """Kernels in several types, with products, reductions, functions of other files and gradients."""
    x = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    w = torch.randn(3, 4, 3, 3, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
    with use_backend("triton"):
        y = functional.max_pool2d(F.silu(functional.conv2d(x, w, padding=1)), 2)
    return torch.cat([g.flatten() for g in torch.autograd.grad(y.sum(), (x, w))] + [y.detach().flatten()])


@pytest.mark.parametrize("run", [lambda: sums(1), lambda: sums(-1), network], ids=["sums", "negated", "network"])
def test_the_same_bits_as_without(monkeypatch: pytest.MonkeyPatch, run: Callable[[], torch.Tensor]) -> None:
    before, fast = words(), run()
    assert words() == before
    monkeypatch.setattr(interpreter, "_patch_lang", interpreter._patch_lang.patch)
    assert torch.equal(run(), fast)


def test_words_are_given_back_after_an_error() -> None:
    @triton.jit
    def wrong_kernel(x):
        tl.store(x, total(tl.arange(0, 4)))
        raise ValueError

    before = words()
    with pytest.raises(triton.runtime.errors.InterpreterError):
        wrong_kernel[(1,)](torch.zeros(1, dtype=torch.int32))
    assert words() == before and sums(1).tolist() == [(-48 + 32 * i) * 32 + 496 for i in range(3)]


def test_what_is_left_out_was_thrown_away() -> None:
    """Assertions on overflow, which are made with `debug` alone."""
    options = interpreter.interpreter_builder.options
    assert not options.debug and not options.sanitize_overflow
