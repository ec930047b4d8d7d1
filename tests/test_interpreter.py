"""The interpreter itself: kernels without a fault run alike in every order, kernels with one are caught.

docs/interpreter.md lists what is caught, row by row, with the test of this file (or its neighbours) that shows it.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cnnkernels import native
from cnnkernels.testing.guarded import guarded

ORDERS = ["ordered", "reversed", "random"]
FAULTS = "tests/csrc/faults.cu"


@pytest.fixture
def machine() -> Iterator[ModuleType]:
    """The test kernels in the interpreter, with one OS thread and the default schedule."""
    native.load("interpreter")  # makes CNNKERNELS_NATIVE_DIR hold
    module = importlib.import_module("cnnkernels._interpreter_tests")
    before = module.schedule()
    module.set_schedule("ordered", 0, "late")
    module.set_threads(1)
    yield module
    module.set_schedule(before["order"], before["seed"], before["delivery"])
    module.set_threads(before["threads"])


@pytest.fixture(params=[("ordered", 0), ("reversed", 0)] + [("random", seed) for seed in range(8)], ids=str)
def any_order(request: pytest.FixtureRequest, machine: ModuleType) -> ModuleType:
    machine.set_schedule(*request.param)
    return machine


def pointers(*arguments: object) -> list[object]:
    return [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]


def line_of(text: str) -> int:
    """The line of faults.cu, counted from 1, that contains a text first."""
    source = (Path(__file__).parent / "csrc/faults.cu").read_text().splitlines()
    return next(i for i, line in enumerate(source, 1) if text in line)


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
def test_shuffles(machine: ModuleType, kind: int, dtype: torch.dtype) -> None:
    x = torch.randperm(1000)[:32].to(dtype)
    for width in (1, 2, 4, 8, 16, 32):
        for amount in (0, 1, 3, 7, 16, 31):
            out = torch.zeros(4, 32, dtype=dtype)
            machine.run("shuffles_test", kind, *pointers(x, out), amount, width)
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


def test_same_seed_same_run(machine: ModuleType) -> None:
    """The number of switches is a fingerprint of the order the threads ran in."""

    def fingerprint(seed: int, os_threads: int) -> dict[str, int]:
        machine.set_schedule("random", seed)
        machine.set_threads(os_threads)
        machine.reset_statistics()
        x, out = torch.zeros(8, 256), torch.zeros(8)
        machine.run("block_sum_test", *pointers(x, out, 8))
        return machine.statistics()

    assert fingerprint(1, 1) == fingerprint(1, 1) == fingerprint(1, 3)
    assert len({fingerprint(seed, 1)["switches"] for seed in range(8)}) > 1


def test_launches_from_several_python_threads(machine: ModuleType) -> None:
    machine.set_threads(2)
    wrong: list[int] = []

    def work(seed: int) -> None:
        x = torch.randint(-9, 10, (5, 256), generator=torch.Generator().manual_seed(seed)).float()
        for _ in range(20):
            out = torch.zeros(5)
            machine.run("block_sum_test", *pointers(x, out, 5))
            if not torch.equal(out, x.sum(1)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_python_runs_during_a_launch(machine: ModuleType) -> None:
    """The lock is let go: this thread counts while the kernel runs."""
    done = threading.Event()

    def work() -> None:
        machine.run("speed_barriers", 1024, 3000)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    ticks = 0
    while not done.is_set():
        ticks += 1
        time.sleep(0.001)
    thread.join()
    assert ticks > 3


def test_a_forked_child_can_launch(machine: ModuleType) -> None:
    """DataLoader workers are forked; the OS threads that help are not there in the child."""
    import os

    machine.set_threads(2)
    x, out = torch.ones(9, 256), torch.zeros(9)
    machine.run("block_sum_test", *pointers(x, out, 9))
    child = os.fork()
    if child == 0:
        out.zero_()
        machine.run("block_sum_test", *pointers(x, out, 9))
        os._exit(0 if out.sum().item() == 9 * 256 else 1)
    deadline = time.monotonic() + 60
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        assert time.monotonic() < deadline, "the forked child hangs"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status) == 0


# --- faults caught by wrong values: shared memory and locals start as NaN ---------------------------------------------


@pytest.mark.parametrize("kernel, threads", [("missing_syncthreads", 128), ("missing_syncwarp", 32)])
@pytest.mark.parametrize("faulty", [False, True])
def test_missing_synchronisation(any_order: ModuleType, kernel: str, threads: int, faulty: bool) -> None:
    x = torch.rand(threads)
    out = torch.zeros(threads)
    any_order.run(f"{kernel}_test", faulty, *pointers(x, out))
    assert torch.equal(out, x.flip(0)) != faulty
    assert out.isnan().any() == faulty


@pytest.mark.parametrize("faulty", [False, True])
def test_stage_refilled_while_read(any_order: ModuleType, faulty: bool) -> None:
    x = torch.randint(0, 1000, (6, 128)).float()
    out = torch.zeros(128)
    any_order.run("stage_refilled_test", faulty, *pointers(x, out), 6)
    assert torch.equal(out, x.sum(0).flip(0)) != faulty


def test_uninitialised_shared_memory_is_nan(any_order: ModuleType) -> None:
    out = torch.zeros(32)
    any_order.run("uninitialised_shared_test", *pointers(out))
    assert out.isnan().tolist() == [False] * 31 + [True]


@pytest.mark.parametrize("faulty", [False, True])
def test_unset_accumulator(machine: ModuleType, faulty: bool) -> None:
    x = torch.rand(32, 4)
    out = torch.zeros(32)
    machine.run("unset_accumulator_test", faulty, *pointers(x, out))
    assert torch.allclose(out, x.sum(1)) != faulty


# --- faults that end the launch ---------------------------------------------------------------------------------------


def fault(machine: ModuleType, name: str, *arguments: object) -> Exception:
    """The fault a launch ends with; the interpreter must be usable afterwards."""
    with pytest.raises(machine.KernelFault) as caught:
        machine.run(f"{name}_test", *pointers(*arguments))
    x, out = torch.ones(2, 256), torch.zeros(2)
    machine.run("block_sum_test", *pointers(x, out, 2))
    assert out.tolist() == [256, 256]
    assert isinstance(caught.value, RuntimeError)
    return caught.value


def test_divergent_barrier(any_order: ModuleType) -> None:
    error = fault(any_order, "divergent_barrier")
    first = line_of("threadIdx.x < 64")
    assert error.file == FAULTS and error.line in (first + 1, first + 3)
    assert error.block == (0, 0, 0) and error.thread is not None and error.warp == error.thread[0] // 32
    other = ({first + 1, first + 3} - {error.line}).pop()
    assert f"{FAULTS}:{other}" in str(error) and "divergent barrier" in str(error)


def test_deadlock_report_lists_every_wait(any_order: ModuleType) -> None:
    message = str(fault(any_order, "deadlock"))
    start = line_of("deadlock() {")
    assert "deadlock" in message and "finished: 32 threads" in message
    for wait in (
        rf"bar_sync of barrier 3 at {FAULTS}:{start + 3}: threads 32-63",
        rf"__syncwarp with mask 0xffffffff at {FAULTS}:{start + 5}: threads 64-79",
        rf"a flag that nobody sets at {FAULTS}:{start + 7}: threads 80-95",
        rf"__syncthreads at {FAULTS}:{start + 9}: threads 96-127",
    ):
        assert wait in message


@pytest.mark.parametrize("index, where", [(64, "0 bytes past the end of"), (-1, "4 bytes before the start of")])
def test_static_shared_overrun(any_order: ModuleType, index: int, where: str) -> None:
    any_order.run("static_overrun_test", 63)
    error = fault(any_order, "static_overrun", index)
    assert f"{where} 'first' ({FAULTS}:{line_of('CNN_SHARED(int, first')})" in str(error)
    assert error.line == line_of("second[threadIdx.x] = 2;") + 1  # the barrier that noticed


@pytest.mark.parametrize("bytes, index", [(100, 50), (100, -1), (0, 0), (232448, 116224)])
def test_dynamic_shared_overrun_by_one(machine: ModuleType, bytes: int, index: int) -> None:
    if bytes:
        machine.run("dynamic_overrun_test", bytes, 49)
    message = str(fault(machine, "dynamic_overrun", bytes, index))
    assert ("2 bytes before the start" if index < 0 else "0 bytes past the end") in message
    assert "dynamic shared memory" in message


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_out_of_bounds_of_a_guarded_tensor(any_order: ModuleType, write: bool, after: bool) -> None:
    x, out = guarded(torch.rand(65), after, any_order), torch.zeros(65)
    y = guarded(torch.zeros(64), after, any_order)
    shift = 1 if after else 0
    any_order.run("copy_test", *pointers(x, out), shift, 64)  # the last, or first, element itself
    assert torch.equal(out[:64], x[shift:][:64])
    if write:
        source = torch.rand(128)
        start = y.data_ptr() + (0 if after else -4)
        error = fault(any_order, "copy", source, start, 0, 65 if after else 64)
    else:
        error = fault(any_order, "copy", x, out, 2 if after else -1, 64)
    assert error.thread == ((64 if write else 63, 0, 0) if after else (0, 0, 0))
    expected = "0 bytes past the end" if after else "4 bytes before the start"
    assert f"{expected} of a guarded allocation of {256 if write else 260} bytes" in str(error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8])
def test_guarded_tensors_are_tensors(dtype: torch.dtype) -> None:
    x = torch.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7).to(dtype).to(memory_format=torch.channels_last)
    for after in (False, True):
        y = guarded(x, after)
        assert torch.equal(x, y) and x.stride() == y.stride() and x.dtype == y.dtype
        view = y[1:]
        del y
        assert torch.equal(view, x[1:])  # a view keeps the memory
    assert guarded(torch.empty(0)).numel() == 0
    with pytest.raises(ValueError, match=r"dense.*\(4, 2\)"):
        guarded(torch.rand(3, 4)[:, ::2])


@pytest.mark.parametrize(
    "kernel, message",
    [
        ("outside_mask", "__syncwarp: the calling lane is not in its own mask 0x0000ffff"),
        ("exited_lane", r"__shfl_sync: .*lane"),
        ("exits_later", "__shfl_sync: .*lane"),
        ("two_shuffles", "__shfl_sync with mask 0xffffffff: lanes 0x[0-9a-f]{8} of the mask are in another operation"),
        ("two_masks", "__shfl_sync with mask 0xfffffff[ef]: lanes .* of the mask are in another operation"),
        ("source_outside", "__shfl_sync: reads lane 20, which is not in the mask"),
        ("bad_width", "__shfl_xor_sync: the width must be a power of two up to 32, got 24"),
    ],
)
def test_warp_faults(any_order: ModuleType, kernel: str, message: str) -> None:
    out = torch.zeros(64, dtype=torch.int32)
    error = fault(any_order, kernel, out)
    assert re.search(message, str(error))
    assert error.file == FAULTS and error.lane is not None
    body = line_of(f" {kernel}(")
    assert body <= error.line <= body + 8
    if kernel.startswith("exit"):
        assert "exited" in str(error)


@pytest.mark.parametrize(
    "kind, message",
    [
        (0, "barrier 16 is not one of 0 to 15"),
        (1, "must be a multiple of 32, got 63"),
        (2, "but it was begun for"),
        (3, "bar_arrive needs the number of threads"),
        (4, "deadlock"),
    ],
)
def test_named_barrier_faults(machine: ModuleType, kind: int, message: str) -> None:
    assert message in str(fault(machine, "barrier_misuse", kind))


def test_stack_overflow_is_a_fault(any_order: ModuleType) -> None:
    out = torch.zeros(1, dtype=torch.int32)
    any_order.run("recursion_test", 100, *pointers(out))
    error = fault(any_order, "recursion", 1 << 20, out)
    assert "stack overflow" in str(error) and error.thread == (40, 0, 0)


@pytest.mark.parametrize("os_threads", [1, 3])
def test_wild_pointer_names_block_and_thread(any_order: ModuleType, os_threads: int) -> None:
    any_order.set_threads(os_threads)
    error = fault(any_order, "wild", 64)
    assert error.block == (3, 0, 0) and error.thread == (33, 0, 0)
    assert (error.warp, error.lane) == (1, 1)
    assert "invalid access to address 0x40" in str(error) and "addr2line" in str(error)
    assert f"last wait was at {FAULTS}:{line_of('wild(float* pointer)') + 1}" in str(error)
    assert "non-canonical" in str(fault(any_order, "wild", 0x4242424242424242))


def test_wild_pointer_with_faulthandler(machine: ModuleType) -> None:
    """Python's own handler, whenever it was installed, does not see a kernel's SIGSEGV, and sees all others."""
    code = """
import ctypes, faulthandler, importlib
from cnnkernels import native
native.load("interpreter")
m = importlib.import_module("cnnkernels._interpreter_tests")
for _ in range(2):
    faulthandler.enable()
    try:
        m.run("wild_test", 64)
    except m.KernelFault as e:
        print("caught", e.thread)
ctypes.string_at(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("caught (33, 0, 0)") == 2
    assert "Segmentation fault" in done.stderr and done.returncode < 0


def test_division_by_zero(machine: ModuleType) -> None:
    out = torch.zeros(32, dtype=torch.int32)
    machine.run("divide_test", 3, *pointers(out))
    assert out[31].item() == 10
    assert "integer division by zero" in str(fault(machine, "divide", 0, out))


def test_exceptions_of_the_standard_library(any_order: ModuleType) -> None:
    error = fault(any_order, "throws")
    assert "C++ exception in a kernel: from a standard container" in str(error) and error.thread == (3, 0, 0)


@pytest.mark.parametrize("order, block", [("ordered", 2), ("reversed", 199), ("random", None)])
def test_the_first_fault_is_reported_whatever_the_number_of_os_threads(
    machine: ModuleType, order: str, block: int | None
) -> None:
    blocks = set()
    for os_threads in (1, 2, 3, 5):
        machine.set_schedule(order, 7)
        machine.set_threads(os_threads)
        error = fault(machine, "trap", 200)
        assert error.line == line_of("__trap()") and error.lane == 9
        blocks.add(error.block[0])
    assert len(blocks) == 1 and block in (None, *blocks)


def test_much_static_shared_memory(machine: ModuleType) -> None:
    assert "48 KB is the most" in str(fault(machine, "much_static"))


def test_a_kernel_cannot_launch(machine: ModuleType) -> None:
    assert "a kernel launched a kernel" in str(fault(machine, "nested"))


@pytest.mark.parametrize(
    "grid, block, cluster, shared, message",
    [
        ((1, 1, 1), (1025, 1, 1), (1, 1, 1), 0, "1 to 1024 threads"),
        ((1, 1, 1), (0, 1, 1), (1, 1, 1), 0, "1 to 1024 threads"),
        ((1, 1, 1), (1, 1, 65), (1, 1, 1), 0, "at most 64 of them along z"),
        ((1, 65536, 1), (32, 1, 1), (1, 1, 1), 0, "got grid (1, 65536, 1) and block (32, 1, 1)"),
        ((0, 1, 1), (32, 1, 1), (1, 1, 1), 0, "a grid has"),
        ((2, 1, 1), (32, 1, 1), (2, 1, 1), 0, "clusters of one block, got (2, 1, 1)"),
        ((1, 1, 1), (32, 1, 1), (1, 1, 1), 232449, "232449 bytes of dynamic shared memory"),
    ],
)
def test_launches_that_hardware_refuses(machine, grid, block, cluster, shared, message) -> None:
    with pytest.raises(RuntimeError, match=re.escape(message)):
        machine.run("extents_test", *grid, *block, *cluster, shared)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"order": "sorted"}, "order must be ordered, reversed or random, got 'sorted'"),
        ({"delivery": "never"}, "delivery must be early, late or random, got 'never'"),
    ],
)
def test_settings_are_checked(machine: ModuleType, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        machine.set_schedule(**arguments)


def test_settings_from_the_environment() -> None:
    code = """
import importlib
from cnnkernels import native
native.load("interpreter")
print(importlib.import_module("cnnkernels._interpreter").schedule())
"""
    import os

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "CNNKERNELS_SEED"} | variables
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
        )

    settings = {"SCHEDULE": "random", "SEED": "42", "DELIVERY": "early", "THREADS": "3"}
    out = run(**{f"CNNKERNELS_{k}": v for k, v in settings.items()}).stdout
    assert out.strip() == str({"order": "random", "seed": 42, "delivery": "early", "threads": 3})
    bad = run(CNNKERNELS_SCHEDULE="backwards")
    assert "CNNKERNELS_SCHEDULE must be ordered, reversed or random, got 'backwards'" in bad.stderr
    assert "CNNKERNELS_SEED must be a number, got '-1'" in run(CNNKERNELS_SEED="-1").stderr


# --- cost -------------------------------------------------------------------------------------------------------------


def test_cost_of_a_switch(machine: ModuleType) -> None:
    """A thread's turn, barrier and warp meeting included; the bound only catches a change of kind."""
    for kernel in ("speed_barriers", "speed_shuffles"):
        best = float("inf")
        for _ in range(5):
            machine.reset_statistics()
            start = time.process_time()
            machine.run(kernel, 256, 500, 0)
            best = min(best, (time.process_time() - start) / machine.statistics()["switches"])
        print(f"{kernel}: {best * 1e9:.1f} ns a switch")
        assert best < 1e-6
