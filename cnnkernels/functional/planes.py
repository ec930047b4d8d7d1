"""A convolution's tensors as the operators take them: batches of planes, of which a row is one of height 1."""

from __future__ import annotations

import torch
from torch import Tensor

from ..epilogue import Epilogue
from ..ops.conv import ConvParameters


def as_planes(tensor: Tensor, rank: int) -> Tensor:
    """[N, C, H, W] of a tensor of `rank` spatial axes, with or without N.

    Rows are contiguous, as PyTorch makes them, and say so by every stride: read as they lie, a permuted batch of them,
    or one of a single channel or place, could pass for channels_last and make a result that is not contiguous.
    """
    if rank == 2:
        return tensor if tensor.dim() == 4 else tensor.unsqueeze(0)
    *images, channels, length = tensor.shape
    *of_images, of_channel, of_place = tensor.stride()
    several = bool(images) and images[0] > 1
    if of_channel != length or of_place != 1 or (several and of_images[0] != channels * length):
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    return tensor.view(images[0] if images else 1, channels, 1, length)


def from_planes(output: Tensor, input: Tensor, rank: int) -> Tensor:
    """What came of as_planes(input), of as many axes as input."""
    if rank == 1:
        output = output.squeeze(-2)
    return output if input.dim() == rank + 2 else output.squeeze(0)


def on_planes(epilogue: Epilogue, rank: int) -> Epilogue:
    residual = epilogue.residual
    return epilogue if residual is None else epilogue._replace(residual=as_planes(residual, rank))


def of_planes(parameters: ConvParameters) -> ConvParameters:
    """The same convolution of planes."""
    stride, padding, dilation = parameters[:3]
    if len(stride) == 2:
        return parameters
    return parameters._replace(stride=(1, *stride), padding=(0, 0, *padding), dilation=(1, *dilation))
