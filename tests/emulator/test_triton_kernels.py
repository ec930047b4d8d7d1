"""Kernels that others' compilers made, in every mode: what the models of the hardware are believed for."""

from __future__ import annotations

import pytest

from helpers.emulated.launches import MODES, run_case
from helpers.triton_cases.cases import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_triton_kernel(case):
    for mode in MODES:
        assert run_case(case, **mode) == [], mode
