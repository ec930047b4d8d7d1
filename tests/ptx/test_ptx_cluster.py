"""Clusters: ranks, barriers, arrivals on other blocks' mbarriers and TMA's multicast, in the interpreter and on a GPU;
and a ring that two blocks fill for each other, with faults that the interpreter must catch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from helpers.native import PrimitiveRunner, interpreter_tests
from oracles import swizzle_wgmma, tma_im2col


@pytest.fixture(autouse=True)
def on_hopper(request: pytest.FixtureRequest) -> None:
    if "runner" in request.fixturenames:
        request.getfixturevalue("runner").needs_hopper()


@pytest.mark.parametrize(
    ("grid", "cluster"),
    [((6, 1, 1), (2, 1, 1)), ((4, 4, 3), (2, 2, 1)), ((2, 3, 4), (1, 1, 4)), ((8, 1, 1), (8, 1, 1))],
)
def test_ranks_count_along_x_first(runner: PrimitiveRunner, grid: tuple, cluster: tuple) -> None:
    ranks = np.zeros(grid[::-1], np.int32)
    runner.run("cluster_ranks", *grid, *cluster, ranks)
    z, y, x = np.indices(ranks.shape)
    size = int(np.prod(cluster))
    expected = x % cluster[0] + cluster[0] * (y % cluster[1] + cluster[1] * (z % cluster[2]))
    assert np.array_equal(ranks, 100 * expected + size)


@pytest.mark.parametrize(("blocks", "rounds"), [(2, 5), (8, 3), (1, 2)])
def test_arrivals_on_the_next_block(runner: PrimitiveRunner, blocks: int, rounds: int) -> None:
    trace = np.zeros(blocks * rounds + 1, np.int32)
    runner.run("cluster_token", blocks, rounds, trace)
    assert np.array_equal(np.diff(trace), np.tile(np.arange(blocks) + 1, rounds))


MASKS = [
    # what each block's copy reaches, block after block; 0: it makes none
    [0b11, 0b11],  # each brings half for both
    [0b10, 0b01],  # to the other one alone
    [0b11, 0b00],
    [0b1111, 0b0101, 0b1000, 0b0110],
]


def received(masks: list[int], block: int) -> list[int]:
    return [sender for sender, mask in enumerate(masks) if mask >> block & 1]


@pytest.mark.parametrize("masks", MASKS, ids=range(len(MASKS)))
def test_multicast_of_tiles(runner: PrimitiveRunner, masks: list[int]) -> None:
    """Each block's copy lies in its own part of the image of every block of its mask, and nothing anywhere else."""
    blocks, part = len(masks), 1024
    x = np.random.default_rng(0).integers(0, 1 << 16, (20, 64)).astype(np.uint16)
    corners = [(0, 1), (32, 9), (-8, 0), (40, 15)][:blocks]
    places = np.zeros((blocks, 8), np.int32)
    places[:, :2] = corners
    copies = np.array([len(received(masks, block)) for block in range(blocks)], np.int32)
    images = np.zeros((blocks, blocks * part), np.uint8)
    runner.run(
        "cluster_multicast_tile", blocks, places, np.array(masks, np.int32), copies, part, images, x, len(x)
    )  # fmt: skip
    expected = np.full_like(images, 0xEE)
    for block in range(blocks):
        for sender in received(masks, block):
            tile = swizzle_wgmma.tile(x, corners[sender], (32, 8), (1, 1))
            swizzle_wgmma.place(expected[block], sender * part, tile, 64)
    assert np.array_equal(images, expected)


@pytest.mark.parametrize("masks", MASKS[:2], ids=range(2))
def test_multicast_of_columns(runner: PrimitiveRunner, masks: list[int]) -> None:
    part = 1024
    x = np.random.default_rng(0).integers(0, 1 << 16, (2, 4, 5, 32)).astype(np.uint16)
    starts, taps = [(0, -1, -1, 0), (0, 2, 1, 0)], [(0, 2), (1, 1)]
    places = np.zeros((2, 8), np.int32)
    places[:, :4], places[:, 5:7] = starts, taps
    copies = np.array([len(received(masks, block)) for block in range(2)], np.int32)
    images = np.zeros((2, 2 * part), np.uint8)
    runner.run(
        "cluster_multicast_column", 2, places, np.array(masks, np.int32), copies, part, images, x, 5, 4, 2
    )  # fmt: skip
    expected = np.full_like(images, 0xEE)
    for block in range(2):
        for sender in received(masks, block):
            found = tma_im2col.column(x, starts[sender], taps[sender], 16, 32, (-1, -1), (-1, -1), (1, 1))
            swizzle_wgmma.place(expected[block], sender * part, found, 64)
    assert np.array_equal(images, expected)


RING_FAULTS = [
    "none", "no_cluster_sync_at_start", "no_cluster_sync_at_end", "no_remote_arrival", "arrival_at_own_block_twice",
    "mask_of_own_block", "mask_of_other_block", "mask_beyond_the_cluster", "half_the_bytes", "twice_the_bytes",
    "no_full_wait", "cluster_wait_without_arrival", "cluster_arrival_twice", "cluster_arrival_never_waited_for",
    "part_of_a_warp",
]  # fmt: skip


def ring(runner: PrimitiveRunner, fault: str = "none", tiles: int = 7) -> bool:
    """Whether both blocks added up every tile of which each brought them a half."""
    x = np.random.default_rng(0).integers(0, 1000, (tiles, 16, 2, 8)).astype(np.uint16)
    out = np.zeros((2, 256), np.int32)
    runner.run("cluster_ring", RING_FAULTS.index(fault), tiles, x, out)
    sums = x.astype(np.int32).sum(0).transpose(1, 0, 2).reshape(256)  # left half, then right half
    return np.array_equal(out, np.stack([sums, 2 * sums]))


@pytest.mark.parametrize("tiles", [1, 2, 7])
def test_a_ring_of_two_blocks(runner: PrimitiveRunner, tiles: int) -> None:
    assert ring(runner, tiles=tiles)


@contextmanager
def scheduled(order: str, delivery: str, seed: int) -> Iterator[PrimitiveRunner]:
    module = interpreter_tests()
    before = module.schedule()
    module.set_schedule(order=order, delivery=delivery, seed=seed)
    try:
        yield PrimitiveRunner(module, "cpu")
    finally:
        module.set_schedule(order=before["order"], delivery=before["delivery"], seed=before["seed"])


def outcome(fault: str, order: str, delivery: str, seed: int = 0) -> str:
    with scheduled(order, delivery, seed) as runner:
        try:
            return "right" if ring(runner, fault) else "wrong values"
        except runner.module.KernelFault as e:
            return str(e)


@pytest.mark.parametrize("seed", range(6))
def test_the_ring_in_any_order(seed: int) -> None:
    assert outcome("none", "random", ("late", "random", "early")[seed % 3], seed) == "right"


ANY = [("ordered", "late"), ("reversed", "late"), ("random", "random"), ("random", "late")]


@pytest.mark.parametrize(
    ("fault", "schedules", "message"),
    [
        ("mask_of_own_block", ANY, "deadlock: no thread of the cluster can go on"),
        ("mask_of_other_block", ANY, "deadlock"),
        ("mask_beyond_the_cluster", ANY, "block 2 is not one of the cluster's 2"),
        ("half_the_bytes", ANY, "bytes"),
        ("twice_the_bytes", ANY, "bytes"),
        ("no_remote_arrival", ANY, "parity"),
        ("no_full_wait", ANY, ""),
        ("cluster_wait_without_arrival", ANY, "did not call cluster_arrive before"),
        ("cluster_arrival_twice", ANY, "arrived before and has not called cluster_wait"),
        ("cluster_arrival_never_waited_for", ANY, "ended between cluster_arrive and cluster_wait"),
        ("part_of_a_warp", ANY, "cluster_arrive"),
    ],
)
def test_faults_of_the_ring_are_caught(fault: str, schedules: list[tuple[str, str]], message: str) -> None:
    for order, delivery in schedules:
        found = outcome(fault, order, delivery)
        assert found not in ("right", "") and message in found, (order, delivery, found)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no_cluster_sync_at_start", "before mbarrier_init"),
        ("no_cluster_sync_at_end", "of the cluster has ended"),
        ("arrival_at_own_block_twice", ""),
    ],
)
def test_races_of_two_blocks_are_caught_in_some_order(fault: str, message: str) -> None:
    """What goes wrong only if one block is faster than the other needs an order in which it is."""
    found = [outcome(fault, "random", "random", seed) for seed in range(10)]
    assert any(one != "right" and message in one for one in found), found


def test_a_deadlock_lists_the_waits_of_every_block() -> None:
    report = outcome("mask_of_own_block", "ordered", "late")
    assert "block (0, 0, 0)" in report and "block (1, 0, 0)" in report and report.count("parity 0 of the mbarrier") >= 2
