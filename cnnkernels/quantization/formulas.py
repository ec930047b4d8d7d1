"""From a range of real numbers to the numbers of an INT8 code, and rounding to that code with a gradient.

An int8 code q stands for the real number (q - zero_point) scale. Activations take the affine code, whose 256 values
span [low, high] whatever its place: what a ReLU leaves, [0, high], is spanned by all of them, where a symmetric code
would waste the negative half, one bit. Weights take the symmetric one, zero_point = 0 and |q| <= 127, with a scale for
each filter: then the integer products need one correction only, of the activation's zero point, which is known before
the first input arrives. (B. Jacob et al., "Quantization and training of neural networks for efficient integer-
arithmetic-only inference", CVPR 2018, section 2; R. Krishnamoorthi, "Quantizing deep convolutional networks for
efficient inference", arXiv:1806.08342, 2018, section 2.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..ops.quantize import dynamic_scale

LOWEST, HIGHEST = -128, 127
# The reciprocal of a scale must be a number too.
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny


def affine_code(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The affine code of [low, high], widened to hold 0, which zero padding and ReLU need to be exact:

        scale = (high - low) / 255,   zero_point = rint(-128 - low / scale)

    in fp64, the scale then rounded to fp32. Where both ends are 0 the scale is 1 and the zero point 0.

    Args:
        low, high: of one shape, on one device; nothing is read back to the host.

    Returns:
        scale fp32 and zero point int32, both of low's shape.
    """
    low, high = low.double().clamp(max=0), high.double().clamp(min=0)
    scale = ((high - low) / (HIGHEST - LOWEST)).clamp(min=_SMALLEST_SCALE).float()
    zero_point = (LOWEST - low / scale.double()).round().clamp(LOWEST, HIGHEST)
    empty = low == high
    return torch.where(empty, 1.0, scale), torch.where(empty, 0.0, zero_point).int()


def symmetric_scale(weight: Tensor) -> Tensor:
    """A scale for each filter of weight [K, ...], as `functional.quantize_per_channel` finds it: max |w| / 127 in fp32,
    at least 2^-126, and 1 where all are 0; fp32 [K]."""
    return dynamic_scale(weight.detach().float().flatten(1).abs().amax(1))


class _StraightThrough(torch.autograd.Function):
    """Rounds to the code's numbers; the gradient passes as if nothing had been rounded, where nothing was clipped.

    Y. Bengio, N. Leonard, A. Courville, "Estimating or propagating gradients through stochastic neurons for
    conditional computation", arXiv:1308.3432, 2013.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        code = torch.round(input.float() * (1 / scale))
        low, high = LOWEST - zero_point, HIGHEST - zero_point
        ctx.save_for_backward((code >= low) & (code <= high))
        wide = torch.promote_types(input.dtype, torch.float32)
        return (torch.clamp(code, low, high).to(wide) * scale.to(wide)).to(input.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grad_outputs[0] * inside, None, None


def fake_quantize(input: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The number that input's code stands for:

        (clamp(rint(input (1 / scale)) + zero_point, -128, 127) - zero_point) scale

    The code is found in fp32 as `functional.quantize_per_tensor` finds it, so that it is the same to the bit. The
    gradient in `input` is 1 where the code was not clipped and 0 where it was. NaN stays NaN, to be seen in training.

    Args:
        input: floating.
        scale: fp32, broadcastable to input.
        zero_point: int32, likewise.

    Returns:
        A tensor of input's shape and dtype.
    """
    return _StraightThrough.apply(input, scale, zero_point)


def fake_quantize_weight(weight: Tensor) -> Tensor:
    """weight [K, ...] rounded to the symmetric code of each filter; the gradient passes whole."""
    shape = [-1] + [1] * (weight.dim() - 1)
    scale = symmetric_scale(weight).view(shape)
    return fake_quantize(weight, scale, torch.zeros_like(scale, dtype=torch.int32))
