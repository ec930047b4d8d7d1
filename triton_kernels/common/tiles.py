"""The implicit GEMM's tiles: which element of a tensor stands where, for both layouts.

A convolution is a product of matrices that never exist in memory: pixels x (channels and taps) times (channels and
taps) x filters. A tile of the first is loaded from the image by computing addresses. The layouts differ in what lies
side by side in memory, and a tile keeps that along its last axis, so that neighbouring threads load neighbours:

             image tile               filter tile              product
    NHWC     [pixels, channels]   x   [channels, filters]   =  [pixels, filters]
    NCHW     [channels, pixels]       [filters, channels]      [filters, pixels], of the transposed operands swapped
"""

import triton
import triton.language as tl

from .types import INTERPRETED, along, indices

# Columns of a tile that a matrix product may leave empty; a group with fewer channels is not worth one.
NARROWEST_GROUP = 4
# Where channels are this few, the reduction runs over channels and taps together.
FEW_CHANNELS = 64


@triton.constexpr_function
def pixel_axis(NHWC):
    return 0 if NHWC else 1


@triton.jit
def site(index, P, Q):
    """The image, row and column of a pixel's index. Columns first: the compiler then sees that neighbours are such."""
    row = index // Q
    return row // P, row % P, index % Q


@triton.jit
def image_offset(n, h, w, c, H, W, C, NHWC: tl.constexpr):
    """Where (n, h, w, c) stands in an image tensor [N, C, H, W]."""
    if NHWC:
        return ((n * H + h) * W + w) * C + c
    else:
        return ((n * C + c) * H + h) * W + w


@triton.jit
def filter_offset(k, c, tap, C, TAPS: tl.constexpr, NHWC: tl.constexpr):
    """Where (k, c, tap) stands in a filter tensor [K, C, R, S]: KRSC in memory beside NHWC, KCRS beside NCHW."""
    if NHWC:
        return (k * TAPS + tap) * C + c
    else:
        return (k * C + c) * TAPS + tap


@triton.jit
def flat_place(index, channels: tl.constexpr, TAPS: tl.constexpr, NHWC: tl.constexpr):
    """The channel and the tap at an index into one filter's memory."""
    if NHWC:
        return index % channels, index // channels
    else:
        return index // TAPS, index % TAPS


@triton.jit
def channels_and_taps(
    block, channels, S: tl.constexpr, TAPS: tl.constexpr, BLOCK: tl.constexpr,
    FLAT: tl.constexpr, NHWC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A block of the products that a filter sums: their channels, which of those exist, their tap, its row and column.

    BLOCK channels of one tap, or, where FLAT gives a group's few channels, BLOCK places in the order of the filter's
    memory, whatever their tap.
    """
    if FLAT:
        A: tl.constexpr = pixel_axis(NHWC)
        c, tap = flat_place(indices(block, BLOCK, WIDE), FLAT, TAPS, NHWC)
        return c, (c < FLAT) & (tap < TAPS), tap, along(tap // S, 1 - A), along(tap % S, 1 - A)
    else:
        tap = block % TAPS
        c = indices(block // TAPS, BLOCK, WIDE)
        return c, c < channels, tap, tap // S, tap % S


@triton.jit
def inside(h, w, H, W):
    return (h >= 0) & (h < H) & (w >= 0) & (w < W)


@triton.jit
def repeated(at, size, MODE: tl.constexpr):
    """The row (or column) of an image of `size` that its row `at`, at most one image away, repeats: under reflect (1),
    replicate (2) or circular (3), the numbers of cnnkernels.geometry.PaddingMode."""
    if MODE == 1:
        at = tl.where(at < 0, -at, at)
        return tl.where(at < size, at, 2 * (size - 1) - at)
    elif MODE == 2:
        at = tl.where(at < 0, 0, at)
        return tl.where(at < size, at, size - 1)
    else:
        at = tl.where(at < 0, at + size, at)
        return tl.where(at < size, at, at - size)


@triton.jit
def multiply(a, b, total, PRECISION: tl.constexpr):
    """total + a x b."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        # Triton's interpreter would multiply the bit patterns.
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def product(image, filters, total, NHWC: tl.constexpr, PRECISION: tl.constexpr):
    """total + image x filters, oriented as the tiles are."""
    if NHWC:
        return multiply(image, filters, total, PRECISION)
    else:
        return multiply(filters, image, total, PRECISION)
