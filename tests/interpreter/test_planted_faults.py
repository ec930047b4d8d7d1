"""Kernels that are wrong in one place: the interpreter catches every one of them, and passes the right ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.native import Host, PrimitiveRunner, interpreter_tests

SHAPES = [
    # n, c, h, w, k, r, s, stride, padding, dilation: each pair (h, w)
    (2, 64, 6, 7, 64, 3, 3, (1, 1), (1, 1), (1, 1)),
    (2, 72, 9, 8, 40, 3, 3, (2, 2), (1, 1), (1, 1)),  # channels and filters end within a tile, stride 2
    (1, 128, 9, 10, 64, 3, 2, (1, 2), (2, 1), (2, 1)),  # two chunks of channels, dilation
    (3, 64, 5, 5, 136, 1, 1, (1, 1), (0, 0), (1, 1)),  # 1 x 1: fewer steps than stages
]
RING_FAULTS = [
    "none", "no_barrier_after_init", "no_init_fence", "no_full_wait", "no_empty_wait", "too_few_bytes",
    "too_many_bytes", "wrong_full_phase", "release_before_wait", "no_wgmma_fence", "read_before_wait",
    "one_arrival_too_many", "swizzle_mismatch", "no_barrier_before_store", "no_store_wait", "no_proxy_fence",
]  # fmt: skip
PIPELINE_FAULTS = ["none", "no_wait", "weak_wait", "no_barrier", "no_swizzle", "misaligned_row"]
ORDERED_LATE, EARLY = ("ordered", "late"), ("ordered", "early")
RANDOM, RANDOM_LATE = ("random", "random"), ("random", "late")


@contextmanager
def scheduled(order: str, delivery: str, seed: int = 0) -> Iterator[PrimitiveRunner]:
    module = interpreter_tests()
    before = module.schedule()
    module.set_schedule(order=order, delivery=delivery, seed=seed)
    try:
        yield PrimitiveRunner(module, "cpu")
    finally:
        module.set_schedule(order=before["order"], delivery=before["delivery"], seed=before["seed"])


def bfloat16_bits(x: torch.Tensor) -> np.ndarray:
    return x.to(torch.bfloat16).contiguous().view(torch.int16).numpy().copy()


def convolve(runner: PrimitiveRunner, shape: tuple, fault: str = "none") -> bool:
    """Runs the ring convolution on small integers; whether the result is right, bit for bit."""
    n, c, h, w, k, r, s, stride, padding, dilation = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (n, c, h, w), generator=generator).double()
    weight = torch.randint(-3, 4, (k, c, r, s), generator=generator).double()
    expected = F.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation)
    p, q = expected.shape[2:]
    y = np.zeros((n, p, q, k), np.int16)
    geometry = Host(n, c, h, w, k, r, s, p, q, *stride, *padding, *dilation, 1)
    runner.run(
        "ring_convolution", RING_FAULTS.index(fault), geometry, bfloat16_bits(x.permute(0, 2, 3, 1)),
        bfloat16_bits(weight.permute(0, 2, 3, 1)), y,
    )  # fmt: skip
    return np.array_equal(y, bfloat16_bits(expected.permute(0, 2, 3, 1)))


@pytest.mark.parametrize("shape", SHAPES, ids=range(len(SHAPES)))
def test_ring_convolution(runner, shape):
    """TMA, swizzle, mbarriers, wgmma, stmatrix and TMA's store together make an exact convolution."""
    runner.needs_hopper()
    assert convolve(runner, shape)


@pytest.mark.parametrize("seed", range(8))
def test_ring_convolution_in_any_order(seed):
    with scheduled("random", "random" if seed % 2 else "late", seed) as runner:
        assert convolve(runner, SHAPES[1])


def outcome(fault: str, order: str, delivery: str, seed: int = 0) -> str:
    """What the interpreter made of a fault: 'right', 'wrong values', or the message of the exception."""
    with scheduled(order, delivery, seed) as runner:
        try:
            return "right" if convolve(runner, SHAPES[0], fault) else "wrong values"
        except runner.module.KernelFault as e:
            return str(e)


@pytest.mark.parametrize(
    ("fault", "schedules", "message"),
    [
        ("no_init_fence", [ORDERED_LATE, RANDOM, EARLY], "no mbarrier_init_fence"),
        ("no_full_wait", [ORDERED_LATE, RANDOM, RANDOM_LATE], ""),
        ("no_empty_wait", [ORDERED_LATE, RANDOM, RANDOM_LATE], ""),
        ("too_few_bytes", [ORDERED_LATE, RANDOM, EARLY], "bytes"),
        ("too_many_bytes", [ORDERED_LATE, RANDOM, EARLY], "16 bytes missing"),
        ("wrong_full_phase", [ORDERED_LATE, RANDOM, RANDOM_LATE, EARLY], ""),
        ("release_before_wait", [ORDERED_LATE, RANDOM_LATE], ""),
        ("no_wgmma_fence", [ORDERED_LATE, RANDOM, EARLY], "no wgmma_fence"),
        ("read_before_wait", [ORDERED_LATE, RANDOM, EARLY], "wrong values"),
        ("one_arrival_too_many", [ORDERED_LATE, RANDOM, EARLY], "arrival"),
        ("swizzle_mismatch", [ORDERED_LATE, RANDOM, EARLY], "wrong values"),
        ("no_store_wait", [ORDERED_LATE, RANDOM_LATE], "bulk_wait_read"),
        ("no_proxy_fence", [ORDERED_LATE, RANDOM, EARLY], "wrote without a fence_proxy_async"),
    ],
)
def test_ring_faults_are_caught(fault, schedules, message):
    for order, delivery in schedules:
        found = outcome(fault, order, delivery)
        assert found != "right", (order, delivery)
        assert message in found, (order, delivery)


@pytest.mark.parametrize(
    ("fault", "delivery", "message"),
    [
        ("no_barrier_after_init", "late", "before mbarrier_init"),
        ("no_barrier_before_store", "early", "without a fence"),
    ],
)
def test_a_missing_barrier_is_caught_in_random_order(fault, delivery, message):
    found = [outcome(fault, "random", delivery, seed) for seed in range(10)]
    assert any(message in one for one in found)


def pipeline(fault: str, order: str, delivery: str, seed: int = 0) -> str:
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 1 << 16, (7, 16, 4, 2, 8)).astype(np.uint16)  # tile, row, warp, half, element
    out = np.zeros((7, 4, 32, 4), np.uint32)
    # register 2 * half + upper is row (lane / 4 + 8 * upper), elements 2 * (lane % 4) and the next
    blocks = tiles.reshape(7, 2, 8, 4, 2, 4, 2).transpose(0, 3, 2, 5, 4, 1, 6)
    expected = np.ascontiguousarray(blocks).view(np.uint32).reshape(out.shape)
    with scheduled(order, delivery, seed) as runner:
        try:
            runner.run("faulty_pipeline", PIPELINE_FAULTS.index(fault), len(tiles), tiles, out)
        except runner.module.KernelFault as e:
            return str(e)
    return "right" if np.array_equal(out, expected) else "wrong values"


@pytest.mark.parametrize("schedule", [ORDERED_LATE, RANDOM, RANDOM_LATE, EARLY, ("reversed", "random")])
def test_a_correct_pipeline_passes(schedule):
    assert pipeline("none", *schedule) == "right"


@pytest.mark.parametrize("fault", ["no_wait", "weak_wait"])
@pytest.mark.parametrize("schedule", [ORDERED_LATE, ("reversed", "late"), RANDOM, RANDOM_LATE])
def test_a_missing_or_weak_wait_is_caught(fault, schedule):
    assert pipeline(fault, *schedule) == "wrong values"


@pytest.mark.parametrize("schedule", [ORDERED_LATE, RANDOM_LATE, EARLY])
def test_a_missing_barrier_after_cp_async_is_caught(schedule):
    assert pipeline("no_barrier", *schedule) == "wrong values"


def test_a_misaligned_row_is_caught():
    message = pipeline("misaligned_row", *ORDERED_LATE)
    assert "ldmatrix" in message and "align" in message


def test_a_consistent_but_wrong_swizzle_shows_in_the_bank_conflicts():
    module = interpreter_tests()
    trips = {}
    for fault in ("none", "no_swizzle"):
        module.reset_statistics()
        assert pipeline(fault, *ORDERED_LATE) == "right"
        counts = module.statistics()
        trips[fault] = counts["ldmatrix trips"] / counts["ldmatrix trips needed"]
    assert trips == {"none": 1, "no_swizzle": 8}


RULES = {
    "mbarrier_misaligned": "align",
    "mbarrier_in_global_memory": "shared",
    "mbarrier_initialised_twice": "alive already",
    "mbarrier_without_arrivals": "0 arrivals",
    "mbarrier_overwritten": "overwritten",
    "mbarrier_parity": "parity is 0 or 1, not 2",
    "mbarrier_arrival_unseen": "no wait has seen",
    "mbarrier_too_many_bytes": "more than 2\\^20 - 1 bytes",
    "cp_async_misaligned_source": "source is not aligned to 8",
    "cp_async_misaligned_destination": "align",
    "cp_async_to_global_memory": "shared",
    "tma_misaligned_tile": "align",
    "tma_tile_too_large": "shared",
    "tma_wrong_rank": "3 coordinates for a tensor map of rank 2",
    "wgmma_misaligned_descriptor": "align",
    "wgmma_different_descriptors": "different descriptors",
    "wgmma_outside_of_shared_memory": "shared",
    "wgmma_changed_shape_in_flight": "in another shape",
    "registers_given_not_held": "the warpgroup holds",
    "registers_taken_never_given": "increase_registers<232>: other warpgroups must give",
    "registers_by_one_warp": "decrease_registers",
    "elect_by_half_a_warp": "elect_one",
    "mma_by_half_a_warp": "mma_tile",
    "named_barrier_counts_differ": "barrier",
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ["ordered", "random"])
def test_a_broken_rule_is_named(rule, order):
    with scheduled(order, "late") as runner, pytest.raises(runner.module.KernelFault, match=RULES[rule]) as caught:
        runner.run("broken_rule", list(RULES).index(rule), np.zeros(8192, np.uint8))
    assert caught.value.file is None or caught.value.file.endswith("planted_faults.cu")
