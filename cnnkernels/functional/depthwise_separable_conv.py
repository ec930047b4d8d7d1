"""A depthwise convolution and the 1x1 convolution after it, fused."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE
from ..backends import serving
from ..ops import depthwise_separable_conv as _depthwise_separable
from ..ops.checks import check_depthwise_separable_tensors
from ..ops.operator import cast_for_autocast
from .arguments import Ints, as_pair, check_is_tensor, checked_activation, sides, under_autocast


def depthwise_separable_conv2d(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None = None,
    pointwise_bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    depthwise_activation: str | None = None,
    pointwise_activation: str | None = None,
    save_intermediate: bool = False,
    negative_slope: float = NEGATIVE_SLOPE,
) -> Tensor:
    """A depthwise convolution and the 1x1 convolution after it, in one kernel (Howard et al., MobileNets, 2017).

        intermediate = depthwise_activation(conv2d(input, depthwise_weight, depthwise_bias, ..., groups=C))
        output = pointwise_activation(conv2d(intermediate, pointwise_weight, pointwise_bias))

    The intermediate stays on the chip. It is rounded to input's dtype once, after its activation.

    Args:
        input: [N, C, H, W] or [C, H, W]; float64, float32, float16 or bfloat16.
        depthwise_weight: [C multiplier, 1, R, S]; channel c makes the intermediate's channels c multiplier and on.
        pointwise_weight: [K, C multiplier, 1, 1]. Its products are tf32 where `conv2d`'s may be.
        depthwise_bias, pointwise_bias: [C multiplier] and [K], or None.
        stride, padding, dilation: the depthwise convolution's, as `conv2d` takes them.
        depthwise_activation, pointwise_activation: one of `cnnkernels.activation.ACTIVATIONS`, or None.
        save_intermediate: keep the intermediate (before its activation) for the backward pass, which otherwise
            computes it anew, with the same bits: N C multiplier P Q more elements of memory for less work.
        negative_slope: leaky_relu's.

    Returns:
        [N, K, P, Q] or [K, P, Q]; channels_last where input or a filter is. Gradients have their tensors' strides.

    Raises:
        TypeError, RuntimeError, ValueError: naming the argument and its value.
        NotImplementedError: a dtype that the kernels asked for do not take.
        ImportError, RuntimeError: kernels asked for by name that are not built or can not run here.
    """
    tensors = input, depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            depthwise_separable_conv2d,
            tensors,
            *tensors,
            stride=stride,
            padding=padding,
            dilation=dilation,
            depthwise_activation=depthwise_activation,
            pointwise_activation=pointwise_activation,
            save_intermediate=save_intermediate,
            negative_slope=negative_slope,
        )
    op = "depthwise_separable_conv2d"
    names = "input", "depthwise_weight", "pointwise_weight", "depthwise_bias", "pointwise_bias"
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is not None or not name.endswith("bias"):
            check_is_tensor(op, name, tensor)
    if not isinstance(save_intermediate, bool):
        raise TypeError(f"{op}(): argument 'save_intermediate' must be bool, but got {save_intermediate!r}")
    first, slope = checked_activation(op, depthwise_activation, negative_slope, "depthwise_activation")
    second, _ = checked_activation(op, pointwise_activation, negative_slope, "pointwise_activation")
    if under_autocast(input.device):
        tensors = cast_for_autocast(input.device.type, *tensors)
    input, depthwise_weight = tensors[:2]
    backend = serving(op, input.device, input.dtype)
    check_depthwise_separable_tensors(*tensors)
    if backend == "reference" or input.numel() == 0:
        return _depthwise_separable.reference(*tensors, stride, padding, dilation, (first, second, slope))
    strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
    padded = sides(op, depthwise_weight.shape[2:], strides, padding, dilations)
    parameters = save_intermediate, strides, padded, dilations, int(input.shape[-3]), first, second, slope, backend
    if input.dim() == 4:
        return _depthwise_separable.depthwise_separable_conv_forward(*tensors, *parameters)[0]
    batch = input.unsqueeze(0), *tensors[1:]
    return _depthwise_separable.depthwise_separable_conv_forward(*batch, *parameters)[0].squeeze(0)
