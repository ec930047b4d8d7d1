"""A depthwise convolution and the 1x1 after it, in one Triton kernel:

    z[n, m, p, q] = bd[m] + sum over r, s of x[n, m / multiplier, p u + r d - pad, q v + s e - pad] wd[m, r, s]
    y[n, k, p, q] = b(bp[k] + sum over m of wp[k, m] a(z[n, m, p, q]))

with strides u, v, dilations d, e and activations a, b. A program owns a tile of pixels and filters and walks over the
channels: lanes make a block of z in registers, patch by patch as in depthwise_conv/sweep.py, and their patches side
by side are a tile of a matrix that tl.dot multiplies by the pointwise filters. Nothing of z reaches global memory
unless it is to be saved. z has the bits of depthwise_conv2d's forward: the same products in the same order.

Where the two layers, one after the other, would round (z, a(z), the sum, b of it), it is rounded here.
"""

import triton
import triton.language as tl

from ..common.activation import activate
from ..common.tiles import image_offset, pixel_axis, product
from ..common.types import accumulator, along, as_wide, indices, narrow
from ..depthwise_conv.patch import packed, step, zeros
from ..depthwise_conv.sweep import add_bias, add_taps, write_patch


@triton.jit
def sizes_of_pair(
    sizes, UNIT: tl.constexpr, POINTWISE_UNIT: tl.constexpr, CHUNK: tl.constexpr, STORE: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """N, C, H, W, z's M, P, Q and K: C counts UNITs, M and K POINTWISE_UNITs, W CHUNKs and Q STOREs (select.py,
    arguments)."""
    N, C, H, W, M, P, Q, K = as_wide(sizes, WIDE)
    return N, C * UNIT, H, W * CHUNK, M * POINTWISE_UNIT, P, Q * STORE, K * POINTWISE_UNIT


@triton.jit
def activated(x, ACTIVATION: tl.constexpr, SLOPE: tl.constexpr, element: tl.constexpr):
    """x as an element, then its activation as one."""
    y = narrow(x, element)
    if ACTIVATION != "none":
        y = narrow(activate(y.to(x.dtype), SLOPE, ACTIVATION), element)
    return y


@triton.jit
def side_by_side(patches, NHWC: tl.constexpr):
    """Tiles of one place of every lane's patch, as one tile [pixels, channels], or [channels, pixels] in NCHW. A lane's
    places are neighbours."""
    PLACES: tl.constexpr = len(patches)
    A: tl.constexpr = patches[0].shape[0]
    B: tl.constexpr = patches[0].shape[1]
    if PLACES == 1:
        return patches[0]
    elif NHWC:
        return tl.reshape(tl.permute(packed(patches, 0, 1, PLACES), (0, 2, 1)), (A * PLACES, B))
    else:
        return tl.reshape(packed(patches, 0, 1, PLACES), (A, B * PLACES))


@triton.jit
def fused_kernel(
    input,
    depthwise_weight,
    pointwise_weight,
    depthwise_bias,
    pointwise_bias,
    output,
    intermediate,
    sizes,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MULTIPLIER: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    SLOPE: tl.constexpr,
    UNIT: tl.constexpr,
    POINTWISE_UNIT: tl.constexpr,
    STORE: tl.constexpr,
    NHWC: tl.constexpr,
    WIDE: tl.constexpr,
    PRECISION: tl.constexpr,
    LANES: tl.constexpr,
    CHANNELS: tl.constexpr,
    FILTERS: tl.constexpr,
):
    """One tile of LANES patches x FILTERS of the K filters; a step of the loop takes CHANNELS of z's M."""
    N, C, H, W, M, P, Q, K = sizes_of_pair(sizes, UNIT, POINTWISE_UNIT, COLUMNS.chunk, STORE, WIDE)
    AXIS: tl.constexpr = pixel_axis(NHWC)
    A: tl.constexpr = LANES if NHWC else CHANNELS
    B: tl.constexpr = CHANNELS if NHWC else LANES
    TP: tl.constexpr = ROWS.patch
    TQ: tl.constexpr = COLUMNS.patch
    PLACES: tl.constexpr = TP * TQ
    TAPS: tl.constexpr = ROWS.taps * COLUMNS.taps
    PIXELS: tl.constexpr = LANES * PLACES
    element: tl.constexpr = input.dtype.element_ty
    sum: tl.constexpr = accumulator(element)
    # Tiles of filters run first: they read the same image.
    pid = tl.program_id(0)
    tiles = tl.cdiv(K, FILTERS)
    tile, block = pid % tiles, pid // tiles
    columns = tl.cdiv(Q, TQ)
    patches = tl.cdiv(P, TP) * columns
    lane = along(indices(block, LANES, WIDE), AXIS)
    n, i, j = lane // patches, lane % patches // columns, lane % columns
    k = along(indices(tile, FILTERS, WIDE), 1 - AXIS)
    total = tl.zeros((PIXELS, FILTERS) if NHWC else (FILTERS, PIXELS), sum)
    for turn in range(tl.cdiv(M, CHANNELS)):
        channel = indices(turn, CHANNELS, WIDE)
        m = along(channel, 1 - AXIS)
        exists = (lane < N * patches) & (m < M)
        z = add_taps(
            zeros(PLACES, A, B, sum), input, None, depthwise_weight + m * TAPS, n, i * step(ROWS), j * step(COLUMNS),
            m // MULTIPLIER, exists, m < M, C, H, W, ROWS, COLUMNS, False, NHWC,
        )  # fmt: skip
        z = add_bias(z, depthwise_bias, m, m < M)
        if intermediate is not None:
            write_patch(intermediate, z, n, i * TP, j * TQ, m, exists & (tile == 0), M, P, Q, TP, TQ, STORE, NHWC)
        at_weight = pointwise_weight + k * M + along(channel, AXIS)
        f = tl.load(at_weight, mask=(k < K) & along(channel < M, AXIS), other=0.0)
        total = product(activated(side_by_side(z, NHWC), FIRST, SLOPE, element), f, total, NHWC, PRECISION)

    if pointwise_bias is not None:
        total += tl.load(pointwise_bias + k, mask=k < K, other=0.0).to(sum)
    y = activated(total, SECOND, SLOPE, element)
    if NHWC:
        pixel = indices(block, PIXELS, WIDE)[:, None]
        place, lane = pixel % PLACES, pixel // PLACES
    else:
        # A lane's places on an axis of their own: the compiler then sees that they are neighbours.
        y = tl.reshape(y, (FILTERS, LANES, PLACES))
        place, lane, k = tl.arange(0, PLACES)[None, None, :], lane[:, :, None], k[:, :, None]
    n, i, j = lane // patches, lane % patches // columns, lane % columns
    p, q = i * TP + place // TQ, j * TQ + place % TQ
    exists = (lane < N * patches) & (p < P) & (q < Q) & (k < K)
    tl.store(output + image_offset(n, p, q, k, P, Q, K, NHWC), y, mask=exists)
