"""Convolution of each channel with filters of its own."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from .arguments import Ints, check_dimensions, check_is_tensor
from .convolve import convolve


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
) -> Tensor:
    """Correlates each channel with filters of its own: `conv2d` with groups = C, which runs the same kernels.

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16 ("reference" takes more).
        weight: [C m, 1, R, S]; filters m c to m c + m - 1 read channel c. m is the channel multiplier.
        bias: [C m] or None.
        stride, padding, dilation: as conv2d's.

    Returns:
        [N, C m, P, Q] or [C m, P, Q], of conv2d's sizes and memory format.

    Raises:
        TypeError, RuntimeError, NotImplementedError, ImportError: as conv2d, and RuntimeError where weight is not of
            one channel or its filters are not a multiple of input's channels.

    Example:
        >>> images = torch.ones(1, 2, 2, 2)
        >>> filters = torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
        >>> cnnkernels.functional.depthwise_conv2d(images, filters).flatten()
        tensor([ 4., 40.])
    """
    if has_torch_function_variadic(input, weight, bias):
        given = (input, weight, bias)
        return handle_torch_function(
            depthwise_conv2d, given, input, weight, bias=bias, stride=stride, padding=padding, dilation=dilation
        )
    check_is_tensor("depthwise_conv2d", "input", input)
    check_is_tensor("depthwise_conv2d", "weight", weight)
    check_dimensions("depthwise_conv2d", input, weight)
    channels = int(input.shape[-3])
    if weight.shape[1] != 1 or channels == 0 or weight.shape[0] % channels != 0 or weight.shape[0] == 0:
        raise RuntimeError(
            f"depthwise_conv2d: expected weight to be of size [{channels} m, 1, R, S] for input of size "
            f"{list(input.shape)}, but got weight of size {list(weight.shape)}"
        )
    return convolve("depthwise_conv2d", input, weight, bias, stride, padding, dilation, channels)
