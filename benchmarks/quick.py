"""Times of the kernels beside PyTorch's own on ResNet-50's shapes: `make bench`, or the last stage of `make gpu`.

Each launch is timed by CUDA events with a cold L2, outputs allocated beforehand; the median of the repetitions
counts. The floor of a shape is the larger of its operations over the matrix rate and its bytes (each operand once)
over the copy rate, both measured on this GPU in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkernels import backends
from cnnkernels.geometry import Layout, argmax_dtype
from cnnkernels.testing.cases import Conv2dCase, Pool2dCase

DTYPES = {
    "bf16": (torch.bfloat16, False),
    "fp16": (torch.float16, False),
    "tf32": (torch.float32, True),
    "fp32": (torch.float32, False),
}
BATCH = 32
SAME = (1, 1, 1, 1)
CONV2D = (
    Conv2dCase("stem 7x7/2 3-64 at 224", BATCH, 3, 224, 224, 64, 7, 7, (2, 2), (3, 3, 3, 3)),
    Conv2dCase("1x1 64-256 at 56", BATCH, 64, 56, 56, 256, 1, 1),
    Conv2dCase("3x3 64-64 at 56", BATCH, 64, 56, 56, 64, 3, 3, padding=SAME),
    Conv2dCase("1x1/2 256-512 at 56", BATCH, 256, 56, 56, 512, 1, 1, (2, 2)),
    Conv2dCase("3x3/2 128-128 at 56", BATCH, 128, 56, 56, 128, 3, 3, (2, 2), SAME),
    Conv2dCase("1x1 512-128 at 28", BATCH, 512, 28, 28, 128, 1, 1),
    Conv2dCase("3x3 256-256 at 14", BATCH, 256, 14, 14, 256, 3, 3, padding=SAME),
    Conv2dCase("3x3 512-512 at 7", BATCH, 512, 7, 7, 512, 3, 3, padding=SAME),
)
MAX_POOL2D = (
    Pool2dCase("3x3/2 64 at 112", BATCH, 64, 112, 112, (3, 3), (2, 2), (1, 1)),
    Pool2dCase("2x2/2 64 at 224", BATCH, 64, 224, 224, (2, 2), (2, 2)),
)


@dataclass
class Timing:
    """One operator on one shape: microseconds of each backend and of PyTorch, and the least the GPU allows."""

    op: str
    shape: str
    dtype: str
    microseconds: dict[str, float]
    flops: float
    bytes: float
    floor: float = 0.0

    def __str__(self) -> str:
        theirs = self.microseconds["torch"]
        text = f"{self.op:<24}{self.shape:<24}{self.dtype:<6}{theirs:>9.1f}"
        for name, taken in self.microseconds.items():
            if name != "torch":
                text += f"{taken:>10.1f}{self.flops / taken / 1e6:>8.1f}{self.bytes / taken / 1e3:>7.0f}"
                text += f"{self.floor / taken:>7.0%}{theirs / taken:>7.2f}"
        return text


def heading(names: list[str]) -> str:
    """The table's two head lines."""
    text = f"{'':<24}{'':<24}{'':<6}{'torch':>9}" + "".join(f"{name:>10}{'':>29}" for name in names)
    columns = "".join(f"{'us':>10}{'TFLOP/s':>8}{'GB/s':>7}{'floor':>7}{'ratio':>7}" for _ in names)
    return f"{text}\n{'operator':<24}{'shape':<24}{'type':<6}{'us':>9}{columns}"


class Stopwatch:
    """The median time of a launch in microseconds, by CUDA events (by the clock on a CPU)."""

    def __init__(self, device: str, repetitions: int) -> None:
        self.device = device
        self.repetitions = repetitions
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device=device) if device == "cuda" else None

    def __call__(self, launch: Callable[[], object]) -> float:
        if self.flush is None:
            started = time.perf_counter()
            launch()
            return 1e6 * (time.perf_counter() - started)
        for _ in range(3):
            launch()
        taken = []
        for _ in range(self.repetitions):
            self.flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            launch()
            end.record()
            end.synchronize()
            taken.append(1e3 * start.elapsed_time(end))
        return statistics.median(taken)


def ceilings(watch: Stopwatch, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP and bytes a microsecond: of PyTorch's matrix product, of a copy."""
    side, size = (8192, 1 << 30) if watch.device == "cuda" else (64, 1 << 12)
    a, b = (torch.randn(side, side, device=watch.device, dtype=dtype) for _ in range(2))
    source = torch.zeros(size, dtype=torch.uint8, device=watch.device)
    target = torch.empty_like(source)
    return 2 * side**3 / watch(lambda: a @ b), 2 * size / watch(lambda: target.copy_(source))


def _size(*tensors: Tensor) -> float:
    return float(sum(t.numel() * t.element_size() for t in tensors))


def conv2d_timings(case: Conv2dCase, names: list[str], kind: str, watch: Stopwatch) -> Iterator[Timing]:
    """Forward and both gradients, channels_last; PyTorch's by the operator autograd calls."""
    dtype, tf32 = DTYPES[kind]
    g = case.geometry
    x, w, dy = (
        torch.randn(shape, device=watch.device, dtype=dtype).to(memory_format=torch.channels_last)
        for shape in (case.input_shape, case.weight_shape, case.output_shape)
    )
    y, dx, dw = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(w)
    padding = [case.padding[0], case.padding[2]]
    shared = (list(case.stride), padding, list(case.dilation), False, [0, 0], case.groups)

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(dy, x, w, None, *shared, mask)

    theirs: dict[str, Callable[[], object]] = {
        "conv2d_forward": lambda: F.conv2d(x, w, None, case.stride, tuple(padding), case.dilation, case.groups),
        "conv2d_backward_input": lambda: backward([True, False, False]),
        "conv2d_backward_weight": lambda: backward([False, True, False]),
    }
    operands = {
        "conv2d_forward": (x, w, None, y),
        "conv2d_backward_input": (dy, w, dx),
        "conv2d_backward_weight": (dy, x, dw),
    }
    flops = 2.0 * g.n * g.p * g.q * g.k * (g.c // g.groups) * g.r * g.s
    for op, launch in theirs.items():
        taken = {"torch": watch(launch)}
        for name in names:
            kernel = getattr(backends.kernels(name, watch.device), op)
            taken[name] = watch(lambda k=kernel, o=operands[op]: k(*o, g, Layout.NHWC, tf32))
        yield Timing(op, str(case.reason), kind, taken, flops, _size(x, w, y))


def max_pool2d_timings(case: Pool2dCase, names: list[str], kind: str, watch: Stopwatch) -> Iterator[Timing]:
    """Forward with the winners' places (PyTorch's are eight bytes each, ours one) and backward."""
    dtype, _ = DTYPES[kind]
    g = case.geometry
    x, dy = (
        torch.randn(shape, device=watch.device, dtype=dtype).to(memory_format=torch.channels_last)
        for shape in (case.input_shape, case.output_shape)
    )
    y, dx, argmax = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(dy, dtype=argmax_dtype(g.r, g.s))
    arguments = (list(case.kernel), list(case.stride), list(case.padding), list(case.dilation), case.ceil_mode)
    indices = torch.ops.aten.max_pool2d_with_indices(x, *arguments)[1]
    theirs: dict[str, Callable[[], object]] = {
        "max_pool2d_forward": lambda: torch.ops.aten.max_pool2d_with_indices(x, *arguments),
        "max_pool2d_backward": lambda: torch.ops.aten.max_pool2d_with_indices_backward(dy, x, *arguments, indices),
    }
    operands = {"max_pool2d_forward": (x, y, argmax), "max_pool2d_backward": (dy, argmax, dx)}
    for op, launch in theirs.items():
        taken = {"torch": watch(launch)}
        for name in names:
            kernel = getattr(backends.kernels(name, watch.device), op)
            taken[name] = watch(lambda k=kernel, o=operands[op]: k(*o, g, Layout.NHWC))
        yield Timing(op, str(case.reason), kind, taken, 0.0, _size(*operands[op]))


def timings(names: list[str], kind: str, watch: Stopwatch) -> Iterator[Timing]:
    """Every operator on every shape, in one type."""
    dtype, tf32 = DTYPES[kind]
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    flops, rate = ceilings(watch, dtype)
    print(f"{kind}: matrix product {flops / 1e6:.0f} TFLOP/s, copy {rate / 1e3:.0f} GB/s", flush=True)
    print(heading(names), flush=True)
    cases = [(conv2d_timings, case) for case in CONV2D] + [(max_pool2d_timings, case) for case in MAX_POOL2D]
    for measure, case in cases:
        for timing in measure(case, names, kind, watch):  # type: ignore[operator]
            timing.floor = max(timing.flops / flops, timing.bytes / rate)
            print(timing, flush=True)
            yield timing


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="(default: bf16 and tf32)")
    parser.add_argument("--backend", action="append", choices=("cuda", "triton"), help="(default: all)")
    parser.add_argument("--repetitions", type=int, default=20)
    arguments = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks/quick.py: needs a CUDA device", file=sys.stderr)
        return 2
    names = arguments.backend or [name for name in backends.available_backends("cuda") if name != "reference"]
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {BATCH}, channels_last; ratio: torch / ours"
    )
    watch = Stopwatch("cuda", arguments.repetitions)
    results = [asdict(t) for kind in arguments.dtype or ("bf16", "tf32") for t in timings(names, kind, watch)]
    folder = Path(os.environ.get("OUT") or Path(__file__).parent / "results")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "quick.json"
    about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "timings": results}
    file.write_text(json.dumps(about, indent=1))
    print(f"wrote {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
