"""Takes every synchronising instruction out of the kernels' PTX, one at a time, and says which nobody notices.

    python tests/removed_synchronisation.py [sources, e.g. int8/product.cu] [--kernels N] [--instructions N]

--kernels: of each source so many, evenly spread; --instructions: of each kernel. All by default, which takes long.
"""

from __future__ import annotations

import argparse
import collections
import subprocess

from helpers.every_kernel import sources
from helpers.every_kernel.removed import Removed, removed


def spelled(kernels: list[str]) -> list[str]:
    return subprocess.run(
        ["c++filt"], input="\n".join(kernels), capture_output=True, text=True, check=True
    ).stdout.splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--kernels", type=int, default=0)
    parser.add_argument("--instructions", type=int, default=0)
    asked = parser.parse_args()
    print("source, kernels: instructions, noticed, not executed in the trial, else not noticed")
    for source in asked.sources or sources(others=True):
        found = list(removed(source, asked.kernels, asked.instructions))
        silent = [each for each in found if not each.noticed]
        idle = [each for each in silent if not each.executed]
        kernels = len({each.kernel for each in found})
        print(
            f"{source}, {kernels}: {len(found)}, {len(found) - len(silent)}, {len(idle)}, {len(silent) - len(idle)}",
            flush=True,
        )
        tell(silent)


def tell(silent: list[Removed]) -> None:
    names = spelled([each.kernel for each in silent]) if silent else []
    by_place = collections.Counter(
        (each.instruction, each.place, each.executed, name.partition("(")[0][:100])
        for each, name in zip(silent, names, strict=True)
    )
    for (instruction, place, executed, name), count in by_place.items():
        print(f"    {count} {instruction} at {place} of {name}{'' if executed else ', not executed'}", flush=True)


if __name__ == "__main__":
    main()
