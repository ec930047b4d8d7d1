"""Takes every synchronising instruction out of the kernels' PTX, one at a time, and says which nobody notices.

    python tests/removed_synchronisation.py [sources, e.g. int8/all.cu] [--new | --every-kernel]

Goes through each place of each source, in a few of its kernels, and writes what it finds to
tests/helpers/every_kernel/removed.json, which docs/emulator.md tells; a place that goes unnoticed needs a reason there,
as `why`. --new: the places that the table has not, and those that are gone leave it. --every-kernel: each place in each
kernel, which writes nothing.
"""

from __future__ import annotations

import argparse
import sys

from helpers.every_kernel import sources
from helpers.every_kernel.removed import KERNELS, Found, Place, Row, go_through, most, read, sites, write


def update(asked: list[str], new: bool) -> dict[Place, Row]:
    """The table, with what is found of the sources that are asked about."""
    rows, all_sources = read(), sources(others=True)
    for row in rows.values():
        for gone in set(row.found) - set(all_sources):
            del row.found[gone]
    for source in asked:
        has = sites(source)
        known = [place for place, row in rows.items() if source in row.found]
        for place in known:
            if place not in has:
                del rows[place].found[source]
        for place, found in go_through(source, [p for p in has if not (new and p in known)]):
            rows.setdefault(place, Row(place, {})).found[source] = best = most(found)
            if best.missed < best.copies:
                print(f"{source}: {tuple(best)} {place}", flush=True)
        print(f"{source}: {len(has)} places", flush=True)
    return {place: row for place, row in rows.items() if row.found}


def everywhere(asked: list[str]) -> None:
    for source in asked:
        found = [found for _, each in go_through(source, list(sites(source)), kernels=0) for found in each]
        total = Found(*map(sum, zip(*found, strict=True))) if found else Found(0, 0, 0)
        print(f"{source}: of {total.copies} {total.missed} noticed, {total.executed} executed", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--new", action="store_true", help="only the places that the table has not")
    how.add_argument(
        "--every-kernel", action="store_true", help=f"all kernels of a place, not {KERNELS}; writes nothing"
    )
    options = parser.parse_args()
    asked = options.sources or sources(others=True)
    if options.every_kernel:
        everywhere(asked)
        return 0
    rows = update(asked, options.new)
    write(list(rows.values()))
    silent = [row for row in rows.values() if not row.noticed and not row.why]
    for row in silent:
        print(f"no mode notices, and the table says no reason: {row.place}")
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
