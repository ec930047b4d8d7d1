"""`cnnkernels profile`: what an operator's kernels, or anybody's PTX, execute in the emulator; no GPU takes part."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import backends
from ..backends import INTERPRETING
from ..emulator import GPU
from ..emulator.profile import Profile, counted
from . import profile_ptx
from .arguments import ints, padding, positive, writable
from .explain import machine
from .profile_calls import OPERATORS, Sizes
from .profile_report import Measured, as_json, report

TYPES = ("bf16", "fp16", "tf32", "fp32", "fp64", "int8", "uint8")
DIRECTIONS = ("forward", "backward_input", "backward_weight")
BLOCKS = 8


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("operator", nargs="?", choices=tuple(OPERATORS), help="or --ptx")
    sizes = parser.add_argument_group("the operator's call")
    sizes.add_argument("--input", type=ints(1, 2, 3, 4), metavar="N,...", help="N,C,H,W; M,K of a product")
    sizes.add_argument("--weight", type=ints(2, 3, 4), metavar="K,...", help="K,C/groups,R,S; N,K of a product")
    sizes.add_argument("--filters", type=positive, metavar="K", help="of the 1x1 of depthwise_separable_conv2d")
    sizes.add_argument("--kernel", type=ints(1, 2), metavar="N[,N]", help="of a pooling")
    sizes.add_argument("--bins", type=ints(1, 2), default=(1,), metavar="N[,N]", help="of an adaptive pooling")
    sizes.add_argument("--stride", type=ints(1, 2), metavar="N[,N]", help="default: 1, of a pooling its kernel")
    sizes.add_argument("--padding", type=padding, default=(0,), metavar="N[,N]", help="or same, or valid")
    sizes.add_argument("--dilation", type=ints(1, 2), default=(1,), metavar="N[,N]")
    sizes.add_argument("--groups", type=positive, default=1, metavar="N")
    sizes.add_argument("--ceil-mode", action="store_true")
    sizes.add_argument("--padding-mode", default="zeros", help="of conv2d (default: %(default)s)")
    sizes.add_argument("--bias", action="store_true", help="of conv2d")
    sizes.add_argument("--activation", help="of conv2d and the products of INT8: relu, relu6, ...")
    sizes.add_argument("--requantize", action="store_true", help="int8 instead of int32 of a product of INT8")
    sizes.add_argument("--dtype", choices=TYPES, default="bf16", help="default: %(default)s")
    sizes.add_argument("--layout", choices=("nhwc", "nchw"), default="nhwc", help="default: %(default)s")
    sizes.add_argument("--direction", action="append", choices=DIRECTIONS, metavar="NAME", help=", ".join(DIRECTIONS))
    sizes.add_argument("--backend", action="append", choices=("cuda", "triton"), help="may be repeated (default: cuda)")
    profile_ptx.add_options(parser.add_argument_group("a kernel of one's own"))
    how = parser.add_argument_group("how")
    how.add_argument("--gpu", help="a100, RTX 4090, h200, ... (default: h200)")
    how.add_argument(
        "--blocks", type=_count, default=BLOCKS, metavar="N", help="of a launch that run; 0: all (default: %(default)s)"
    )
    how.add_argument(
        "--lines", nargs="?", type=positive, const=20, metavar="N", help="also the N costliest source lines (20)"
    )
    how.add_argument("--json", type=writable, metavar="FILE", help="write all counts there, too")
    how.add_argument(
        "--figure", type=writable, metavar="FILE", help="draw them as bars, in the format of FILE's ending"
    )


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def profiled(
    args: argparse.Namespace, direction: str, backend: str
) -> tuple[dict[str, Tensor], float, list[Profile], Tensor]:
    """The tensors by name, operations that were asked for, launches and the result of one direction of a call."""
    operator = OPERATORS[args.operator]
    call = operator.make(Sizes(args))
    wanted = operator.directions[direction]
    tensors = {
        name: tensor.requires_grad_() if place in wanted else tensor
        for place, (name, tensor) in enumerate(call.tensors.items())
    }

    def forward() -> Tensor:
        with backends.use_backend(backend):  # type: ignore[arg-type]
            return call.function(*tensors.values())

    torch.backends.cudnn.conv.fp32_precision = "tf32" if args.dtype == "tf32" else "ieee"  # type: ignore[attr-defined]
    # Few gradients execute something else for other values: before the others one block of the forward is enough.
    output, launches = counted(forward, args.blocks if not wanted else 0 if operator.chooses else 1)
    multiply_adds = call.multiply_adds(output)
    if not wanted:
        return {**tensors, "output": output}, 2.0 * multiply_adds, launches, output
    inputs = [list(tensors.values())[place] for place in wanted]
    error = torch.ones_like(output)
    gradients, launches = counted(lambda: torch.autograd.grad(output, inputs, error), args.blocks)
    read = {name: tensor for place, (name, tensor) in enumerate(tensors.items()) if place not in wanted}
    named = {**read, "grad_output": error, "gradient": gradients[0]}
    return named, 2.0 * multiply_adds * len(wanted), launches, gradients[0]


def _restarted(gpu: str) -> None:
    """Begins again, where it must, with the variables that are read when the package is imported."""
    wanted = {"CNNKERNELS_INTERPRET": "ptx", "TRITON_INTERPRET": "0", GPU: gpu}
    if INTERPRETING and all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})


def run(args: argparse.Namespace, refuse: Callable[[str], Any]) -> int:
    """Prints it; `refuse` ends with what is wrong with the arguments."""
    if (args.operator is None) == (args.ptx is None):
        refuse("an operator or --ptx is needed, and not both")
    for file in filter(None, (args.json, args.figure)):
        Path(file).unlink(missing_ok=True)
    if args.figure is not None:
        try:
            from . import profile_figure
        except ImportError as error:
            refuse(f"--figure needs {error.name}: `pip install 'cnnkernels[demo]'`")
        if Path(args.figure).suffix.lstrip(".") not in profile_figure.FORMATS:
            refuse(f"--figure must end in one of {', '.join(profile_figure.FORMATS)}, but got {args.figure}")
    try:
        gpu = machine(args.gpu or "h200")
    except ValueError as error:
        refuse(str(error))
    measured: list[Measured] = []
    if args.ptx is not None:
        try:
            measured.append(profile_ptx.profiled(args))
        except ValueError as error:
            refuse(str(error))
    else:
        for direction in args.direction or ("forward",):
            if direction not in OPERATORS[args.operator].directions:
                refuse(f"{args.operator} has no {direction} of its own to profile")
        _restarted(gpu.name)
        for backend in args.backend or ("cuda",):
            for direction in args.direction or ("forward",):
                try:
                    tensors, operations, launches, output = profiled(args, direction, backend)
                except (ValueError, RuntimeError, TypeError) as error:
                    print(f"cnnkernels profile: {error}", file=sys.stderr)
                    return 1
                title = f"{args.operator} {direction}, {args.dtype}, backend {backend}"
                measured.append(Measured(title, launches, tensors, operations, output.numel()))
    for number, one in enumerate(measured):
        print("\n" * (number > 0) + "\n".join(report(one, gpu, args.lines)))
    if args.json is not None:
        Path(args.json).write_text(json.dumps([as_json(one, gpu) for one in measured], indent=1) + "\n")
    if args.figure is not None:
        profile_figure.draw(args.figure, measured, gpu)
    return 0
