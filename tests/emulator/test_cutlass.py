"""CUTLASS's GEMMs and convolutions for Hopper, which are right on GPUs, in the emulator: `make test-cutlass`."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from helpers.emulated.cutlass import CASES, Case, cutlass_module, is_right
from helpers.emulated.launches import MODES

pytestmark = pytest.mark.long


@pytest.fixture
def module() -> Iterator[ModuleType]:
    module = cutlass_module()
    yield module
    module.set_schedule("ordered", 0, "late", starve=False, warps_meet=True)
    module.reset_device()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cutlass_kernel(module: ModuleType, case: Case) -> None:
    for mode in MODES:
        module.set_schedule(
            "random" if mode.get("random") else "ordered",
            mode.get("seed", 0),
            "late" if mode["late"] else "early",
            starve=mode.get("starve", False),
            warps_meet=mode.get("warps_meet", True),
        )
        assert is_right(module, case), mode
