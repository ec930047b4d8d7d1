"""A depthwise convolution and the 1x1 convolution after it, fused."""

from __future__ import annotations

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from ..activation import NEGATIVE_SLOPE
from ..backends import serving
from ..ops import depthwise_separable_conv as _depthwise_separable
from ..ops.operator import cast_for_autocast
from .arguments import Ints, as_pair, check_is_tensor, check_like, checked_activation, sides, under_autocast


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

    Example:
        >>> images, depthwise, pointwise = torch.ones(1, 2, 5, 5), torch.ones(2, 1, 3, 3), torch.ones(4, 2, 1, 1)
        >>> output = cnnkernels.functional.depthwise_separable_conv2d(images, depthwise, pointwise, padding=1)
        >>> output.shape, output[0, 0, 2, 2].item()
        (torch.Size([1, 4, 5, 5]), 18.0)
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
    if not isinstance(backend, str):
        given = *tensors, stride, padding, dilation, depthwise_activation, pointwise_activation, save_intermediate
        backend = backend.choose((*given, negative_slope), depthwise_separable_conv2d)
    _check_tensors(*tensors)
    if backend == "reference" or input.numel() == 0:
        return _depthwise_separable.reference(*tensors, stride, padding, dilation, (first, second, slope))
    strides, dilations = as_pair(op, "stride", stride), as_pair(op, "dilation", dilation)
    padded = sides(op, depthwise_weight.shape[2:], strides, padding, dilations)
    parameters = save_intermediate, strides, padded, dilations, int(input.shape[-3]), first, second, slope, backend
    if input.dim() == 4:
        return _depthwise_separable.depthwise_separable_conv_forward(*tensors, *parameters)[0]
    batch = input.unsqueeze(0), *tensors[1:]
    return _depthwise_separable.depthwise_separable_conv_forward(*batch, *parameters)[0].squeeze(0)


def _check_tensors(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    depthwise_bias: Tensor | None,
    pointwise_bias: Tensor | None,
) -> None:
    """What is asked of the tensors beyond the depthwise convolution's geometry.

    Raises:
        RuntimeError: naming the argument and its value.
    """
    op = "depthwise_separable_conv2d"
    if input.dim() not in (3, 4):
        raise RuntimeError(
            f"Expected 3D (unbatched) or 4D (batched) input to {op}, but got input of size: {list(input.shape)}"
        )
    channels = input.shape[-3]
    first, second = list(depthwise_weight.shape), list(pointwise_weight.shape)
    if len(first) != 4 or first[1] != 1 or channels == 0 or first[0] == 0 or first[0] % channels != 0:
        raise RuntimeError(
            f"{op}: depthwise_weight should be [{channels} * multiplier, 1, R, S] for input of size "
            f"{list(input.shape)}, but got depthwise_weight of size {first}"
        )
    if len(second) != 4 or second[0] == 0 or second[1:] != [first[0], 1, 1]:
        raise RuntimeError(
            f"{op}: pointwise_weight should be [K, {first[0]}, 1, 1] after depthwise_weight of size {first}, "
            f"but got pointwise_weight of size {second}"
        )
    for name, bias, size in (
        ("depthwise_bias", depthwise_bias, first[0]),
        ("pointwise_bias", pointwise_bias, second[0]),
    ):
        if bias is not None and list(bias.shape) != [size]:
            raise RuntimeError(f"{op}: {name} should be [{size}], but got {name} of size {list(bias.shape)}")
    for name, tensor in (
        ("depthwise_weight", depthwise_weight),
        ("pointwise_weight", pointwise_weight),
        ("depthwise_bias", depthwise_bias),
        ("pointwise_bias", pointwise_bias),
    ):
        if tensor is not None:
            check_like(name, tensor, input)
