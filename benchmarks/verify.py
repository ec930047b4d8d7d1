"""A provider's numbers against fp64, before it is timed.

Our kernels are held to the project's rule (cnnkernels.testing.numerics), element by element: twice the error of
PyTorch's own operator in the same type, plus a floor from the true length of the reduction. Where values are only moved
or integers added, results must be equal.

Other providers answer to nobody's rule, and some are coarse for good reasons: cuDNN's Winograd transforms, ATen's sums
over the batch that are rounded after each sample. Their root mean square error may be four times what one rounding a
sample and a sum in fp32 make of random numbers. A wrong result is far outside of that.

A large case is verified on some of its samples, from the front and from the end of the batch: forward and
backward_input are computed whole and looked at there; a gradient of the weight is computed for those samples alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnkernels.testing.numerics import TF32_ROUNDOFF, UNIT_ROUNDOFF, rounding_bound

from .cases import Case
from .providers import Eager, Provider, flags, work

# What a reference in fp64 may cost, three times: a few tenths of a second on a GPU.
MOST_FLOPS = 1e10
MOST_ELEMENTS = 2**27


@dataclass(frozen=True)
class Verdict:
    """An error and its allowance where they come closest, or what is wrong is furthest off."""

    error: float
    allowed: float
    right: bool
    samples: int


def make_inputs(case: Case, device: str, seed: int) -> tuple[Tensor, ...]:
    """Random operands, and the output's gradient where one is needed; never zeros, on which a GPU runs faster."""
    generator = torch.Generator(device).manual_seed(seed)
    shapes = list(case.operator.shapes(case.problem))
    if case.differentiated:
        shapes.append(case.operator.output(case.problem))
    made = []
    for shape in shapes:
        memory_format = case.layout.memory_format if len(shape) == 4 else torch.contiguous_format
        tensor = torch.empty(shape, dtype=case.torch_dtype, device=device, memory_format=memory_format)
        if case.dtype == "int8":
            made.append(tensor.random_(-128, 128, generator=generator))
        else:
            made.append(tensor.normal_(0, 0.5, generator=generator))  # sums over 2^26 pixels stay within fp16
    return tuple(made)


def verified_samples(case: Case) -> int:
    """How many samples of the batch the reference can afford, at least two."""
    shapes = (*case.operator.shapes(case.problem), case.operator.output(case.problem))
    share = max(case.flops / MOST_FLOPS, max(math.prod(shape) for shape in shapes) / MOST_ELEMENTS, 1.0)
    return min(case.samples, max(2, int(case.samples / share)))


class Reference:
    """What providers' results on given inputs are held to."""

    def __init__(self, case: Case, inputs: Sequence[Tensor]) -> None:
        self.case = case
        self.inputs = inputs
        self.count = verified_samples(case)
        self.part = case.with_samples(self.count)
        self.sampled = [
            self._sample(tensor) if self._has_samples(place) else tensor for place, tensor in enumerate(inputs)
        ]
        # a sum over the batch can only be compared on the samples that were in it
        self.whole = case.direction in ("forward", "backward_input")
        doubles = [tensor.double() for tensor in self.sampled]
        if case.operator.linear:
            magnitudes = [tensor.abs() for tensor in doubles]
        else:
            magnitudes = [*doubles[:-1], doubles[-1].abs()]
        self.truth = self._compute(doubles)
        self.magnitude = self._compute(magnitudes)
        self.theirs = self._theirs()

    def _has_samples(self, place: int) -> bool:
        return place == 0 or (bool(self.case.differentiated) and place == len(self.inputs) - 1)

    def _sample(self, tensor: Tensor) -> Tensor:
        if self.count == self.case.samples:
            return tensor
        front = self.count // 2
        ends = torch.cat([tensor[:front], tensor[tensor.shape[0] - (self.count - front) :]])
        return ends.contiguous(memory_format=self.case.layout.memory_format) if ends.dim() == 4 else ends

    def _compute(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        problem = self.part.problem
        with flags():
            return work(self.part, lambda *operands: self.case.operator.torch(problem, *operands), inputs)()

    def _theirs(self) -> tuple[Tensor, ...]:
        """PyTorch's result in the case's type; where that is wrong or missing, the truth, rounded."""
        eager = Eager("torch", cudnn=True)
        rounded = tuple(tensor.to(self.case.output_dtype) for tensor in self.truth)
        if self.case.dtype == "int8":
            return rounded
        outputs = eager.setup(self.part, self.sampled)()
        return outputs if self._judge(eager, outputs).right else rounded

    def results(self, provider: Provider) -> tuple[Tensor, ...]:
        """A provider's results at the places that `truth` has."""
        if not self.whole:
            return provider.setup(self.part, self.sampled)()
        return tuple(self._sample(output) for output in provider.setup(self.case, self.inputs)())

    def judge(self, provider: Provider) -> Verdict:
        """Whether a provider's numbers are right."""
        return self._judge(provider, self.results(provider))

    def _judge(self, provider: Provider, outputs: Sequence[Tensor]) -> Verdict:
        worst = (-1.0, 0.0, 0.0)
        for place, output in enumerate(outputs):
            if output.shape != self.truth[place].shape:
                return Verdict(math.inf, 0.0, False, self.count)
            difference = output.double() - self.truth[place]
            if self._exact(provider, place):
                judged = _worst_element(difference, torch.zeros_like(difference))
            elif provider.ours:
                judged = _worst_element(difference, self._our_bound(place))
            else:
                judged = _root_mean_square(difference, self._their_bound(provider, place))
            worst = max(worst, judged)
        ratio, error, allowed = worst
        return Verdict(error, allowed, ratio <= 1, self.count)

    def _is_output(self, place: int) -> bool:
        return place == 0 and self.case.direction in ("forward", "training")

    def _exact(self, provider: Provider, place: int) -> bool:
        in_this_type = provider.arithmetic(self.case) is self.case.torch_dtype
        return self.case.operator.exact and self._is_output(place) and in_this_type

    def _our_bound(self, place: int) -> Tensor:
        reductions = self.part.operator.reductions(self.part.problem)
        if self._is_output(place):
            reduction = reductions[0]
        else:
            gradient = place - (self.case.direction == "training")
            reduction = reductions[1 + self.case.differentiated[gradient]]
        tf32 = self.case.dtype == "tf32"
        truth, theirs, magnitude = self.truth[place], self.theirs[place], self.magnitude[place]
        dtype = self.case.output_dtype if self._is_output(place) else self.case.torch_dtype
        return rounding_bound(truth, theirs, reduction, magnitude, dtype, tf32)

    def _their_bound(self, provider: Provider, place: int) -> Tensor:
        """Rounding a running sum m times in a type of unit u errs by u sqrt(m / 6) of the sum: Higham, section 2.8."""
        unit = UNIT_ROUNDOFF[provider.arithmetic(self.case)]
        if self.case.dtype == "tf32":
            unit = TF32_ROUNDOFF
        roundings = unit * math.sqrt(self.count) * self.truth[place]
        return 4 * (roundings.abs() + UNIT_ROUNDOFF[torch.float32] * self.magnitude[place])


# (error over allowance, error, allowance); what is no number is infinitely wrong
Judged = tuple[float, float, float]


def _worst_element(difference: Tensor, bound: Tensor) -> Judged:
    """Of the element where the error over its allowance is largest."""
    error = difference.abs().flatten()
    if not error.numel():
        return (0.0, 0.0, 0.0)
    error = torch.where(error.isnan(), math.inf, error)
    allowed = bound.flatten()
    ratio = torch.where(error == 0, 0.0, error / allowed)
    place = int(ratio.argmax() if ratio.max() > 0 else allowed.argmax())
    return (ratio[place].item(), error[place].item(), allowed[place].item())


def _root_mean_square(difference: Tensor, bound: Tensor) -> Judged:
    error, allowed = (values.square().mean().sqrt().item() for values in (difference, bound))
    if math.isnan(error):
        return (math.inf, math.inf, allowed)
    return (error / allowed if allowed else math.inf if error else 0.0, error, allowed)


def same_bits(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether two runs gave the same bits."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    pairs = zip(first, second, strict=True)
    return all(torch.equal(*(t.view(integers[t.element_size()]) for t in pair)) for pair in pairs)
