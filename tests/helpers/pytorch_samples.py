"""PyTorch's databases of samples of its operators and layers (OpInfo and ModuleInfo)."""

from __future__ import annotations

import importlib
import sys
import types
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


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
