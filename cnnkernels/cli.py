"""The command `cnnkernels`: info, check, demo and bench."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from . import __version__, bench
from .backends import INTERPRETING

_DESCRIPTION = "Hand-written CUDA and Triton kernels for convolutional networks, as drop-in PyTorch layers."
_WHERE = "Without a GPU the kernels run in the interpreters. Exit code 0: all is well, 1: something is not, 2: usage."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cnnkernels", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"cnnkernels {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        text = summary[0].upper() + summary[1:] + "." + more
        return commands.add_parser(name, help=summary, description=text, epilog=_WHERE)

    command("info", "what is built, for which architectures, and which backend serves a call and why")
    check = command("check", "every kernel of every backend against PyTorch in fp64: a table of errors")
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
    demo.add_argument("--epochs", type=_positive, default=4, help="passes over the training set (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the split, the start and the batches (default: 0)")
    demo.add_argument("--output", default="demo.png", metavar="FILE", help="the picture (default: %(default)s)")
    bench.add_options(
        command(
            "bench",
            "time the kernels beside PyTorch's own, in percent of what the GPU allows",
            " Runs in a checkout. Fails where anybody's numbers are wrong, or --against finds something slower.",
        )
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {value}")
    return value


def _device() -> str:
    """Where the kernels run: on the GPU, else (or where CNNKERNELS_INTERPRET=1 asks for it) in the interpreters.

    The variable is read when the package is imported, and Triton's likewise; so the command starts itself again.
    """
    if INTERPRETING:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    sys.stdout.flush()
    command = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "CNNKERNELS_INTERPRET": "1"})


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "info":
            from . import info

            return info.run()
        if args.command == "check":
            from . import check

            return check.run(args.backend, _device())
        if args.command == "bench":
            if args.tiny:
                _device()
            return bench.run(args)
        from . import demo

        return demo.run(args.backend, _device(), args.epochs, args.seed, args.output)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
