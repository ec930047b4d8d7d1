"""The kernels. What of the hardware they need right is Triton's lowering's business, which runs on real GPUs every day.

Imported where TRITON_INTERPRET is not set alone (compiled.py).
"""

import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper


@triton.jit
def matmul(
    a, b, c, M, N, K, sam, sak, sbk, sbn, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SUM: tl.constexpr
):
    """By pointers: cp.async into shared memory, wgmma or mma.sync out of it."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=SUM)
    for start in range(0, K, BK):
        left = tl.load(
            a + m[:, None] * sam + (start + k[None, :]) * sak, mask=(m[:, None] < M) & (start + k < K), other=0.0
        )
        right = tl.load(
            b + (start + k[:, None]) * sbk + n[None, :] * sbn, mask=(n < N) & (start + k[:, None] < K), other=0.0
        )
        total = tl.dot(left, right, total, input_precision="tf32", out_dtype=SUM)
    tl.store(c + m[:, None] * N + n[None, :], total.to(c.dtype.element_ty), mask=(m[:, None] < M) & (n < N))


@triton.jit
def scaled_matmul(a, b, c, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A is computed with before it is multiplied: wgmma takes it from registers."""
    m, n, k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, K, BK):
        left = tl.load(a + m[:, None] * K + start + k[None, :]) * 2 + 1
        right = tl.load(b + (start + k[:, None]) * BN + n[None, :])
        total = tl.dot(left.to(b.dtype.element_ty), right, total)
    tl.store(c + m[:, None] * BN + n[None, :], total)


@triton.jit
def chained_matmul(a, b, d, c, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr):
    """(A B) D: an accumulator becomes an operand in registers."""
    m, n, k, p = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, K), tl.arange(0, BP)
    left = tl.load(a + m[:, None] * K + k[None, :])
    right = tl.load(b + k[:, None] * BN + n[None, :])
    last = tl.load(d + n[:, None] * BP + p[None, :])
    between = tl.dot(left, right).to(a.dtype.element_ty)
    tl.store(c + m[:, None] * BP + p[None, :], tl.dot(between, last))


@triton.jit
def tma_matmul(
    a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, AT: tl.constexpr, BT: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """By tensor maps that the host made: TMA in, wgmma, TMA out."""
    m = tl.program_id(0) * BM
    n = tl.program_id(1) * BN
    total = tl.zeros((BM, BN), dtype=SUM)
    for k in range(0, K, BK):
        left = a.load([k, m]).T if AT else a.load([m, k])
        right = b.load([n, k]).T if BT else b.load([k, n])
        total = tl.dot(left, right, total, input_precision="tf32", out_dtype=SUM)
    c.store([m, n], total.to(c.dtype))


@triton.jit
def device_maps_matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """By tensor maps that the kernel makes: tensormap.replace and cp_fenceproxy."""
    left = tl.make_tensor_descriptor(a, shape=[M, K], strides=[K, 1], block_shape=[BM, BK])
    right = tl.make_tensor_descriptor(b, shape=[K, N], strides=[N, 1], block_shape=[BK, BN])
    out = tl.make_tensor_descriptor(c, shape=[M, N], strides=[N, 1], block_shape=[BM, BN])
    m = tl.program_id(0) * BM
    n = tl.program_id(1) * BN
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        total = tl.dot(left.load([m, k]), right.load([k, n]), total)
    out.store([m, n], total.to(out.dtype))


@triton.jit
def tma_double(x, y, BM: tl.constexpr, BN: tl.constexpr):
    at = [tl.program_id(0) * BM, tl.program_id(1) * BN]
    value = x.load(at)
    y.store(at, value + value)


@triton.jit
def tma_double_5d(x, y, P: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, S: tl.constexpr, T: tl.constexpr):
    i = tl.program_id(0)
    value = x.load([0, i * Q, 0, i * S, 0])
    y.store([0, i * Q, 0, i * S, 0], value + value)


@triton.jit
def tma_load_3d(x, y, P: tl.constexpr, Q: tl.constexpr, R: tl.constexpr):
    """Two outer dimensions of a box; what was loaded is stored without TMA."""
    p, q, r = tl.arange(0, P), tl.arange(0, Q), tl.arange(0, R)
    value = x.load([0, 1, 0])
    tl.store(y + p[:, None, None] * Q * R + q[None, :, None] * R + r[None, None, :], value)


@triton.jit
def narrow(x, y, N: tl.constexpr):
    """Rounds to a smaller type."""
    i = tl.arange(0, N)
    tl.store(y + i, tl.load(x + i).to(y.dtype.element_ty))


@triton.jit
def tma_reduce(x, y, BM: tl.constexpr, BN: tl.constexpr):
    """Every program adds its box to the same one."""
    y.atomic_add([0, 0], x.load([tl.program_id(0) * BM, 0]))


@triton.jit
def row_sums(x, out, COLS: tl.constexpr, ROWS: tl.constexpr):
    """A reduction over warps: shared memory by st and ld, with bar.sync between."""
    rows, cols = tl.arange(0, ROWS), tl.arange(0, COLS)
    value = tl.load(x + rows[:, None] * COLS + cols[None, :])
    tl.store(out + rows, tl.sum(value, 1))


@gluon.jit
def multicast_matmul(a, b, c, K: gl.constexpr, BM: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr, D: gl.constexpr):
    """Two blocks of a cluster, each with half of the rows of A; B goes to both."""
    left = gl.allocate_shared_memory(a.dtype, [BM, BK], a.layout)
    right = gl.allocate_shared_memory(b.dtype, [BK, BN], b.layout)
    full = hopper.mbarrier.allocate_mbarrier()
    hopper.mbarrier.init(full, count=1)
    hopper.mbarrier.sync_cluster_init()
    total = gl.zeros([BM, BN], gl.float32, D)
    phase = 0
    for k in range(0, K, BK):
        hopper.mbarrier.expect(full, a.nbytes_per_cta + b.nbytes_per_cta)
        hopper.tma.async_copy_global_to_shared(a, [0, k], full, left)
        hopper.tma.async_copy_global_to_shared(b, [k, 0], full, right, multicast=True)
        hopper.mbarrier.wait(full, phase)
        total = hopper.warpgroup_mma(left, right, total, is_async=True)
        total = hopper.warpgroup_mma_wait(0, deps=[total])
        phase ^= 1
        hopper.cluster.arrive()
        hopper.cluster.wait()
    m = gl.arange(0, BM, gl.SliceLayout(1, D))
    n = gl.arange(0, BN, gl.SliceLayout(0, D))
    gl.store(c + m[:, None] * BN + n[None, :], total)


@gluon.jit
def late_wait_matmul(a, b, c, K: gl.constexpr, BM: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr, D: gl.constexpr):
    """Two stages, and a product is in flight while the next one's operands are fetched."""
    left = gl.allocate_shared_memory(a.dtype, [2, BM, BK], a.layout)
    right = gl.allocate_shared_memory(b.dtype, [2, BK, BN], b.layout)
    full = hopper.mbarrier.allocate_mbarrier(batch=2)
    for i in gl.static_range(2):
        hopper.mbarrier.init(full.index(i), count=1)
    hopper.fence_async_shared()
    total = hopper.warpgroup_mma_init(gl.zeros([BM, BN], gl.float32, D))
    for step in gl.static_range(K // BK):
        stage = step % 2
        barrier = full.index(stage)
        hopper.mbarrier.expect(barrier, a.nbytes_per_cta + b.nbytes_per_cta)
        hopper.tma.async_copy_global_to_shared(a, [0, step * BK], barrier, left.index(stage))
        hopper.tma.async_copy_global_to_shared(b, [step * BK, 0], barrier, right.index(stage))
        hopper.mbarrier.wait(barrier, (step // 2) & 1)
        total = hopper.warpgroup_mma(left.index(stage), right.index(stage), total, is_async=True)
        total = hopper.warpgroup_mma_init(hopper.warpgroup_mma_wait(1, deps=[total]))
    total = hopper.warpgroup_mma_wait(0, deps=[total])
    m = gl.arange(0, BM, gl.SliceLayout(1, D))
    n = gl.arange(0, BN, gl.SliceLayout(0, D))
    gl.store(c + m[:, None] * BN + n[None, :], total)


@gluon.jit
def any_layout_matmul(
    a, b, c, BM: gl.constexpr, BN: gl.constexpr, BK: gl.constexpr, LA: gl.constexpr, LB: gl.constexpr,
    AT: gl.constexpr, BT: gl.constexpr, D: gl.constexpr, REG: gl.constexpr, SUM: gl.constexpr,
):  # fmt: skip
    """Operands written to shared memory by st, in any layout that wgmma reads."""
    row: gl.constexpr = gl.SliceLayout(1, REG)
    column: gl.constexpr = gl.SliceLayout(0, REG)
    if AT:
        left = gl.load(a + gl.arange(0, BK, row)[:, None] * BM + gl.arange(0, BM, column)[None, :])
        shared_a = gl.allocate_shared_memory(a.dtype.element_ty, [BK, BM], LA, left).permute((1, 0))
    else:
        left = gl.load(a + gl.arange(0, BM, row)[:, None] * BK + gl.arange(0, BK, column)[None, :])
        shared_a = gl.allocate_shared_memory(a.dtype.element_ty, [BM, BK], LA, left)
    if BT:
        right = gl.load(b + gl.arange(0, BN, row)[:, None] * BK + gl.arange(0, BK, column)[None, :])
        shared_b = gl.allocate_shared_memory(b.dtype.element_ty, [BN, BK], LB, right).permute((1, 0))
    else:
        right = gl.load(b + gl.arange(0, BK, row)[:, None] * BN + gl.arange(0, BN, column)[None, :])
        shared_b = gl.allocate_shared_memory(b.dtype.element_ty, [BK, BN], LB, right)
    hopper.fence_async_shared()
    total = hopper.warpgroup_mma(shared_a, shared_b, gl.zeros([BM, BN], SUM, D), use_acc=False, is_async=True)
    total = hopper.warpgroup_mma_wait(0, deps=[total])
    m = gl.arange(0, BM, gl.SliceLayout(1, D))
    n = gl.arange(0, BN, gl.SliceLayout(0, D))
    gl.store(c + m[:, None] * BN + n[None, :], total)
