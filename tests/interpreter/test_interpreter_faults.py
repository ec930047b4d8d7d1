"""The interpreter catches the faults planted in tests/csrc/faults.cu; docs/interpreter.md has the list."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cnnkernels.testing.guarded import guarded
from helpers.native import pointers

FAULTS = "tests/csrc/faults.cu"


def line_of(text: str) -> int:
    """The line of faults.cu, counted from 1, that contains a text first."""
    source = (Path(__file__).parent.parent / "csrc/faults.cu").read_text().splitlines()
    return next(i for i, line in enumerate(source, 1) if text in line)


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
def test_unset_accumulator(interpreter: ModuleType, faulty: bool) -> None:
    x = torch.rand(32, 4)
    out = torch.zeros(32)
    interpreter.run("unset_accumulator_test", faulty, *pointers(x, out))
    assert torch.allclose(out, x.sum(1)) != faulty


# --- faults that end the launch ---------------------------------------------------------------------------------------


def fault(interpreter: ModuleType, name: str, *arguments: object) -> Exception:
    """The fault a launch ends with; the interpreter must be usable afterwards."""
    with pytest.raises(interpreter.KernelFault) as caught:
        interpreter.run(f"{name}_test", *pointers(*arguments))
    x, out = torch.ones(2, 256), torch.zeros(2)
    interpreter.run("block_sum_test", *pointers(x, out, 2))
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
def test_dynamic_shared_overrun_by_one(interpreter: ModuleType, bytes: int, index: int) -> None:
    if bytes:
        interpreter.run("dynamic_overrun_test", bytes, 49)
    message = str(fault(interpreter, "dynamic_overrun", bytes, index))
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
def test_named_barrier_faults(interpreter: ModuleType, kind: int, message: str) -> None:
    assert message in str(fault(interpreter, "barrier_misuse", kind))


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


def test_wild_pointer_with_faulthandler(interpreter: ModuleType) -> None:
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


def test_division_by_zero(interpreter: ModuleType) -> None:
    out = torch.zeros(32, dtype=torch.int32)
    interpreter.run("divide_test", 3, *pointers(out))
    assert out[31].item() == 10
    assert "integer division by zero" in str(fault(interpreter, "divide", 0, out))


def test_exceptions_of_the_standard_library(any_order: ModuleType) -> None:
    error = fault(any_order, "throws")
    assert "C++ exception in a kernel: from a standard container" in str(error) and error.thread == (3, 0, 0)


@pytest.mark.parametrize("order, block", [("ordered", 2), ("reversed", 199), ("random", None)])
def test_the_first_fault_is_reported_whatever_the_number_of_os_threads(
    interpreter: ModuleType, order: str, block: int | None
) -> None:
    blocks = set()
    for os_threads in (1, 2, 3, 5):
        interpreter.set_schedule(order, 7)
        interpreter.set_threads(os_threads)
        error = fault(interpreter, "trap", 200)
        assert error.line == line_of("__trap()") and error.lane == 9
        blocks.add(error.block[0])
    assert len(blocks) == 1 and block in (None, *blocks)


def test_much_static_shared_memory(interpreter: ModuleType) -> None:
    assert "48 KB is the most" in str(fault(interpreter, "much_static"))


def test_a_kernel_cannot_launch(interpreter: ModuleType) -> None:
    assert "a kernel launched a kernel" in str(fault(interpreter, "nested"))


@pytest.mark.parametrize(
    "grid, block, cluster, shared, message",
    [
        ((1, 1, 1), (1025, 1, 1), (1, 1, 1), 0, "1 to 1024 threads"),
        ((1, 1, 1), (0, 1, 1), (1, 1, 1), 0, "1 to 1024 threads"),
        ((1, 1, 1), (1, 1, 65), (1, 1, 1), 0, "at most 64 of them along z"),
        ((1, 65536, 1), (32, 1, 1), (1, 1, 1), 0, "got grid (1, 65536, 1) and block (32, 1, 1)"),
        ((0, 1, 1), (32, 1, 1), (1, 1, 1), 0, "a grid has"),
        ((9, 1, 1), (32, 1, 1), (9, 1, 1), 0, "a cluster has 1 to 8 blocks, got (9, 1, 1)"),
        ((3, 1, 1), (32, 1, 1), (2, 1, 1), 0, "the grid (3, 1, 1) is no multiple of the cluster (2, 1, 1)"),
        ((1, 1, 1), (32, 1, 1), (1, 1, 1), 232449, "232449 bytes of dynamic shared memory"),
    ],
)
def test_launches_that_hardware_refuses(interpreter, grid, block, cluster, shared, message) -> None:
    with pytest.raises(RuntimeError, match=re.escape(message)):
        interpreter.run("extents_test", *grid, *block, *cluster, shared)
