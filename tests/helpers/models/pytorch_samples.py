"""PyTorch's databases of samples of its operators and layers (OpInfo and ModuleInfo), and its errors on them."""

from __future__ import annotations

import importlib
import sys
import types
import unittest
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from cnnkernels.testing.numerics import assert_within, rounding_bound


@contextmanager
def pytorch_samples() -> Iterator[dict[str, Any]]:
    """By name. They import `expecttest`, of which they need but a base class for test cases."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("expecttest") is None:
            stand_in: Any = types.ModuleType("expecttest")
            stand_in.TestCase, stand_in.assert_expected_inline = unittest.TestCase, None
            patch.setitem(sys.modules, "expecttest", stand_in)
        # They would forbid everybody else's tests in this process to set a flag of torch.backends.
        patch.setattr(torch.backends, "disable_global_flags", lambda: None)
        operators = importlib.import_module("torch.testing._internal.common_methods_invocations").op_db
        modules = importlib.import_module("torch.testing._internal.common_modules").module_db
        yield {each.name.removeprefix("nn.functional."): each for each in (*modules, *operators)}


def assert_rounds_as_pytorch(
    found: Sequence[Tensor], true: Sequence[Tensor], theirs: Sequence[Tensor], summed: int, what: str
) -> None:
    """A batch norm's `found` and PyTorch's `theirs` in fp32 beside `true` in fp64, by sums of `summed` elements."""
    largest = max((float(t.abs().max()) for t in true if t.numel()), default=0.0)
    for ours, exact, other in zip(found, true, theirs, strict=True):
        assert ours.shape == exact.shape and ours.dtype is other.dtype
        if ours.is_floating_point():
            bound = rounding_bound(exact, other, summed, torch.full_like(exact, largest), torch.float32)
            assert_within(ours, exact, bound, what)
        else:
            assert torch.equal(ours, exact), what
