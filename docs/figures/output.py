"""What the scripts of this folder share. Each prints its tables and changes nothing; asked to, it writes.

--write        renews what is committed: the script's figure, or its tables in the page that holds them
--output FILE  writes the figure, or the page, there instead

A figure has the same bytes on every run, for one version of matplotlib: constraints.txt's is the committed one's.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def svg(name: str, draw: Callable[[], Any]) -> str:
    """A figure as text, whatever the user's own matplotlibrc says."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcdefaults()
    matplotlib.rcParams.update({"svg.hashsalt": name, "svg.fonttype": "none"})
    figure, text = draw(), io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def filled(page: str, begin: str, end: str, table: str) -> str:
    """A page with a table in the place of what stands between two marks."""
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no {begin.strip()} ... {end.strip()}")
    return before + begin + table + end + after


def run(description: str | None, committed: Path, tables: Callable[[], str], made: Callable[[], str]) -> None:
    """The script's command line: `tables` is what it prints, `made` the text of the committed file."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group()
    name = committed.relative_to(ROOT)
    where.add_argument("--write", dest="output", action="store_const", const=committed, help=f"renew {name}")
    where.add_argument("--output", type=Path, metavar="FILE", help="write it there instead")
    output = parser.parse_args().output
    print(tables(), end="")
    if output is None:
        print(f"\nNothing was written: --write renews {name}")
    else:
        output.write_text(made())
        print(f"\nwrote {output}")
