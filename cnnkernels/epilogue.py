"""What becomes of a convolution's sums before they are stored: activation(scale (sum + bias) + shift + residual)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .activation import ACTIVATIONS, NEGATIVE_SLOPE, activate
from .geometry import Layout


class Epilogue(NamedTuple):
    """scale, shift: [K]; residual: as the output; None where there is nothing to do; activation: of `ACTIVATIONS`."""

    scale: Tensor | None = None
    shift: Tensor | None = None
    residual: Tensor | None = None
    activation: str = "none"
    negative_slope: float = NEGATIVE_SLOPE

    @property
    def code(self) -> int:
        """The activation's number in csrc/common/activation.h."""
        return ACTIVATIONS.index(self.activation)

    @property
    def is_empty(self) -> bool:
        return self.scale is self.shift is self.residual is None and self.activation == "none"

    def contiguous(self, layout: Layout) -> Epilogue:
        """With tensors as the kernels take them."""
        scale, shift, residual = self[:3]
        return self._replace(
            scale=None if scale is None else scale.contiguous(),
            shift=None if shift is None else shift.contiguous(),
            residual=None if residual is None else residual.contiguous(memory_format=layout.memory_format),
        )

    def apply(self, output: Tensor, rank: int = 2) -> Tensor:
        """The same by PyTorch's operators, on a convolution's stored output: [N, K, P, Q] or [K, P, Q], or of another
        number of spatial axes."""
        of_filters = (slice(None), *[None] * rank)
        if self.scale is not None:
            output = output * self.scale[of_filters]
        if self.shift is not None:
            output = output + self.shift[of_filters]
        if self.residual is not None:
            output = output + self.residual
        return activate(output, self.activation, self.negative_slope)
