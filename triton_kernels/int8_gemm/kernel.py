"""int8_gemm's product in Triton:

    sum[m, n] = sum over k of (a[m, k] - zero_a[m]) (b[k, n] - zero_b[n])

in int32 by tensor cores, and what the epilogue makes of it (int8/epilogue.py). For few rows and columns the reduction
is cut into ranges, whose sums go to a workspace and are added by a second kernel: integers, the same in any order.
"""

import triton
import triton.language as tl

from ..common.types import as_wide, indices
from ..int8.epilogue import store, store_tile
from ..int8.pack import signed
from ..int8.tile import load_block, tile_of


@triton.jit
def gemm_kernel(
    a,
    b,
    numbers,
    output,
    M,
    N,
    K,
    stride_am,
    stride_ak,
    stride_bk,
    stride_bn,
    each,
    UNIT_A: tl.constexpr,
    UNIT_B: tl.constexpr,
    UNIT_N: tl.constexpr,
    UNIT_K: tl.constexpr,
    MASKED: tl.constexpr,
    ALONG_N: tl.constexpr,
    SPLIT: tl.constexpr,
    PIECES: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BAND: tl.constexpr,
):
    """One tile of output [M, N], or where SPLIT of one of the ranges of `each` steps that a workspace [ranges, M, N]
    takes the sums of. N, K, stride_am and the larger stride of b count the units. MASKED: K is no multiple of BLOCK_K;
    ALONG_N: neighbours in b's memory are columns."""
    M, N, K = as_wide((M, N, K), WIDE)
    stride_am, stride_ak, stride_bk, stride_bn = as_wide((stride_am, stride_ak, stride_bk, stride_bn), WIDE)
    N, K, stride_am = N * UNIT_N, K * UNIT_K, stride_am * UNIT_A
    if ALONG_N:
        stride_bk *= UNIT_B
    else:
        stride_bn *= UNIT_B
    tile_m, tile_n = tile_of(tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N), BAND)
    m = indices(tile_m, BLOCK_M, WIDE)[:, None]
    n = indices(tile_n, BLOCK_N, WIDE)[None, :]
    # Rows and columns past the last are the last again, so that loads need no mask for them: they are not stored.
    at_rows = a + tl.minimum(m, M - 1) * stride_am
    at_columns = b + (n if ALONG_N else tl.minimum(n, N - 1)) * stride_bn
    split = tl.program_id(1)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for step in range(split * each, tl.minimum((split + 1) * each, tl.cdiv(K, BLOCK_K))):
        k = indices(step, BLOCK_K, WIDE)
        x = load_block(at_rows + k[None, :] * stride_ak, k[None, :] < K, MASKED)
        y_exists = (k[:, None] < K) & (n < N) if ALONG_N else k[:, None] < K
        y = load_block(at_columns + k[:, None] * stride_bk, y_exists, MASKED or ALONG_N)
        total = tl.dot(signed(x), y, total, out_dtype=tl.int32)
    at = m * N
    if SPLIT:
        tl.store(output + split * M * N + (at + n), total, mask=(m < M) & (n < N))
    else:
        first = tile_n * BLOCK_N
        store_tile(output, at, total, numbers, m, first, 0, N, m < M, PIECES, PARTS)


@triton.jit
def add_ranges_kernel(
    parts,
    numbers,
    output,
    M,
    N,
    splits,
    UNIT_N: tl.constexpr,
    WIDE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One tile of output [M, N] from the sums of all ranges."""
    M, N = as_wide((M, N), WIDE)
    N = N * UNIT_N
    m = indices(tl.program_id(0), BLOCK_M, WIDE)[:, None]
    n = indices(tl.program_id(1), BLOCK_N, WIDE)[None, :]
    m_exists, n_exists = m < M, n < N
    at = m * N + n
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for split in range(splits):
        total += tl.load(parts + (split * M * N + at), mask=m_exists & n_exists, other=0)
    store(output, at, total, numbers, m, n, m_exists, n_exists, PARTS)
