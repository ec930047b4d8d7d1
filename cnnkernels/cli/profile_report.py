"""A profile in words, bars and JSON."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..emulator.profile import COUNTS, SECTOR, Line, Profile
from ..emulator.profile_model import Bounds, bounds

BAR = 32  # characters of the longest
NOT_MEASURED = "by a model of these counts and the GPU's rates, not by a measurement: all units always busy, no latency"


class Measured(NamedTuple):
    """A call's launches, the tensors it was given and made, the operations it was asked for (0: unknown) and how many
    outputs it has (0: unknown)."""

    title: str
    launches: list[Profile]
    tensors: Mapping[str, Tensor]
    operations: float
    outputs: int

    @property
    def least_bytes(self) -> int:
        """Each tensor once."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def multiply_adds(self) -> float:
        """Of tensor cores."""
        return sum(launch.of_launch("multiply_adds") for launch in self.launches)

    def name(self, address: int) -> str:
        """Of a storage."""
        return next(
            (name for name, tensor in self.tensors.items() if tensor.untyped_storage().data_ptr() == address),
            "workspace",
        )


@cache
def readable(kernel: str) -> str:
    """Without namespaces and arguments, where c++filt is at hand."""
    if shutil.which("c++filt") is None:
        return kernel
    plain = subprocess.run(["c++filt", kernel], capture_output=True, text=True, check=True).stdout.strip()
    plain = plain.removeprefix("void ").replace("(anonymous namespace)::", "").replace("cnnkernels::", "")
    return re.sub(r"\([\w: ]+\)(?=-?\d)", "", plain).split("(")[0]


def number(value: float) -> str:
    """12,345, 1.23 M, 45.6 G."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f}"


def _bars(values: Mapping[str, float], unit: str = "", share: bool = True) -> Iterator[str]:
    """A line each: name, number, share of all, bar."""
    whole, longest = sum(values.values()) or 1, max(values.values(), default=0) or 1
    for name, value in values.items():
        text = f"{value:.1f}" if unit else number(value)
        percent = f"{value / whole:>6.0%}" if share else ""
        yield f"    {name:<26}{text:>10}{unit}{percent}  {'█' * round(BAR * value / longest)}".rstrip()


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.1f}" if whole else "none"


def _shared(p: Profile) -> Iterator[str]:
    conflicts = p.sum("wavefronts") - p.sum("least_wavefronts")
    if p.sum("shared_requests"):
        yield (
            f"  shared memory, by lanes: {number(p.of_launch('shared_requests'))} requests, "
            f"{number(p.of_launch('wavefronts'))} wavefronts, "
            f"{number(conflicts * p.scale)} of them ({conflicts / p.sum('wavefronts'):.0%}) bank conflicts"
        )
    if p.sum("streamed_wavefronts"):
        yield (
            f"  shared memory, by copies in bulk and tensor cores: {number(p.of_launch('streamed_wavefronts'))} "
            "wavefronts of 128 bytes"
        )


def _global(p: Profile) -> Iterator[str]:
    if p.sum("global_requests"):
        moved = p.sum("sectors") * SECTOR
        yield (
            f"  global memory, by lanes: {number(p.of_launch('global_requests'))} requests, "
            f"{_ratio(p.sum('sectors'), p.sum('global_requests'))} sectors a request, "
            f"{p.sum('wanted_bytes') / moved:.0%} of their bytes wanted"
        )
    if p.sum("bulk_read") or p.sum("bulk_written"):
        yield (
            f"  TMA and copies in bulk: {number(p.of_launch('bulk_read'))} bytes read, "
            f"{number(p.of_launch('bulk_written'))} written, {number(p.of_launch('bulk_filled'))} filled in"
        )
    yield f"  of L2: {number(p.of_launch('l2_sectors') * SECTOR)} bytes, where L1 keeps what a block has read"


def _unique(p: Profile, measured: Measured) -> Iterator[str]:
    parts = []
    for touched in p.touched:
        read, written = p.unique(touched)
        words = [f"{number(size)} {what}" for size, what in ((read, "read"), (written, "written")) if size]
        if words:
            parts.append(f"{measured.name(touched.address)} {' and '.join(words)} of {number(touched.bytes)}")
    yield f"  each byte once: {'; '.join(parts) or 'nothing'}"


def _tensor_cores(p: Profile) -> Iterator[str]:
    for opcode, multiply_adds in p.products().items():
        yield f"  tensor cores: {number(multiply_adds * p.scale)} multiply-adds by {opcode}"


def _source(line: Line) -> str:
    """The line's text, where the file is at hand."""
    try:
        return Path(line.file).read_text().splitlines()[line.number - 1].strip()
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


def _lines(p: Profile, count: int) -> Iterator[str]:
    yield f"  the {count} source lines with the most issue slots (of the PTX where no source is named)"
    yield f"    {'line':<28}{'slots':>7}{'warp instr.':>12}{'conflicts':>10}{'sectors/req':>12}  text"
    slots = p.sum("issue_slots") or 1
    for line, c in list(p.lines().items())[:count]:
        conflicts = (c["wavefronts"] - c["least_wavefronts"]) * p.scale
        where = f"{Path(line.file).name or 'ptx'}:{line.number}"
        sectors = _ratio(c["sectors"], c["global_requests"]) if c["global_requests"] else ""
        yield (
            f"    {where:<28}{c['issue_slots'] / slots:>7.1%}{number(c['warps'] * p.scale):>12}{number(conflicts):>10}"
            f"{sectors:>12}  {_source(line)[:70]}"
        ).rstrip()


def _launch(p: Profile, measured: Measured, gpu: Any, lines: int | None) -> Iterator[str]:
    grid, block = ("x".join(str(n) for n in extent if n > 1) or "1" for extent in (p.grid, p.block))
    blocks = p.blocks // p.clusters
    of_sample = "all blocks ran"
    if p.sampled < p.clusters:
        of_sample = (
            f"{p.sampled * blocks} of {p.blocks} blocks ran, the first, the last and some between: all counts are "
            f"scaled by {p.scale:.3g}"
        )
    yield readable(p.kernel)
    registers = f", {p.registers} registers" if p.registers else ""
    clusters = f" in clusters of {blocks}" if blocks > 1 else ""
    yield f"  {grid} blocks{clusters} of {block} threads{registers}, {p.shared_bytes} bytes of dynamic shared memory"
    yield f"  {of_sample}"
    warps = p.of_launch("warps")
    an_output = f", {32 * warps / measured.outputs:.1f} of a thread for an output" if measured.outputs else ""
    yield f"  warp instructions (PTX's): {number(warps)}{an_output}"
    yield from _bars({kind: count * p.scale for kind, count in p.kinds().items()})
    yield from _tensor_cores(p)
    yield from _shared(p)
    yield from _global(p)
    yield from _unique(p, measured)
    waits = ", ".join(f"{number(count * p.scale)} {name}" for name, count in p.waits().items())
    yield f"  waits and fences of warps: {waits or 'none'}"
    if lines:
        yield from _lines(p, lines)
    found = bounds(p, gpu)
    yield f"  bound: {found.name}, at least {1e6 * found.with_launch:.1f} us with 3 us to launch,"
    yield f"  {NOT_MEASURED}"
    yield from _bars({name: 1e6 * seconds for name, seconds in found._asdict().items()}, " us", share=False)


def report(measured: Measured, gpu: Any, lines: int | None = None) -> Iterator[str]:
    """The whole, line by line."""
    major, minor = divmod(gpu.architecture, 10)
    yield (
        f"{measured.title}, in the emulator as on {gpu.name} (compute capability {major}.{minor}, "
        f"{gpu.processors} SMs); no GPU took part"
    )
    if not measured.launches:
        yield "  no kernel was launched in the emulator"
        return
    for launch in measured.launches:
        yield from _launch(launch, measured, gpu, lines)
    yield from _summary(measured, gpu)


def _summary(measured: Measured, gpu: Any) -> Iterator[str]:
    """What holds of all launches together."""
    yield f"in all, {len(measured.launches)} launch{'es' * (len(measured.launches) > 1)}"
    if measured.operations and measured.multiply_adds:
        useful = measured.operations / (2 * measured.multiply_adds)
        yield f"  {number(measured.operations)} operations asked for, {useful:.0%} of what the tensor cores did"
    unique = sum(sum(p.unique(touched)) for p in measured.launches for touched in p.touched)
    yield f"  {number(unique)} bytes, each once a launch; {number(measured.least_bytes)} bytes is each tensor once"
    seconds = sum(bounds(p, gpu).with_launch for p in measured.launches)
    yield f"  at least {1e6 * seconds:.1f} us, a model's time"


def _counts(rows: Iterable[Mapping[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        found.update({count: row[count] for count in COUNTS})
    return found


def as_json(measured: Measured, gpu: Any) -> dict[str, Any]:
    """All that was counted. Counts are the sample's; `scale` makes the launch's of them."""

    def launch(p: Profile) -> dict[str, Any]:
        found: Bounds = bounds(p, gpu)
        return {
            "kernel": readable(p.kernel),
            "grid": p.grid,
            "block": p.block,
            "cluster": p.cluster,
            "shared_bytes": p.shared_bytes,
            "registers": p.registers,
            "clusters": p.clusters,
            "sampled": p.sampled,
            "scale": p.scale,
            "counts": dict(_counts(p.rows)),
            "warp_instructions": dict(p.kinds()),
            "waits": dict(p.waits()),
            "multiply_adds": dict(p.products()),
            "unique": [
                {"tensor": measured.name(t.address), "bytes": t.bytes, "read": t.read, "written": t.written}
                for t in p.touched
            ],
            "lines": [
                {"file": line.file, "line": line.number, **counts} for line, counts in p.lines().items()
            ],
            "model": {**found._asdict(), "bound": found.name, "seconds": found.with_launch, "measured": False},
        }  # fmt: skip

    return {
        "title": measured.title,
        "gpu": gpu.name,
        "operations": measured.operations,
        "outputs": measured.outputs,
        "least_bytes": measured.least_bytes,
        "launches": [launch(p) for p in measured.launches],
    }
