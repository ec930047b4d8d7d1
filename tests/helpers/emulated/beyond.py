"""A kernel of Triton's that writes as many elements as it is told, in the emulator: 4 of a tensor's 4, then 5."""

import torch
import triton
import triton.language as tl

from cnnkernels import emulator


@triton.jit
def ones(y, count):
    i = tl.arange(0, 32)
    tl.store(y + i, tl.full([32], 1, tl.int32), mask=i < count)


if __name__ == "__main__":
    emulator.serve_triton()
    y = torch.zeros(4, dtype=torch.int32)
    ones[(1,)](y, 4, num_warps=1)
    print(y.tolist())
    try:
        ones[(1,)](y, 5, num_warps=1)
    except RuntimeError as fault:
        print(fault)
