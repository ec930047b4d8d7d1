"""Launches through the runtime without a device: what the host's code passes on, byte for byte, and what comes of a
kernel that faults."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from cnnkernels.testing.guarded import guarded
from helpers import emulated
from helpers.emulated import emulated_tests, kernel

# Of `parameters` in tests/csrc/launches.cu, as the ABI lays them out, gaps as zeros.
LAYOUT = "<b7x d h2x 2i 4b B7x Q"


@pytest.fixture
def module() -> Iterator[ModuleType]:
    module = emulated_tests()
    before = module.schedule()
    yield module
    module.set_recording(False)
    module.set_memory([])
    module.reset_device()
    module.set_schedule(**{name: value for name, value in before.items() if name != "threads"})


def test_parameters_byte_for_byte(module: ModuleType) -> None:
    module.set_recording(True)
    module.run("launch_parameters", -7, 10, -300, 1 << 30, -5, -100, 250, 0x7F0012345678)
    ((grid, block, cluster, shared_bytes, name, parameters),) = module.set_recording(False)
    assert (grid, block, cluster, shared_bytes) == ((3, 2, 1), (32, 1, 1), (1, 1, 1), 0)
    assert name == kernel(module, "parameters")
    assert parameters == struct.pack(LAYOUT, -7, 2.5, -300, 1 << 30, -5, 1, 2, 3, -100, 250, 0x7F0012345678)


def test_shared_memory_is_asked_for(module: ModuleType) -> None:
    """Beyond 48 KB the host asks for it first, as common/this_gpu.cu does on a GPU."""
    module.set_recording(True)
    for elements in (100, 40000):
        module.run("launch_shares", 0, elements)
    assert [launch[3] for launch in module.set_recording(False)] == [400, 160000]
    before = module.standing_for()
    module.stand_for("rtx4090")
    with pytest.raises(RuntimeError, match=r"raising a kernel's shared memory limit: invalid argument \(160000 bytes"):
        module.run("launch_shares", 0, 40000)
    module.stand_for(before)


@pytest.mark.parametrize("gpu", ["a100", "h200"])
def test_a_kernel_runs(module: ModuleType, gpu: str) -> None:
    before, standing = module.statistics(), module.standing_for()
    module.stand_for(gpu)
    out = torch.zeros(1, dtype=torch.float64)
    module.run("launch_parameters", -7, 10, -300, 1 << 30, -5, -100, 250, out.data_ptr())
    assert out.item() == -7 + 2.5 - 300 + (1 << 30) - 5 + 6 - 100 + 250
    shared = torch.zeros(256, dtype=torch.int32)
    module.run("launch_shares", shared.data_ptr(), 100)
    threads = torch.arange(256, dtype=torch.int32)
    assert torch.equal(shared, 255 - threads + (99 - threads) * (threads < 100))
    after = module.statistics()
    assert after["launches"] == before["launches"] + 2
    assert after["warp_instructions"] > before["warp_instructions"]
    assert after["thread_instructions"] - before["thread_instructions"] > 256 * 8
    module.stand_for(standing)


def test_memory_that_was_not_declared_is_a_fault(module: ModuleType) -> None:
    """And after it, as on a GPU, nothing runs any more."""
    out = torch.full((32,), -1, dtype=torch.int32)
    for declared, elements in ((32, 31), (16, 15)):
        module.set_memory([(out.data_ptr(), 4 * declared)])
        module.run("launch_one_too_far", out.data_ptr(), elements)
        assert out.tolist()[: elements + 1] == list(range(elements + 1))
    module.set_memory([(out.data_ptr(), 4 * 16)])
    with pytest.raises(module.KernelFault, match="one_too_far"):
        module.run("launch_one_too_far", out.data_ptr(), 16)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"launching a kernel: unspecified launch failure \(an earlier"):
            module.run("launch_one_too_far", out.data_ptr(), 15)
    assert (
        module.cuda.launch(kernel(module, "one_too_far"), (1, 1, 1), (32, 1, 1), parameters=[bytes(8), bytes(4)])[0]
        == emulated.LAUNCH_FAILURE
    )
    module.reset_device()
    module.run("launch_one_too_far", out.data_ptr(), 15)


def test_guarded_memory(module: ModuleType) -> None:
    """Behind it, or before it, a page that no launch may touch, whatever else it may."""
    behind, before = (guarded(torch.zeros(16, dtype=torch.int32), after, module) for after in (True, False))
    for place in (behind, before):
        module.run("launch_one_too_far", place.data_ptr(), 15)
        assert place.tolist() == list(range(16))
    module.run("launch_one_too_far", before.data_ptr(), 16)  # its page goes on
    for address in (behind.data_ptr() + 4, before.data_ptr() - 4):
        with pytest.raises(module.KernelFault, match="outside of what the launch may touch"):
            module.run("launch_one_too_far", address, 15)
        module.reset_device()
    with pytest.raises(ValueError, match="pointer is not of guarded_alloc"):
        module.guarded_free(1)


def test_a_refused_launch_leaves_nothing_behind(module: ModuleType) -> None:
    out = torch.zeros(1, dtype=torch.float64)
    name = kernel(module, "parameters")
    parameters = [bytes(1), bytes(8), bytes(2), bytes(12), bytes(1), bytes(8)]
    code, _ = module.cuda.launch(name, (0, 1, 1), (32, 1, 1), parameters=parameters)
    assert code == emulated.INVALID_CONFIGURATION
    module.run("launch_parameters", 1, 0, 0, 0, 0, 0, 0, out.data_ptr())
    assert out.item() == 7
    with pytest.raises(ValueError, match="the kernel has parameters of these bytes: 1 8 2 12 1 8"):
        module.cuda.launch(name, (1, 1, 1), (32, 1, 1), parameters=parameters[:-1])


def test_modes(module: ModuleType) -> None:
    assert module.schedule()["delivery"] == "late"
    for order in ("reversed", "random"):
        for delivery in ("late", "random", "early"):
            module.set_schedule(order=order, delivery=delivery)
            assert [module.schedule()[word] for word in ("order", "delivery")] == [order, delivery]
    module.set_schedule(seed=7, starve=True, warps_meet=False, races=False)
    module.set_threads(2)
    assert module.schedule() == dict(
        order="random", seed=7, delivery="early", starve=True, warps_meet=False, races=False, threads=2
    )
    module.set_threads(0)
    with pytest.raises(ValueError, match="order must be ordered, reversed or random, got 'backwards'"):
        module.set_schedule(order="backwards")
    with pytest.raises(ValueError, match="delivery must be late, random or early, got 'never'"):
        module.set_schedule(delivery="never")
