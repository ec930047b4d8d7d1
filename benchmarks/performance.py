"""docs/performance.md: what benchmarks/results holds, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnkernels.certified import certificates

from .families import FAMILIES
from .machine import RESULTS, ROOT
from .network_bench import table_of
from .peers.table import read_table, table
from .results import Results
from .summary import faults, means, rows, worst_lines

DOCUMENT = ROOT / "docs" / "performance.md"
HEAD = """# Performance

Made by `cnnkernels bench --report` from [benchmarks/results](../benchmarks/results); not edited by hand.

How it is measured: each provider's numbers are first compared with fp64, and a wrong one is not timed. A sample is one
replay of a CUDA graph of launches over inputs and outputs that fill the L2 cache three times; providers take turns;
what counts is the median. The floor of a case is the larger of its operations over the rate of PyTorch's matrix product
in that type, and its bytes (each tensor once) over the rate of a copy, both measured on the same GPU in the same run.
"""
HOW = """
    make bench                            # a few telling cases of every operator, in 4 minutes
    cnnkernels bench                      # everything; may be stopped, and goes on when it is called again
    cnnkernels bench --op conv2d --network resnet50 --dtype bf16
    cnnkernels bench --against FILE       # names what became slower, and fails
    cnnkernels bench --report             # makes this page
"""
TIMES = """
Times as fast as others, geometric means; above 1 ours are faster. `torch` is PyTorch as a user gets it, with cuDNN and
`benchmark=True`; `peers` is the quickest of all that PyTorch offers:
"""
NOTHING = """
## Nothing has been measured on a GPU yet

No kernel of this project has run on a GPU, so there is no time to show, and none is claimed. To measure, on a machine
with a GPU:
"""
CERTIFIED = """
## Certified on

GPUs on which every kernel ran on small exact problems ([proof](proof.md)), as `make gpu` left it in
`benchmarks/results/certificates`.
"""
CODE = """
## Machine code beside peers

Instructions that a warp executes in the main loop for 1024 multiply-adds, from the machine code alone (`make peers`;
ours as `make audit` left them). Such a table shows what a loop spends beside its products. It cannot show a time:
tensor cores, shared memory, L2 and DRAM bound most of these loops before their instructions do; what stands before and
after the loop, how many blocks an SM holds and how tiles fill a GPU are not in it; and cuDNN's code cannot be had this
way.
"""
NOWHERE = "None yet: no GPU has proved the kernels."


def result_files(folder: Path = RESULTS) -> list[Path]:
    return sorted(path for path in folder.glob("*.jsonl") if not path.name.startswith("tiny"))


def _block(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])


def _session(about: dict[str, Any]) -> str:
    clocks = about.get("clocks") or {}
    words = [f"driver {clocks.get('driver_version')}", f"{clocks.get('clocks.sm')} MHz"] if clocks else []
    words += [f"{name} {about[name]}" for name in ("torch", "cuda", "cudnn", "triton") if about.get(name)]
    words += [f"commit {about.get('commit')}", str(about.get("date"))]
    return ", ".join(words)


def _section(results: Results) -> list[str]:
    records = list(results.records.values())
    found = rows(records)
    gpu = results.sessions[-1]["gpu"]
    parts = [f"\n## {gpu}: {len(found)} cases ({results.path.name})\n"]
    parts += [f"- {_session(about)}" for about in results.sessions]
    parts += [TIMES, _block(means(found)), "", _block(worst_lines(found))]
    wrong = [f"{record.provider}: {record.key}: {record.status}: {record.reason}" for record in faults(records)]
    parts += ["\nNot as it should be:\n", _block(wrong)] if wrong else ["\nEverybody's numbers were right."]
    networks = [extra for extra in results.extras if extra["kind"] == "network"]
    if networks:
        parts += ["\nWhole networks:\n", _block(table_of(networks))]
    measured = {row.any.family for row in found if row.ours is not None}
    missing = [family for family in FAMILIES if family not in measured]
    if missing:
        parts.append(f"\nNot measured yet: {', '.join(missing)}.")
    return parts


def _certified(folder: Path) -> list[str]:
    found = [certificates.read(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        return [CERTIFIED, NOWHERE]
    lines = ["| GPU | driver | torch | triton | on | families certified | not certified |", "|" + " --- |" * 7]
    for each in found:
        gpu, counts = each.identity, f"{len(each.families) - len(each.failed)} of {len(each.families)}"
        words = gpu.gpu, gpu.driver, gpu.torch, gpu.triton, each.date[:10], counts, ", ".join(each.failed) or "-"
        lines.append(f"| {' | '.join(words)} |")
    return [CERTIFIED, *lines]


def _beside_peers() -> list[str]:
    found = read_table()
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return [CODE, *table(found["kernels"]), f"\n{versions}."]


def page(files: Sequence[Path], proved: Path = RESULTS / "certificates") -> str:
    """The document's text. `proved`: the folder of certificates."""
    results = [found for path in files if (found := Results(path)).sessions]
    parts = [HEAD.rstrip(), *_certified(proved)]
    for one in results:
        parts += _section(one)
    parts += _beside_peers()
    parts += ["\n## To measure\n" if results else NOTHING, HOW.lstrip("\n")]
    return "\n".join(parts)
