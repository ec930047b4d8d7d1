"""Runs all trials on one GPU, and prints as JSON what was wrong, what was wanted and seen, and what was compiled.

CNNKERNELS_INTERPRET=ptx CNNKERNELS_BACKEND=triton python -m helpers.every_triton_kernel.found [--every-type]
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from triton.runtime.driver import driver

from cnnkernels import backends
from helpers.emulated import operators
from helpers.every_triton_kernel import (
    Launch,
    Trial,
    conv,
    depthwise_conv,
    int8,
    kernels,
    norm,
    others,
    recorded,
    with_64_bits,
)

GPUS = {80: 0, 90: 1}  # whose turn it is


def compiled(launches: list[Launch]) -> dict[str, list[str]]:
    """What each kernel became, by what it was specialised for."""
    found: dict[str, list[str]] = {}
    for each in launches:
        codes = found.setdefault(f"{each.kernel} {each.arguments}", [])
        if each.compiled not in codes:
            codes.append(each.compiled)
    return found


def flags(launches: list[Launch]) -> list[str]:
    """Each kernel's compile-time words that are true or false, each with those it had."""
    of = {(each.kernel, name, value) for each in launches for name, value in each.constants.items()
          if isinstance(value, bool)}  # fmt: skip
    return sorted(f"{kernel}, {name}={value}" for kernel, name, value in of)


def of_tables(arch: int, every_type: bool) -> list[Trial]:
    turn = GPUS[arch]
    return [*conv.trials(arch, turn, every_type), *depthwise_conv.trials(arch, turn), *int8.trials(arch, turn)]


def in_turns(arch: int) -> list[Trial]:
    """Of the trials of tables that both GPUs have, every other one."""
    (other,) = set(GPUS) - {arch}
    shared = {trial.name for trial in of_tables(other, False)}
    mine = of_tables(arch, False)
    of_both = sorted(trial.name for trial in mine if trial.name in shared)
    elsewhere = set(of_both[1 - GPUS[arch] :: 2])
    return [trial for trial in mine if trial.name not in elsewhere]


def find(every_type: bool) -> dict[str, Any]:
    backends.kernels("triton", "cpu")
    arch = driver.active.get_current_target().arch
    turn = GPUS[arch]
    trials = of_tables(arch, True) if every_type else in_turns(arch)
    trials += [*others.trials(turn), *norm.trials(turn)]
    with recorded() as launches:
        wrong = operators.wrong(operators.CHANNELS_LAST[turn : turn + 1])
        torch.manual_seed(0)
        wrong += [trial.name for trial in trials if not trial.is_right()]
        if turn == 0:
            with with_64_bits():
                wrong += [f"{name} by 64 bits" for name in operators.wrong([(torch.bfloat16, torch.contiguous_format)])]
                wrong += [f"{each.name} by 64 bits" for each in others.beyond_32_bits(arch) if not each.is_right()]
    wanted = [*conv.wanted(arch, every_type), *depthwise_conv.wanted(arch), *int8.wanted(arch), *others.wanted()]
    return {
        "wrong": wrong,
        "kernels": sorted({each.kernel for each in launches}),
        "all_kernels": kernels(),
        "wanted": {want.name: want.every_gpu for want in wanted},
        "seen": [
            want.name for want in wanted if any(each.kernel == want.kernel and want.seen(each) for each in launches)
        ],
        "flags": flags(launches),
        "compiled": compiled(launches),
    }


if __name__ == "__main__":
    print(json.dumps(find("--every-type" in sys.argv)))
