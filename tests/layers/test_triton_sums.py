"""Triton's kernels as compiled give the same bits wherever a tensor begins and whatever its batch: what Triton knows of
pointers and sizes decides how elements lie in threads, which the interpreter has none of."""

from __future__ import annotations

import json

import pytest

from helpers.processes import children

pytest.importorskip("triton")

CODE = """
import json, torch
from cnnkernels import functional as F

g = torch.Generator().manual_seed(1)
last = torch.channels_last

def made(*shape, how=torch.contiguous_format):
    return torch.randn(*shape, generator=g).contiguous(memory_format=how)

def shifted(t):
    memory = torch.empty(t.numel() + 1, dtype=t.dtype)
    return memory.as_strided(t.shape, t.stride(), 1).copy_(t)

def grads(function, *leaves, of=lambda dy: dy, on=lambda x: x):
    leaves = [on(each.clone(memory_format=torch.preserve_format)).detach().requires_grad_() for each in leaves]
    y = function(*leaves)
    dy = torch.linspace(-1, 1, y.numel()).view(y.shape)
    dy = of(torch.empty_like(y).copy_(dy).detach())
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

def norm(x, w, b):
    return F.batch_norm(x, None, None, w, b, training=True)

CALLS = {
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 1), lambda how: (made(5, 16, 9, 6, how=how),)),
    "batch_norm": (norm, lambda how: (made(5, 16, 9, 6, how=how), made(16), made(16))),
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        lambda how: (made(3, 16, 9, 6, how=how), made(16, 16, 3, 3, how=how), made(16)),
    ),
    "conv2d of two groups": (
        lambda x, w, b: F.conv2d(x, w, b, groups=2),
        lambda how: (made(3, 16, 9, 6, how=how), made(16, 8, 3, 3, how=how), made(16)),
    ),
    "depthwise conv2d": (
        lambda x, w: F.conv2d(x, w, None, padding=1, groups=16),
        lambda how: (made(3, 16, 9, 6, how=how), made(16, 1, 3, 3, how=how)),
    ),
}
found = []
for name, (call, operands) in CALLS.items():
    for how in (torch.contiguous_format, last):
        given = operands(how)
        right = grads(call, *given)
        moved = grads(call, *given, of=shifted, on=shifted)
        found += [f"{name}, {how}, result {i}" for i, (a, b) in enumerate(zip(right, moved)) if not torch.equal(a, b)]
for how in (torch.contiguous_format, last):
    x = made(16, 16, 9, 6, how=how)
    one = F.adaptive_avg_pool2d(x, 1)
    found += [f"a batch of {n}" for n in (1, 3) if not torch.equal(F.adaptive_avg_pool2d(x[:n], 1), one[:n])]
print(json.dumps(found))
"""


def test_sums_are_in_the_same_order_wherever_elements_lie() -> None:
    (found,) = children(CODE, {"CNNKERNELS_INTERPRET": "ptx", "CNNKERNELS_BACKEND": "triton", "TRITON_INTERPRET": "0"})
    assert json.loads(found) == []
