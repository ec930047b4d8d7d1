"""Models of the hardware that are wrong on purpose: which of CUTLASS's kernels notices each; `make test-cutlass`."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from helpers.emulated.cutlass import CASES, Case, cutlass_module, is_right
from helpers.emulated.wrong_models import FACTS

pytestmark = pytest.mark.long
BY_NAME = {case.name: case for case in CASES}
# What shows only where blocks, or the warps of a warpgroup, come to be far apart.
RANDOM = {"mapa_is_identity", "wait_is_early", "multicast_signals_issuer"}
SEEDS = range(3)


@pytest.fixture
def module() -> Iterator[ModuleType]:
    module = cutlass_module()
    yield module
    module.set_wrong_model("")
    module.set_schedule("ordered", 0, "late", warps_meet=True, races=True)


def notices(module: ModuleType, model: str, case: Case) -> bool:
    module.set_wrong_model(model)
    try:
        return not is_right(module, case)
    except RuntimeError:  # a fault, or a map that is refused
        module.reset_device()
        return True
    finally:
        module.set_wrong_model("")


@pytest.mark.parametrize("model", [name for name, fact in FACTS.items() if fact.cutlass])
def test_wrong_model_is_noticed(module: ModuleType, model: str) -> None:
    case = BY_NAME[FACTS[model].cutlass]
    found = {"": False, model: False}
    for seed in SEEDS if model in RANDOM else [0]:
        order = "random" if model in RANDOM else "ordered"
        module.set_schedule(order, seed, "late", warps_meet=model not in RANDOM, races=False)
        for which in found:
            found[which] |= notices(module, which, case)
    assert found == {"": False, model: True}


@pytest.mark.parametrize("model", [name for name, fact in FACTS.items() if not fact.cutlass])
def test_what_cutlass_does_not_prove_is_said(module: ModuleType, model: str) -> None:
    module.set_schedule("ordered", 0, "late", races=True)
    assert not [case.name for case in CASES if notices(module, model, case)]
