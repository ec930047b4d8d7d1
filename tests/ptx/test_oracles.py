"""The oracles themselves: against vectors other people's GPU tests assert, and against PyTorch's convolution."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from oracles import swizzle_wgmma, tma_im2col


@pytest.mark.parametrize(
    ("shape", "start", "tap", "lower", "upper", "expected"),
    [
        # whole image; padding 1 read at the first and at the middle tap of a 3 x 3 filter
        ((1, 4, 4), (0, 0, 0), (0, 0), (0, 0), (0, 0), list(range(1, 17))),
        ((1, 4, 4), (-1, -1, 0), (0, 0), (-1, -1), (-1, -1), [0, 0, 0, 0, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11]),
        ((1, 4, 4), (-1, -1, 0), (1, 1), (-1, -1), (-1, -1), list(range(1, 17))),
        # a column that begins in one image and ends in the next
        ((2, 4, 4), (3, 1, 0), (0, 0), (0, 0), (0, 0), list(range(8, 24))),
        ((2, 4, 4), (2, 1, 0), (0, 0), (-1, -1), (-1, -1), [7, 0, 9, 10, 11, 0, 0, 0, 0, 0, 17, 18, 19, 0, 21, 22]),
        # the four taps of a 2 x 2 filter with padding 1
        ((1, 3, 3), (-1, -1, 0), (0, 0), (-1, -1), (0, 0), [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9]),
        ((1, 3, 3), (-1, -1, 0), (1, 0), (-1, -1), (0, 0), [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0]),
        ((1, 3, 3), (-1, -1, 0), (0, 1), (-1, -1), (0, 0), [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0]),
        ((1, 3, 3), (-1, -1, 0), (1, 1), (-1, -1), (0, 0), [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0]),
    ],
)
def test_columns_asserted_on_gpus(shape, start, tap, lower, upper, expected):
    x = np.arange(1, 1 + np.prod(shape)).reshape(*shape, 1)
    found = tma_im2col.column(x, (0, *start), tap, 16, 1, lower, upper, (1, 1))
    assert found[:, 0].tolist() == expected


def random_conv(rng: random.Random):
    while True:
        size = rng.randint(1, 9), rng.randint(1, 9)
        filter_size = rng.randint(1, 4), rng.randint(1, 4)
        pairs = [tuple(rng.randint(least, most) for _ in "wh") for least, most in ((1, 4), (1, 3), (0, 3), (0, 3))]
        conv = tma_im2col.Conv(*pairs)
        if min(conv.output_size(size, filter_size)) >= 1:
            return size, filter_size, conv


@pytest.mark.parametrize("seed", range(40))
def test_convolutions_made_of_columns(seed):
    rng = random.Random(seed)
    (w, h), (s, r), conv = random_conv(rng)
    n, c, k = (rng.randint(1, 3) for _ in range(3))
    x = torch.randint(-3, 4, (n, h, w, c)).double().requires_grad_()
    weight = torch.randint(-3, 4, (k, r, s, c)).double().requires_grad_()
    padded = F.pad(x.permute(0, 3, 1, 2), (conv.before[0], conv.after[0], conv.before[1], conv.after[1]))
    y = F.conv2d(padded, weight.permute(0, 3, 1, 2), stride=conv.stride[::-1], dilation=conv.dilation[::-1])
    y = y.permute(0, 2, 3, 1)
    grad = torch.randint(-3, 4, y.shape).double()
    y.backward(grad)

    arrays = [t.detach().numpy() for t in (x, weight, grad)]
    assert np.array_equal(tma_im2col.forward(arrays[0], arrays[1], conv), y.detach().numpy())
    assert np.array_equal(tma_im2col.backward_input(arrays[2], arrays[1], (w, h), conv), x.grad.numpy())
    assert np.array_equal(tma_im2col.backward_weight(arrays[0], arrays[2], (s, r), conv), weight.grad.numpy())


@pytest.mark.parametrize("span", [16, 32, 64, 128])
def test_a_swizzle_spreads_eight_rows_over_the_banks(span):
    addresses = [swizzle_wgmma.swizzled(a, span) for a in range(0, 8 * 128, 16)]
    assert sorted(addresses) == list(range(0, 8 * 128, 16))
    rows = 128 // span  # of a tile in one line of 128 bytes
    for chunk in range(span // 16):
        groups = {swizzle_wgmma.swizzled(r * span + 16 * chunk, span) // 16 % 8 for r in range(8)}
        assert len(groups) == min(8, rows * span // 16)


def test_fragments_are_permutations():
    for size, (m, k) in {1: (16, 32), 2: (16, 16), 4: (16, 8), 8: (8, 4)}.items():
        numbers = np.arange(m * k).reshape(m, k).astype(f"f{size}" if size == 8 else f"u{size}")
        held = swizzle_wgmma.fragments(numbers, swizzle_wgmma.MMA_A, m * k * size // 32)
        assert np.array_equal(np.sort(held.reshape(-1)), np.sort(numbers.reshape(-1)))
    matrix = np.arange(64 * 24).reshape(64, 24)
    assert np.array_equal(swizzle_wgmma.accumulators_to_matrix(swizzle_wgmma.matrix_to_accumulators(matrix)), matrix)
