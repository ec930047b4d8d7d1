"""What 0.1.0 called things is called so still: functions, layers, their arguments, in order and with their defaults.

public_names.txt was written from 0.1.0. A name may be added to the library, and an argument with a default behind the
others; none of these may change.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import cnnkernels
from cnnkernels.cli import main as cli

NAMES = Path(__file__).with_name("public_names.txt").read_text().splitlines()
OF_TORCH = {"extra_repr", "get_extra_state", "set_extra_state"}  # what every module may have


def arguments(called: Any) -> str:
    """A signature without its annotations."""
    signature = inspect.signature(called)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def described(module: Any) -> list[str]:
    """A line for each public name of a module, and for each of a class's that is not torch.nn's."""
    lines = []
    for name in module.__all__:
        thing = getattr(module, name)
        name = f"{module.__name__}.{name}"
        if not inspect.isclass(thing):
            lines.append(name + (arguments(thing) if callable(thing) else ""))
            continue
        parent = next((base for base in thing.__mro__ if "__init__" in vars(base) or "__new__" in vars(base)), thing)
        of_torch = parent.__module__.startswith("torch.")
        lines.append(f"{name} as torch.nn.{parent.__name__}" if of_torch else name + arguments(thing))
        ours = [base for base in thing.__mro__ if base.__module__.startswith("cnnkernels.")]
        for member in sorted({member for base in ours for member in vars(base)} - OF_TORCH):
            if not member.startswith("_"):
                value = getattr(thing, member)
                lines.append(f"{name}.{member}" + (arguments(value) if inspect.isroutine(value) else ""))
    return lines


def commands() -> list[str]:
    """The command line's subcommands."""
    (choices,) = [action.choices for action in cli._parser()._actions if action.dest == "command"]
    return [f"$ cnnkernels {name}" for name in choices or ()]


def extends(new: str, line: str) -> bool:
    """Whether arguments with defaults were added at a signature's end."""
    if not line.endswith(")") or not new.startswith(f"{line[:-1]}, "):
        return False
    return all("=" in argument for argument in new[len(line) + 1 : -1].split(", "))


def test_the_names_of_0_1_0() -> None:
    modules = cnnkernels, cnnkernels.functional, cnnkernels.nn
    now = {line for module in modules for line in described(module)} | set(commands())
    assert [line for line in NAMES if line not in now and not any(extends(new, line) for new in now)] == []
    assert len(NAMES) > 60
