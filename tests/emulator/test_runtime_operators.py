"""CNNKERNELS_INTERPRET=ptx: CPU tensors of backend cuda run what a GPU would get, from the functional call to the
launch and on in PTX. Small integers, so that every order of summation gives PyTorch's own bits."""

from __future__ import annotations

from helpers.emulated import emulated_tests
from helpers.processes import children

OPERATORS = """
import torch, cnnkernels
import torch.nn.functional as F
from cnnkernels import functional, native

torch.manual_seed(0)
cnnkernels.use_backend("cuda").__enter__()
wrong = []

def integers(*shape, dtype=torch.float32):
    return torch.randint(-2, 3, shape).to(dtype)

def check(name, *pairs):
    if not all(a.dtype is b.dtype and torch.equal(a, b) for a, b in pairs):
        wrong.append(name)

def gradients(of, *leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    out = of(*leaves)
    return out, *torch.autograd.grad(out, leaves, torch.ones_like(out))

for dtype in (torch.float16, torch.float32):
    x = integers(2, 16, 7, 6, dtype=dtype).to(memory_format=torch.channels_last)
    w, b = integers(24, 16, 3, 3, dtype=dtype), integers(24, dtype=dtype)
    mine = gradients(lambda x, w, b: functional.conv2d(x, w, b, 1, 1), x, w, b)
    check(f"conv2d {dtype}", *zip(mine, gradients(lambda x, w, b: F.conv2d(x, w, b, 1, 1), x, w, b)))
    r, c = integers(2, 24, 7, 6, dtype=dtype), integers(24, dtype=dtype)
    mine = functional.conv2d(x, w, b, 1, 1, activation="relu", residual=r, scale=c, shift=b)
    each = (slice(None), None, None)
    check(f"epilogue {dtype}", (mine, F.relu(F.conv2d(x, w, b, 1, 1) * c[each] + b[each] + r)))
    v, s = integers(16, 1, 3, 3, dtype=dtype), integers(24, 16, 1, 1, dtype=dtype)
    mine = gradients(lambda x, v: functional.depthwise_conv2d(x, v, padding=1), x, v)
    check(f"depthwise_conv2d {dtype}", *zip(mine, gradients(lambda x, v: F.conv2d(x, v, padding=1, groups=16), x, v)))
    mine = functional.depthwise_separable_conv2d(x, v, s, padding=1)
    check(f"pair {dtype}", (mine, F.conv2d(F.conv2d(x, v, padding=1, groups=16), s)))
    y, i = functional.max_pool2d(x, 3, 2, 1, return_indices=True)
    check(f"max_pool2d {dtype}", *zip((y, i), F.max_pool2d(x, 3, 2, 1, return_indices=True)))
    mine = gradients(lambda x: functional.max_pool2d(x, 2), x)
    check(f"max_pool2d's gradient {dtype}", *zip(mine, gradients(lambda x: F.max_pool2d(x, 2), x)))

a, b = integers(33, 48, dtype=torch.int8), integers(20, 48, dtype=torch.int8)
check("int8_gemm", (functional.int8_gemm(a, b.t()), a.int() @ b.int().t()))
rows, columns, bias = integers(33).exp2(), integers(20).exp2(), integers(20)
mine = functional.int8_gemm(a, b.t(), scale_a=rows, scale_b=columns, bias=bias, zero_point_a=1)
check("int8_gemm's scales", (mine, ((a.int() - 1) @ b.int().t()) * rows[:, None] * columns + bias))
a, b = integers(2, 16, 7, 6, dtype=torch.int8), integers(24, 16, 3, 3, dtype=torch.int8)
for zero in (0, 3):  # with sums of the filters
    mine = functional.int8_conv2d(a, b, padding=1, input_zero_point=zero)
    check(f"int8_conv2d {zero}", (mine, F.conv2d(a.double() - zero, b.double(), padding=1).int()))
x, zeros = integers(4, 6), integers(6).int()
mine, _ = functional.quantize_per_channel(x, 1, columns[:6], zeros)
check("quantize", (mine, (torch.round(x / columns[:6]) + zeros).to(torch.int8)))
check("dequantize", (functional.dequantize(mine, columns[:6], zeros, axis=1), (mine - zeros) * columns[:6]))

module = native.load("emulated").module
assert module.statistics()["warp_instructions"] > 10000
print(module.standing_for(), *wrong or ["right"], sep=", ")
"""

PTX = {"CNNKERNELS_INTERPRET": "ptx"}


def test_operators() -> None:
    """On a Hopper the convolutions in fp16 and the INT8 product are TMA's and wgmma's."""
    emulated_tests()
    assert children(
        OPERATORS,
        {**PTX},
        {**PTX, "CNNKERNELS_EMULATED_GPU": "a100", "CNNKERNELS_DELIVERY": "early"},
        {**PTX, "CNNKERNELS_EMULATED_GPU": "h100", "CNNKERNELS_SCHEDULE": "random", "CNNKERNELS_SEED": "3"},
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
        {**PTX, "CNNKERNELS_SCHEDULE": "reversed"},
        {**PTX, "CNNKERNELS_DELIVERY": "random"},
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
    assert said[5] == "CNNKERNELS_SCHEDULE must be ordered or random for the emulator, got 'reversed'"
    assert said[6] == "CNNKERNELS_DELIVERY must be late or early for the emulator, got 'random'"
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
a, b = (torch.randint(-128, 128, (rows, 32768)).to(torch.int8)[:, :-1] for rows in (2, 1))
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
