"""CNNKERNELS_INTERPRET=ptx: CPU tensors of backend cuda run what a GPU would get, from the functional call to the
launch and on in PTX. Small integers, so that every order of summation gives PyTorch's own bits."""

from __future__ import annotations

from helpers.emulated import emulated_tests
from helpers.emulated.operators import OPERATORS
from helpers.processes import children

PTX = {"CNNKERNELS_INTERPRET": "ptx"}
CUDA = {**PTX, "CNNKERNELS_BACKEND": "cuda"}


def test_operators() -> None:
    """On a Hopper the convolutions in fp16 and the INT8 product are TMA's and wgmma's."""
    emulated_tests()
    assert children(
        OPERATORS,
        {**CUDA},
        {**CUDA, "CNNKERNELS_EMULATED_GPU": "a100", "CNNKERNELS_DELIVERY": "early"},
        {**CUDA, "CNNKERNELS_EMULATED_GPU": "h100", "CNNKERNELS_SCHEDULE": "random", "CNNKERNELS_SEED": "3"},
    ) == ["h200, right", "a100, right", "h100, right"]


SAYS = """
import torch, cnnkernels
from cnnkernels import backends, native
schedule = native.load("emulated").module.schedule()
print(str(backends.choose(backends.problem_of("conv2d", torch.zeros(1)))).splitlines()[0], schedule)
"""


def test_what_the_variables_say() -> None:
    emulated_tests()
    said = children(
        SAYS,
        {**PTX},
        {**PTX, "CNNKERNELS_SCHEDULE": "random", "CNNKERNELS_SEED": "5", "CNNKERNELS_THREADS": "1"},
        {"CNNKERNELS_INTERPRET": "PTX", "CNNKERNELS_DELIVERY": "early"},
        {"CNNKERNELS_INTERPRET": "1"},
        {"CNNKERNELS_INTERPRET": "ptxas"},
        {**PTX, "CNNKERNELS_SCHEDULE": "backwards"},
        {**PTX, "CNNKERNELS_DELIVERY": "never"},
        {**PTX, "CNNKERNELS_SEED": "-1"},
    )
    for line in said[:3]:
        assert "conv2d of torch.float32 on cpu, asked for auto: cuda, the first" in line and "in the emulator" in line
    assert "'order': 'ordered', 'seed': 0, 'delivery': 'late'" in said[0]
    assert "'order': 'random', 'seed': 5, 'delivery': 'late'" in said[1] and "'threads': 1" in said[1]
    assert "'order': 'ordered', 'seed': 0, 'delivery': 'early'" in said[2]
    assert "in the interpreter" in said[3]
    assert said[4].endswith("off, ptx, but got 'ptxas'") and said[4].startswith(
        "CNNKERNELS_INTERPRET must be one of 1,"
    )
    assert said[5] == "CNNKERNELS_SCHEDULE must be ordered, reversed or random, got 'backwards'"
    assert said[6] == "CNNKERNELS_DELIVERY must be late, random or early, got 'never'"
    assert said[7] == "CNNKERNELS_SEED must be a number, got '-1'"


MISSING = """
import sys
sys.modules["cnnkernels._emulated"] = None
import torch, cnnkernels
with cnnkernels.use_backend("cuda"):
    cnnkernels.functional.max_pool2d(torch.zeros(1, 1, 2, 2), 2)
"""


def test_a_build_without_nvcc() -> None:
    (said,) = children(MISSING, PTX)
    assert "can not serve this call: cnnkernels._emulated is not built: " in said and said.endswith("nvcc is found")


LAUNCHES = """
import torch, cnnkernels
from cnnkernels import functional, native
cnnkernels.use_backend("cuda").__enter__()
module = native.load("emulated").module
x = torch.randint(-2, 3, (1, 64, 8, 8)).half().to(memory_format=torch.channels_last)
w = torch.randint(-2, 3, (128, 64, 3, 3)).half()
a, b = (torch.randint(-128, 128, (rows, 512)).to(torch.int8) for rows in (256, 192))
module.set_recording(True)
functional.conv2d(x, w, padding=1)
functional.int8_gemm(a, b.t())
kernels = [launch[4] for launch in module.set_recording(False)]
right = torch.equal(functional.conv2d(x, w, padding=1), torch.nn.functional.conv2d(x, w, padding=1))
right = right and torch.equal(functional.int8_gemm(a, b.t()), (a.double() @ b.double().t()).int())
print(*kernels, "right" if right else "wrong")
"""


def test_each_gpu_gets_its_kernels() -> None:
    """And they are right: a convolution and a product by mma.sync, and on a Hopper by TMA and wgmma."""
    emulated_tests()
    sm90 = {"a100": False, "rtx4090": False, "h100": True, "h200": True, "rtx5090": False}
    *said, refused = children(LAUNCHES, *({**PTX, "CNNKERNELS_EMULATED_GPU": name} for name in (*sm90, "v100")))
    for line, expected in zip(said, sm90.values(), strict=True):
        *kernels, right = line.split()
        assert right == "right" and len(kernels) > 1, line
        # but for the kernels that pack operands and add the parts of a reduction
        assert sum("4sm90" in kernel for kernel in kernels) == 2 * expected, line
    assert refused.startswith("CNNKERNELS_EMULATED_GPU: no GPU is called 'v100' here, only a100, ")
