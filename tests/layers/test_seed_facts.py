"""The textbook's facts about convolution and pooling, one test each, on our own kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnkernels import functional, use_backend
from cnnkernels.testing.numerics import small_integers


def integers(shape: tuple[int, ...], seed: int, device: str) -> Tensor:
    """Small enough that every sum is exact: equality needs no tolerance."""
    return small_integers(shape, torch.float64, seed).to(device)


@pytest.mark.parametrize("W", [5, 8, 11])
@pytest.mark.parametrize("F", [1, 3, 4])
@pytest.mark.parametrize(("P", "S"), [(0, 1), (1, 2), (2, 3)])
def test_output_size_is_floor_of_W_minus_F_plus_2P_over_S_plus_1(
    kernel_backend, device, W: int, F: int, P: int, S: int
) -> None:
    expected = (W - F + 2 * P) // S + 1
    x = integers((1, 1, W, W), 1, device)
    with use_backend(kernel_backend):
        assert functional.conv2d(x, integers((1, 1, F, F), 2, device), None, S, P).shape[2:] == (expected, expected)
        if 2 * P <= F:
            assert functional.max_pool2d(x, F, S, P).shape[2:] == (expected, expected)


def plain_loop(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Convolution as the formula reads: six sums, no library."""
    N, C, H, W = x.shape
    K, _, R, S = w.shape
    P, Q = (H + 2 * padding - R) // stride + 1, (W + 2 * padding - S) // stride + 1
    y = np.zeros((N, K, P, Q))
    for n, k, p, q in np.ndindex(N, K, P, Q):
        for c, r, s in np.ndindex(C, R, S):
            h, v = p * stride - padding + r, q * stride - padding + s
            if 0 <= h < H and 0 <= v < W:
                y[n, k, p, q] += x[n, c, h, v] * w[k, c, r, s]
    return y


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_a_plain_loop_convolution_agrees(kernel_backend, device, stride: int, padding: int) -> None:
    x, w = integers((2, 3, 7, 6), 1, device), integers((4, 3, 3, 3), 2, device)
    with use_backend(kernel_backend):
        y = functional.conv2d(x, w, None, stride, padding)
    assert np.array_equal(y.cpu().numpy(), plain_loop(x.cpu().numpy(), w.cpu().numpy(), stride, padding))


def test_backward_input_convolves_the_error_with_the_filter_rotated_by_180_degrees(kernel_backend, device) -> None:
    x, w = integers((2, 3, 6, 7), 1, device).requires_grad_(), integers((4, 3, 3, 2), 2, device)
    with use_backend(kernel_backend):
        y = functional.conv2d(x, w)
        error = integers(tuple(y.shape), 3, device)
        (grad_input,) = torch.autograd.grad(y, x, error)
        rotated = w.rot90(2, (2, 3)).transpose(0, 1)
        # "full" convolution: padded by the filter's size less one
        assert torch.equal(grad_input, functional.conv2d(error, rotated, padding=(2, 1)))


def test_backward_weight_correlates_the_input_with_the_error(kernel_backend, device) -> None:
    x, w = integers((2, 3, 6, 7), 1, device), integers((4, 3, 3, 2), 2, device).requires_grad_()
    with use_backend(kernel_backend):
        y = functional.conv2d(x, w)
        error = integers(tuple(y.shape), 3, device)
        (grad_weight,) = torch.autograd.grad(y, w, error)
        # the batch is what is summed over: it takes the channels' place
        correlated = functional.conv2d(x.transpose(0, 1), error.transpose(0, 1)).transpose(0, 1)
    assert torch.equal(grad_weight, correlated)


def test_backward_bias_sums_the_error(kernel_backend, device) -> None:
    x, w = integers((2, 3, 6, 7), 1, device), integers((4, 3, 3, 2), 2, device)
    b = integers((4,), 3, device).requires_grad_()
    with use_backend(kernel_backend):
        y = functional.conv2d(x, w, b)
    error = integers(tuple(y.shape), 4, device)
    (grad_bias,) = torch.autograd.grad(y, b, error)
    assert torch.equal(grad_bias, error.sum((0, 2, 3)))


def test_max_pool_passes_the_gradient_to_the_winner_only(kernel_backend, device) -> None:
    x = torch.tensor([[1.0, 9.0, 2.0, 2.0], [3.0, 4.0, 2.0, 8.0]], device=device)[None, None].requires_grad_()
    with use_backend(kernel_backend):
        y = functional.max_pool2d(x, 2)
    (grad,) = torch.autograd.grad(y, x, torch.tensor([[[[5.0, 7.0]]]], device=device))
    assert grad.tolist() == [[[[0, 5, 0, 0], [0, 0, 0, 7]]]]


def test_max_pool_adds_where_one_value_wins_several_windows(kernel_backend, device) -> None:
    x = torch.tensor([[1.0, 9.0, 2.0]], device=device)[None, None].requires_grad_()
    with use_backend(kernel_backend):
        y = functional.max_pool2d(x, (1, 2), 1)
    (grad,) = torch.autograd.grad(y, x, torch.tensor([[[[5.0, 7.0]]]], device=device))
    assert grad.tolist() == [[[[0, 12, 0]]]]
