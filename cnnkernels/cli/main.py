"""The command `cnnkernels`: info, check, prove, demo, summary, learn, bench, explain, profile and tune."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence

import torch

from .. import __version__
from ..backends import INTERPRETING
from ..dtypes import PRODUCTS
from ..functional.arguments import named_padding
from ..geometry import PADDING_MODES, Layout
from ..ops.checks import conv_geometry
from ..records import tuned
from ..tuning.problem import Problem
from . import bench, profile
from .arguments import ints, padding, positive, size, writable
from .tune import add_options as add_tune_options

_DESCRIPTION = "Hand-written CUDA and Triton kernels for convolutional networks, as drop-in PyTorch layers."
_WHERE = "Without a GPU the kernels run on the CPU. Exit code 0: all is well, 1: something is not, 2: usage."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cnnkernels", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"cnnkernels {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        text = summary[0].upper() + summary[1:] + "." + more
        made = commands.add_parser(name, help=summary, description=text, epilog=_WHERE)
        made.set_defaults(parser=made)
        return made

    command("info", "what is built, for which architectures, and which backend serves a call and why")
    check = command("check", "every kernel of every backend against PyTorch in fp64: a table of errors")
    prove = command(
        "prove",
        "test every kernel on the GPU at hand, each family in a process of its own, and keep what is certified",
        " Calls take certified kernels alone, and PyTorch's own operators else. Fails where something is not certified."
        " The certificate lies in CNNKERNELS_CACHE, or in the user's cache folder.",
    )
    prove.add_argument("--again", action="store_true", help="also where there is a certificate")
    words = "try the families with these words alone, as cuda conv wgmma (may be repeated); nothing is kept"
    prove.add_argument("--only", action="append", nargs="+", metavar="WORD", help=words)
    prove.add_argument("--list", action="store_true", help="name the families, and do nothing")
    demo = command(
        "demo",
        "train on handwritten digits with every backend beside torch.nn, write a picture",
        " Fails where a backend's losses stray from torch.nn's by more than rounding explains, or where fewer than"
        " 95 % of the digits held back are recognised.",
    )
    for sub in (check, demo):
        sub.add_argument(
            "--backend",
            action="append",
            choices=("cuda", "triton"),
            help="only this backend (may be repeated; default: all that can run here)",
        )
    explain = command(
        "explain",
        "what a convolution costs on a GPU, which kernel serves it and why",
        " Nothing is launched, so it explains any GPU anywhere. The times come from a model, not from a measurement.",
    )
    profile.add_options(
        command(
            "profile",
            "what a call's kernels, or anybody's PTX, execute: counted in the emulator, without a GPU",
            " Runs the kernels that a GPU would get, on some of their blocks. Times come from a model of the counts,"
            " not from a measurement.",
        )
    )
    tune = command(
        "tune",
        "time on the GPU at hand who serves a network's calls the fastest, PyTorch included; `auto` follows",
        " Winners, and of conv2d the best plans, go to a table in the cache directory; CNNKERNELS_TUNED names others."
        " With conv2d for a network: the plans of one convolution, or of every layer of --shapes.",
    )
    explain.add_argument("operator", choices=("conv2d",))
    networks = "torchvision.models:resnet50, mine:Net, ...; or conv2d"
    tune.add_argument("what", nargs="?", metavar="MODULE:FACTORY", help=networks)
    for sub in (explain, tune):
        _add_problem(sub, needed=sub is explain)
        sub.add_argument("--backend", action="append", choices=("cuda", "triton"), help="only this one (default: both)")
    explain.add_argument("--padding-mode", choices=PADDING_MODES, default="zeros", help="default: %(default)s")
    explain.add_argument("--gpu", help="a100, RTX 4090, h200, ... (default: the one at hand, else h200)")
    add_tune_options(tune)
    demo.add_argument("--epochs", type=positive, default=4, help="passes over the training set (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the split, the start and the batches (default: 0)")
    demo.add_argument(
        "--int8",
        action="store_true",
        help="quantize the trained network to INT8 instead; fails where that costs more than 0.5 points of accuracy",
    )
    pictures = "the picture (default: demo.png, with --int8 demo_int8.png)"
    demo.add_argument("--output", type=writable, metavar="FILE", help=pictures)
    summary = command(
        "summary",
        "what each layer of a network costs: parameters, operations, bytes, and the least time on a GPU, by a model",
        " The network is run once, on the CPU, on zeros.",
    )
    summary.add_argument("model", metavar="MODULE:FACTORY", help="torchvision.models:resnet50, mine:Net, ...")
    sizes = "an input's, N,C,H,W (may be repeated)"
    summary.add_argument("--input", type=size, action="append", required=True, metavar="N,C,...", help=sizes)
    summary.add_argument("--gpu", default="h200", help="a100, rtx4090, h200, ... (default: %(default)s)")
    summary.add_argument("--output", type=writable, metavar="FILE", help="a picture of it as well")
    learn = command(
        "learn",
        "a page that steps through a convolution, its gradients, a pool and tiles, with one's own sizes",
        " One HTML file, which needs no other and no network.",
    )
    learn.add_argument("--output", type=writable, metavar="FILE", help="write it there instead of opening it")
    bench.add_options(
        command(
            "bench",
            "time the kernels beside PyTorch's own, in percent of what the GPU allows",
            " Runs in a checkout. Fails where anybody's numbers are wrong, or --against finds something slower.",
        )
    )
    return parser


def _add_problem(parser: argparse.ArgumentParser, needed: bool) -> None:
    """The arguments that name a convolution, as torch.nn.functional.conv2d's."""
    sizes = parser.add_argument_group("the convolution")
    if needed:
        sizes.add_argument("--input", type=ints(4), required=True, metavar="N,C,H,W")
    else:
        several = "or an input of the network (may be repeated)"
        sizes.add_argument("--input", type=size, action="append", metavar="N,C,H,W", help=several)
    sizes.add_argument("--weight", type=ints(4), required=needed, metavar="K,C/groups,R,S")
    sizes.add_argument("--stride", type=ints(1, 2), default=(1,), metavar="N[,N]")
    sizes.add_argument("--padding", type=padding, default=(0,), metavar="N[,N]", help="or same, or valid")
    sizes.add_argument("--dilation", type=ints(1, 2), default=(1,), metavar="N[,N]")
    sizes.add_argument("--groups", type=positive, default=1, metavar="N")
    network = "" if needed else "; of a network: as it is made"
    sizes.add_argument("--dtype", choices=PRODUCTS, default="bf16" if needed else None, help=f"default: bf16{network}")
    layouts = "nhwc", "nchw"
    sizes.add_argument("--layout", choices=layouts, default="nhwc" if needed else None, help=f"default: nhwc{network}")
    directions = f"{', '.join(tuned.DIRECTIONS)} (may be repeated)"
    sizes.add_argument("--direction", action="append", choices=tuned.DIRECTIONS, metavar="NAME", help=directions)


def _problems(args: argparse.Namespace) -> list[Problem]:
    """The convolutions that the arguments name; exits with code 2 for one that there is not."""
    stride, dilation = (given * (2 // len(given)) for given in (args.stride, args.dilation))
    try:
        if isinstance(args.padding, str):
            sides = named_padding(args.padding, args.weight[2:], stride, dilation)
        else:
            rows, columns = args.padding * (2 // len(args.padding))
            sides = rows, rows, columns, columns
        mode = getattr(args, "padding_mode", "zeros")
        geometry = conv_geometry(args.input, args.weight, stride, sides, dilation, args.groups, mode)
    except RuntimeError as error:
        args.parser.error(str(error))
    layout = Layout[args.layout.upper()]
    return [Problem(direction, args.dtype, layout, geometry) for direction in args.direction or ("forward",)]


def _convolution(args: argparse.Namespace) -> list[Problem] | None:
    """The one that the arguments name, if any."""
    if (args.input is None) != (args.weight is None):
        args.parser.error("--input and --weight come together")
    if args.input is None:
        return None
    if len(args.input) != 1 or len(args.input[0]) != 4:
        args.parser.error("argument --input: must be 4 numbers, once, of a convolution")
    given = {"input": args.input[0], "dtype": args.dtype or "bf16", "layout": args.layout or "nhwc"}
    return _problems(argparse.Namespace(**vars(args) | given))


def _device(few_kernels: bool = False) -> str:
    """Where the kernels run: on the GPU, else (or where CNNKERNELS_INTERPRET=1 asks for it) in the interpreters.

    The variable is read when the package is imported, and Triton's likewise; so the command starts itself again.

    Args:
        few_kernels: that are launched again and again. Triton's are compiled then, and run in the emulator, which is
            faster; TRITON_INTERPRET=1 has them interpreted.
    """
    if INTERPRETING:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    sys.stdout.flush()
    command = [sys.executable, *sys.orig_argv[1:]]
    emulates = few_kernels and importlib.util.find_spec("cnnkernels._emulator") is not None
    triton = os.environ.get("TRITON_INTERPRET") or ("0" if emulates else "1")
    os.execve(sys.executable, command, {**os.environ, "CNNKERNELS_INTERPRET": "1", "TRITON_INTERPRET": triton})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    args, unknown = _parser().parse_known_args(argv)
    if unknown:  # argparse would show the usage of all commands
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        if args.command == "info":
            from . import info

            return info.run()
        if args.command == "check":
            from . import check

            return check.run(args.backend, _device())
        if args.command == "prove":
            from . import prove

            return prove.run(args.again, args.only, args.list)
        if args.command == "bench":
            if args.tiny:
                _device()
            return bench.run(args)
        if args.command == "explain":
            from . import explain

            try:
                return explain.run(_problems(args), args.gpu, tuple(args.backend or ("cuda", "triton")))
            except ValueError as error:  # no such GPU
                args.parser.error(str(error))
        if args.command == "summary":
            from . import summary

            try:
                return summary.run(args.model, args.input, args.gpu, args.output)
            except ValueError as error:  # no such model or GPU
                args.parser.error(str(error))
        if args.command == "learn":
            from . import learn

            return learn.run(args.output)
        if args.command == "profile":
            return profile.run(args, args.parser.error)
        if args.command == "tune":
            from . import tune

            if args.merge:
                return tune.merge(args.merge, args.output)
            if args.what is None:
                args.parser.error("name a network as module:factory, or conv2d")
            try:
                return tune.run(_convolution(args) if args.what == "conv2d" else None, args)
            except ValueError as error:  # no such model
                args.parser.error(str(error))
        if args.int8:
            from . import demo_int8

            return demo_int8.run(
                args.backend, _device(few_kernels=True), args.epochs, args.seed, args.output or "demo_int8.png"
            )
        from . import demo

        return demo.run(args.backend, _device(few_kernels=True), args.epochs, args.seed, args.output or "demo.png")
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
