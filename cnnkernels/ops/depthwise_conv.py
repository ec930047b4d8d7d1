"""Which convolutions are depthwise.

depthwise_conv2d is conv2d with a group for each channel. It is linear in the same two arguments and closed under the
same derivatives, so it has no operators of its own: conv2d's (conv.py) ask here, by way of conv_kernel.py,
which kernels run.
"""

from __future__ import annotations

from ..geometry import ConvGeometry


def is_depthwise(geometry: ConvGeometry) -> bool:
    """Whether each filter reads one channel of several. A lone channel under many filters is a matrix product, and
    better off as one."""
    return geometry.groups == geometry.c and (geometry.c > 1 or geometry.k == 1)
