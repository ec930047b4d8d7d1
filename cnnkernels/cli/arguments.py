"""Types of arguments that several subcommands take; argparse prints what they refuse."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable


def ints(*lengths: int) -> Callable[[str], tuple[int, ...]]:
    """Reads so many numbers with commas between them."""

    def numbers(text: str) -> tuple[int, ...]:
        found = tuple(int(part) for part in text.split(","))
        if len(found) not in lengths:
            raise argparse.ArgumentTypeError(f"must be {' or '.join(map(str, lengths))} numbers, but got {text}")
        return found

    return numbers


def size(text: str) -> tuple[int, ...]:
    """A tensor's, of any number of dimensions."""
    return tuple(positive(part) for part in text.split(","))


def padding(text: str) -> str | tuple[int, ...]:
    """Numbers, or one of the words that torch.nn.functional.conv2d takes."""
    return text if text in ("same", "valid") else ints(1, 2)(text)


def positive(text: str) -> int:
    if not text.lstrip("-").isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but got {text}")
    return int(text)


def there(text: str) -> str:
    """A file to read."""
    if not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return text


def writable(text: str) -> str:
    """A file to write, asked about before hours go into what is written."""
    folder = os.path.dirname(text) or "."
    if os.path.isdir(text) or not os.access(folder, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return text
