"""Operators on tensors in random orders of memory: a few of what `python tests/memory_orders.py` makes many of."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cnnkernels.ops
from cnnkernels import functional, operators, use_backend
from cnnkernels.geometry import Layout
from cnnkernels.ops.memory import dense
from cnnkernels.testing.numerics import small_integers
from helpers.memory_orders.cases import DIRECTIONS, OPERATORS, Case, cases, run, takes
from helpers.memory_orders.trial import Trial

SEED = 11
ROUNDS = {"cuda": 6, "triton": 1, "reference": 2}
SLOW = "double", "tangent", "batched"  # of Triton's interpreter; the operators call the same kernels in them


KINDS = [(operator, backend) for backend in ROUNDS for operator in OPERATORS if takes(operator, backend)]


@pytest.mark.parametrize(("operator", "backend"), KINDS)
def test_random_orders(operator: str, backend: str) -> None:
    for case in cases([operator], [backend], SEED, ROUNDS[backend] * len(DIRECTIONS[operator])):
        if backend == "triton" and case.direction in SLOW:
            continue
        try:
            run(case)
        except Exception as error:
            raise AssertionError(f'python tests/memory_orders.py --case "{case}"') from error


def module_of(name: str) -> Any:
    known = operators.OPERATORS.get(name)
    if name in ("avg_pool2d", "adaptive_avg_pool2d"):
        return cnnkernels.ops.avg_pool
    if name == "conv_transpose2d":
        return cnnkernels.ops.conv_transpose
    return getattr(cnnkernels.ops, name.replace("2d", "") if known is None else known.word)


def wherever(name: str) -> list[str]:
    """The operators whose modules use a function of ops/memory.py."""
    of_planes = (name for name in operators.OPERATORS if not name.endswith("1d"))  # which serve rows
    names = *of_planes, "conv_epilogue", "depthwise_separable_conv2d_backward"
    return [module for module in names if hasattr(module_of(module), name)]


def plant(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    def other_layout(tensor: Tensor, layout: Layout) -> Tensor:
        return dense(tensor, Layout(1 - layout))

    def in_place(tensor: Tensor, layout: Layout, fill: Any) -> Tensor:
        fill(tensor)
        return tensor

    monkeypatch.setattr(module_of(module), name, {"dense": other_layout, "filled": in_place}[name])


@pytest.mark.parametrize(
    ("name", "module"), [(name, module) for name in ("dense", "filled") for module in wherever(name)]
)
def test_finds_an_operand_read_or_a_gradient_written_in_another_order(monkeypatch, name: str, module: str) -> None:
    word = module.removesuffix("_backward")
    direction = "backward" if name == "filled" or module != word else "forward"
    plant(monkeypatch, module, name)
    words = {"pool": ("max_pool2d", "max_unpool2d")}.get(word, (word, f"{word}2d"))
    operators = [operator for operator in words if operator in OPERATORS]
    assert operators
    for operator in operators:
        with pytest.raises((AssertionError, RuntimeError), match=r"where it is|view size"):
            for number in range(100):
                run(Case(operator, direction, "cuda", SEED, number))


def test_every_case_runs_again_by_its_name() -> None:
    names = [str(case) for case in cases(list(OPERATORS), ["cuda", "reference"], 3, 200)]
    assert len(set(names)) == 200
    trials = [Trial(f"{names[0]} 0", "cuda", "cpu") for _ in range(2)]
    first, again = (trial.integers((2, 3, 4), torch.int32, -9, 9) for trial in trials)
    assert torch.equal(first, again) and first.stride() == again.stride()


def permuted(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """The same numbers, of which axis order[-1] varies fastest in memory."""
    inverse = [order.index(axis) for axis in range(tensor.dim())]
    return tensor.permute(order).contiguous().permute(inverse)


PERMUTATIONS = list(itertools.permutations(range(4)))
# Triton's interpreter takes ten times as long for the same code of the operators: two orders of its own.
ORDERS = [("cuda", order) for order in PERMUTATIONS] + [("triton", order) for order in ((1, 0, 2, 3), (0, 2, 3, 1))]


@pytest.mark.parametrize(("backend", "order"), ORDERS)
def test_gradients_in_every_permutation(device: str, backend: str, order: tuple[int, ...]) -> None:
    """Of the pair, whose pointwise filter's gradient has a kernel of its own in 16 bits: [K, M, 1, 1] is a transposed
    matrix where K varies fastest."""
    sizes = (2, 3, 4, 5), (6, 1, 3, 2), (4, 6, 1, 1)
    values = [small_integers(size, torch.float16, seed, 1) for seed, size in enumerate(sizes)]
    ours = [permuted(value, order).to(device).requires_grad_() for value in values]
    theirs = [value.double().requires_grad_() for value in values]
    with use_backend(backend):
        output = functional.depthwise_separable_conv2d(*ours, padding=1, depthwise_activation="relu")
    expected = F.conv2d(F.relu(F.conv2d(theirs[0], theirs[1], padding=1, groups=3)), theirs[2])
    grad = small_integers(tuple(expected.shape), torch.float16, 3, 1)
    gradients = torch.autograd.grad(output, ours, permuted(grad, order).to(device))
    for result, wanted in zip(gradients, torch.autograd.grad(expected, theirs, grad.double()), strict=True):
        assert torch.equal(result.cpu().double(), wanted)
