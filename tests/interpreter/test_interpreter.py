"""The interpreter runs kernels without a fault alike in every order; its settings; what it costs."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import ModuleType

import pytest
import torch

from helpers.native import pointers
from helpers.processes import children

# --- kernels without a fault -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("os_threads", [1, 3])
def test_block_sum(any_order: ModuleType, os_threads: int) -> None:
    any_order.set_threads(os_threads)
    x = torch.randint(-99, 100, (37, 256)).float()
    out = torch.full((37,), torch.nan)
    any_order.run("block_sum_test", *pointers(x, out, 37))
    assert torch.equal(out, x.sum(1))


@pytest.mark.parametrize("threads", [1, 33, 256])
def test_barriers_count_the_threads_still_alive(any_order: ModuleType, threads: int) -> None:
    out = torch.full((threads,), -1, dtype=torch.int32)
    any_order.run("leave_one_by_one_test", *pointers(out, threads))
    assert out.tolist() == list(range(threads))


def test_three_dimensional_blocks_and_dynamic_shared_memory(any_order: ModuleType) -> None:
    x = torch.randint(0, 1 << 30, (4, 24, 24), dtype=torch.int32)
    out = torch.zeros_like(x)
    any_order.run("transpose_test", *pointers(x, out, 24))
    assert torch.equal(out, x.transpose(1, 2))


@pytest.mark.parametrize("kind, dtype", [(0, torch.int32), (1, torch.float32), (2, torch.float64), (3, torch.int64)])
def test_shuffles(interpreter: ModuleType, kind: int, dtype: torch.dtype) -> None:
    x = torch.randperm(1000)[:32].to(dtype)
    for width in (1, 2, 4, 8, 16, 32):
        for amount in (0, 1, 3, 7, 16, 31):
            out = torch.zeros(4, 32, dtype=dtype)
            interpreter.run("shuffles_test", kind, *pointers(x, out), amount, width)
            for lane in range(32):
                start = lane // width * width
                end = start + width
                xor = lane ^ amount
                sources = [
                    start + amount % width,
                    lane - amount if lane - amount >= start else lane,
                    lane + amount if lane + amount < end else lane,
                    xor if xor < end else lane,
                ]
                assert out[:, lane].tolist() == x[sources].tolist(), (lane, width, amount)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_votes(any_order: ModuleType, share: float) -> None:
    x = (torch.rand(64) < share).int()
    out = torch.zeros(64, 7, dtype=torch.int32)
    any_order.run("votes_test", *pointers(x, out))
    for t in range(64):
        warp = x[t // 32 * 32 :][:32].tolist()
        ballot = sum(bit << i for i, bit in enumerate(warp))
        half = ballot & (0xFFFF if t % 32 < 16 else 0xFFFF0000)
        expected = [ballot, half, any(warp), all(warp), int(x.sum()), bool(x.any()), bool(x.all())]
        assert [v & 0xFFFFFFFF for v in out[t].tolist()] == expected


def test_neighbours_through_shared_memory(any_order: ModuleType) -> None:
    x = torch.rand(128)
    out = torch.zeros(128)
    any_order.run("neighbours_test", *pointers(x, out))
    assert torch.equal(out, x.view(4, 32).roll(-1, 1).flatten())


def test_atomics_between_os_threads(any_order: ModuleType) -> None:
    any_order.set_threads(4)
    blocks = 64
    total, most, least, spun = (torch.tensor([v], dtype=torch.int32) for v in (0, 0, 2**31 - 1, 0))
    wide = torch.zeros(1, dtype=torch.int64)
    any_order.run("counters_test", *pointers(total, most, least, wide, spun, blocks))
    n = blocks * 256
    assert (total.item(), most.item(), least.item(), spun.item()) == (n, n - 1, 7, n)
    assert wide.item() == n * 2**32 + n * (n - 1) // 2


def test_static_arrays_are_told_apart_by_template_instance(any_order: ModuleType) -> None:
    out = torch.zeros(8)
    any_order.run("instances_test", *pointers(out))
    assert out.tolist() == [101.0 + 2 * (7 - t) for t in range(8)]


def first_turns(interpreter: ModuleType, order: str, seed: int) -> list[int]:
    """The numbers of 3 x 64 threads in the order of their first turns."""
    interpreter.set_schedule(order, seed)
    counter, out = torch.zeros(1, dtype=torch.int32), torch.zeros(192, dtype=torch.int32)
    interpreter.run("first_turns_test", *pointers(counter, out))
    return out.tolist()


def test_orders(interpreter: ModuleType) -> None:
    assert first_turns(interpreter, "ordered", 0) == list(range(192))
    assert first_turns(interpreter, "reversed", 0) == list(range(192))[::-1]
    runs = [first_turns(interpreter, "random", seed) for seed in range(6)]
    assert all(sorted(run) == list(range(192)) for run in runs)
    assert len({tuple(run) for run in runs}) == 6
    for run in runs:  # the threads of a block, not just the blocks, come in another order, and warps mix
        block = [t % 64 for t in run[:64]]
        first_warp = [t for t in block if t < 32]
        assert first_warp != sorted(first_warp) and len({t // 32 for t in block[:32]}) == 2
    assert len({tuple(t // 64 for t in run) for run in runs}) > 1


def test_same_seed_same_run(interpreter: ModuleType) -> None:
    assert first_turns(interpreter, "random", 5) == first_turns(interpreter, "random", 5)

    def counts(os_threads: int) -> dict[str, int]:
        interpreter.set_threads(os_threads)
        interpreter.reset_statistics()
        x, out = torch.zeros(8, 256), torch.zeros(8)
        interpreter.run("block_sum_test", *pointers(x, out, 8))
        return interpreter.statistics()

    assert counts(1) == counts(1) == counts(3)


def test_launches_from_several_python_threads(interpreter: ModuleType) -> None:
    interpreter.set_threads(2)
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = torch.randint(-9, 10, (5, 256), generator=torch.Generator().manual_seed(seed)).float()
        for _ in range(20):
            out = torch.zeros(5)
            interpreter.run("block_sum_test", *pointers(x, out, 5))
            if not torch.equal(out, x.sum(1)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_python_runs_during_a_launch(interpreter: ModuleType) -> None:
    """The lock is let go: this thread counts while the kernel runs."""
    done = threading.Event()

    def work() -> None:
        interpreter.run("speed_barriers", 1024, 3000)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    ticks = 0
    while not done.is_set():
        ticks += 1
        time.sleep(0.001)
    thread.join()
    assert ticks > 3


@pytest.mark.parametrize("during_a_launch", [False, True])
def test_a_forked_child_can_launch(interpreter: ModuleType, during_a_launch: bool) -> None:
    """DataLoader workers are forked, perhaps while OS threads are at work that do not exist in the child."""
    interpreter.set_threads(2)
    x, out = torch.ones(9, 256), torch.zeros(9)
    interpreter.run("block_sum_test", *pointers(x, out, 9))
    other = threading.Thread(target=interpreter.run, args=("speed_blocks", 1024, 20000 if during_a_launch else 1))
    other.start()
    if during_a_launch:
        time.sleep(0.1)
        assert other.is_alive()
    child = os.fork()
    if child == 0:
        out.zero_()
        interpreter.run("block_sum_test", *pointers(x, out, 9))
        helped = sys.platform != "linux" or len(os.listdir("/proc/self/task")) == 2
        os._exit(0 if out.sum().item() == 9 * 256 and helped else 1)
    deadline = time.monotonic() + 30
    while not (done := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not done[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    other.join()
    assert done[0], "the forked child hangs"
    assert os.waitstatus_to_exitcode(done[1]) == 0


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"order": "sorted"}, "order must be ordered, reversed or random, got 'sorted'"),
        ({"delivery": "never"}, "delivery must be early, late or random, got 'never'"),
    ],
)
def test_settings_are_checked(interpreter: ModuleType, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interpreter.set_schedule(**arguments)


def test_settings_from_the_environment() -> None:
    code = """
import importlib
from cnnkernels import native
native.load("interpreter")
print(importlib.import_module("cnnkernels._interpreter").schedule())
"""

    settings = {"SCHEDULE": "random", "SEED": "42", "DELIVERY": "early", "THREADS": "3"}
    wrong = {"CNNKERNELS_SCHEDULE": "backwards"}, {"CNNKERNELS_SEED": " -1"}
    out, schedule, seed = children(code, {f"CNNKERNELS_{k}": v for k, v in settings.items()}, *wrong)
    expected = {"order": "random", "seed": 42, "delivery": "early", "threads": 3, "most_shared_bytes": 163 * 1024}
    assert out == str(expected)
    assert "CNNKERNELS_SCHEDULE must be ordered, reversed or random, got 'backwards'" in schedule
    assert "CNNKERNELS_SEED must be a number, got ' -1'" in seed


# --- cost -------------------------------------------------------------------------------------------------------------


def test_cost_of_a_switch(interpreter: ModuleType) -> None:
    """A thread's turn, barrier and warp meeting included; the bound only catches a change of kind."""
    for kernel in ("speed_barriers", "speed_shuffles"):
        best = float("inf")
        for _ in range(5):
            interpreter.reset_statistics()
            start = time.process_time()
            interpreter.run(kernel, 256, 500, 0)
            best = min(best, (time.process_time() - start) / interpreter.statistics()["switches"])
        print(f"{kernel}: {best * 1e9:.1f} ns a switch")
        assert best < 1e-6
