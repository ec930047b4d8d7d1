"""Batch normalization's kernels over tensors."""

from __future__ import annotations

from torch import Tensor

from ..dtypes import dtype_code
from .launching import Launching, address

Sizes = tuple[int, int, int]  # outer, channels, inner
# Of each channel: mean, var, weight and bias, the latter two where there are any.
Numbers = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


def _given(numbers: Tensor | None) -> tuple[int, int]:
    return address(numbers), 1 if numbers is None else dtype_code(numbers.dtype)


class NormKernels(Launching):
    def batch_norm_statistics(
        self,
        input: Tensor,
        mean: Tensor,
        var: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        sizes: Sizes,
    ) -> None:
        dtype = dtype_code(input.dtype)
        workspace = self._workspace("batch_norm", input, dtype, sizes)
        running = _given(running_mean), _given(running_var)
        self._launch(
            "batch_norm_statistics", (input, mean, var, workspace), dtype, sizes, *running, momentum,
            also=(running_mean, running_var),
        )  # fmt: skip

    def batch_norm_normalize(
        self,
        input: Tensor,
        residual: Tensor | None,
        output: Tensor,
        numbers: Numbers,
        eps: float,
        activation: int,
        slope: float,
        sizes: Sizes,
    ) -> None:
        given = [_given(n) for n in numbers]
        self._launch(
            "batch_norm_normalize", (input, residual, output), dtype_code(input.dtype), sizes, given, eps, activation,
            slope, also=numbers,
        )  # fmt: skip

    def batch_norm_backward(
        self,
        grad_output: Tensor,
        input: Tensor,
        residual: Tensor | None,
        output: Tensor | None,
        numbers: Numbers,
        eps: float,
        activation: int,
        slope: float,
        training: bool,
        gradients: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
        sizes: Sizes,
    ) -> None:
        """gradients: of input, weight, bias and residual; None for one that is not wanted."""
        of_input, of_weight, of_bias, of_residual = gradients
        dtype = dtype_code(input.dtype)
        workspace = self._workspace("batch_norm", input, dtype, sizes)
        self._launch(
            "batch_norm_backward", (grad_output, input, residual, output, of_input, of_residual, workspace),
            dtype, sizes, [_given(n) for n in numbers], eps, activation, slope, training, _given(of_weight),
            _given(of_bias), also=(*numbers, of_weight, of_bias),
        )  # fmt: skip

    def batch_norm_sums(self, a: Tensor, b: Tensor, center: Tensor | None, sums: Tensor, sizes: Sizes) -> None:
        dtype = dtype_code(a.dtype)
        workspace = self._workspace("batch_norm", a, dtype, sizes)
        self._launch("batch_norm_sums", (a, b, center, sums, workspace), dtype, sizes)

    def batch_norm_combine(
        self,
        x: Tensor,
        a: Tensor | None,
        b: Tensor | None,
        result: Tensor,
        coefficients: tuple[Tensor | None, ...],
        sizes: Sizes,
    ) -> None:
        """coefficients: gamma, center, delta, alpha and beta."""
        gamma, center, delta, alpha, beta = coefficients
        tensors = x, a, b, result, gamma, center, delta, alpha, beta
        self._launch("batch_norm_combine", tensors, dtype_code(x.dtype), sizes)
