"""What becomes of a convolution's sums before they are stored: activation(scale (sum + bias) + shift + residual)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .activation import ACTIVATIONS, NEGATIVE_SLOPE, activate


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

    def apply(self, output: Tensor) -> Tensor:
        """The same by PyTorch's operators, on a convolution's stored output [N, K, P, Q] or [K, P, Q]."""
        if self.scale is not None:
            output = output * self.scale[:, None, None]
        if self.shift is not None:
            output = output + self.shift[:, None, None]
        if self.residual is not None:
            output = output + self.residual
        return activate(output, self.activation, self.negative_slope)
