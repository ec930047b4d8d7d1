"""How long a launch must take at least on a GPU, by what was counted of it: a model, not a measurement.

Each unit is taken to be busy all the time, and all of them at once: nothing waits for a latency. The longest is the
bound. Rates are csrc/common/gpu.h's, the data sheets'.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .profile import SECTOR, Profile

LAUNCH = 3e-6  # seconds, as csrc/conv/cost.h has it
ISSUE_A_CLOCK = 4  # warp instructions of an SM
L2_PORT_BYTES = 64  # a clock, of an SM
REACHED_OF_MEMORY = 0.9
EIGHT_BITS = ("s8", "u8", "e4m3", "e5m2")


class Bounds(NamedTuple):
    """Seconds of the busiest SM, or of what all share."""

    issue: float
    tensor: float
    shared: float
    l2: float
    dram: float

    @property
    def name(self) -> str:
        """Of the longest."""
        return max(zip(self, self._fields, strict=True))[1]

    @property
    def seconds(self) -> float:
        return max(self)

    @property
    def with_launch(self) -> float:
        return self.seconds + LAUNCH


def tensor_rate(opcode: str, gpu: Any) -> float:
    """FLOP/s of all SMs for a product of tensor cores."""
    types = opcode.split(".")
    if "f64" in types:
        rate = gpu.fma64
    elif "tf32" in types:
        rate = gpu.tensor_tf32
    else:
        rate = gpu.tensor16 * (2 if any(kind in types for kind in EIGHT_BITS) else 1)
    return float(rate if opcode.startswith("wgmma") else rate * gpu.mma_share)


def bounds(profile: Profile, gpu: Any) -> Bounds:
    """Blocks are taken to be alike, so the SM with the most of them is the busiest."""
    busiest = math.ceil(profile.blocks / gpu.processors) / profile.blocks  # its share of the launch

    def of_sm(count: str) -> float:
        return profile.of_launch(count) * busiest

    products = sum(
        2 * adds * profile.scale * busiest / (tensor_rate(opcode, gpu) / gpu.processors)
        for opcode, adds in profile.products().items()
    )
    l2 = profile.of_launch("l2_sectors") * SECTOR
    unique = sum(sum(profile.unique(touched)) for touched in profile.touched)
    return Bounds(
        issue=of_sm("issue_slots") / ISSUE_A_CLOCK / gpu.clock,
        tensor=products,
        shared=(of_sm("wavefronts") + of_sm("streamed_wavefronts")) / gpu.clock,
        l2=max(l2 / gpu.l2, l2 * busiest / (L2_PORT_BYTES * gpu.clock)),
        dram=unique / (REACHED_OF_MEMORY * gpu.memory),
    )
