"""What this machine found out earlier and is no use now: it is left out, and a warning says so.

A cache is nobody's request, so a file of it that cannot be read is no error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def say(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)


def readable(load: Callable[[Path], Any], path: Path, what_then: str = "ignored") -> Any:
    """What is loaded, or None with a warning; `what_then`: becomes of the file."""
    try:
        return load(path)
    except (ValueError, OSError) as error:
        say(f"{path} is {what_then}: {error}")
        return None
