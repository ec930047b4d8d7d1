"""`cnnkernels bench`: its options, and the way to the benchmarks, which live in the checkout and not in the package."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from ..operators import MEASURED

PROVIDERS = ("cuda", "triton", "torch", "aten", "compile", "int_mm", "compiled_int_mm", "bf16")
ABSENT = (
    "cnnkernels bench: the benchmarks are part of the source checkout, not of the installed package; "
    "run it in the checkout's folder"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    what = parser.add_argument_group("what to measure")
    what.add_argument("--quick", action="store_true", help="a few telling cases of every operator, within 4 minutes")
    what.add_argument("--op", action="append", choices=MEASURED, help="only this operator (this and more: repeatable)")
    what.add_argument("--network", action="append", metavar="NAME", help="only the layers of this network (--list)")
    what.add_argument("--direction", action="append", metavar="NAME", help="forward, backward_input, ..., training")
    what.add_argument("--dtype", action="append", choices=("bf16", "fp16", "tf32", "fp32", "int8"))
    what.add_argument("--batch", action="append", type=int, metavar="N", help="(default: 32, 256 and 1)")
    what.add_argument("--layout", action="append", choices=("nhwc", "nchw"))
    what.add_argument("--provider", action="append", choices=PROVIDERS, help="only this one (default: all that can)")
    what.add_argument("--whole", action="store_true", help="whole networks, trained and run, instead of their layers")
    what.add_argument(
        "--host", action="store_true", help="what needs no GPU: host time a call, import, interpreters, build"
    )
    what.add_argument("--clean", action="store_true", help="with --host: also a clean build and all tests (minutes)")
    what.add_argument("--list", action="store_true", help="name the cases, measure nothing")
    what.add_argument("--tiny", action="store_true", help="every kind of case in small: whether all run, on a CPU too")
    how = parser.add_argument_group("how")
    how.add_argument("--seconds", type=float, metavar="S", help="begin no case after this time; a later run goes on")
    how.add_argument("--output", type=Path, metavar="FILE", help="result file to append to or to go on with")
    how.add_argument("--against", type=Path, metavar="FILE", help="name what is slower than in an earlier result file")
    how.add_argument(
        "--report",
        action="store_true",
        help="measure nothing: tables and pictures of --output, or of all results with docs/performance.md",
    )
    how.add_argument("--tolerance", type=float, default=0.05, help="what counts as slower (default: %(default)s)")


def benchmarks() -> ModuleType | None:
    """The checkout's benchmarks, None where there is no checkout: beside the package, or in the current folder."""
    for root in (Path(__file__).resolve().parent.parent.parent, Path.cwd()):
        if (root / "benchmarks" / "run.py").is_file() and (root / "csrc").is_dir():
            # cnnkernels itself is imported already: this cannot change which one is used
            sys.path.insert(0, str(root))
            return importlib.import_module("benchmarks.run")
    return None


def _can_be_written(path: Path) -> bool:
    """Folders above it that are not there will be made."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    return not path.is_dir() and there.is_dir() and os.access(path if path.exists() else there, os.W_OK)


def run(options: argparse.Namespace) -> int:
    """Runs the benchmarks; 2 where they are not here or cannot do what is asked."""
    module = benchmarks()
    if module is None:
        print(ABSENT, file=sys.stderr)
        return 2
    if options.output is not None and not options.report and not _can_be_written(options.output):
        print(f"cnnkernels bench: --output: {options.output} cannot be written", file=sys.stderr)
        return 2
    if options.against is not None and not options.against.is_file():
        print(f"cnnkernels bench: --against: there is no file {options.against}", file=sys.stderr)
        return 2
    return module.run(options)
