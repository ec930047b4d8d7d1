"""Which convolutions are depthwise, and their kernels.

depthwise_conv2d is conv2d with a group for each channel. It is linear in the same two arguments and closed under the
same derivatives, so it has no operators of its own: conv2d's (conv2d.py) ask here which kernel runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..geometry import ConvGeometry


def is_depthwise(geometry: ConvGeometry) -> bool:
    """Whether each filter reads one channel of several. A lone channel under many filters is a matrix product, and
    better off as one."""
    return geometry.groups == geometry.c and (geometry.c > 1 or geometry.k == 1)


def depthwise_kernel(kernels: Any, direction: str, geometry: ConvGeometry) -> Callable[..., None] | None:
    """A backend's depthwise kernel for "forward", "backward_input" or "backward_weight"; None where the convolution is
    not depthwise."""
    return getattr(kernels, f"depthwise_conv_{direction}") if is_depthwise(geometry) else None
