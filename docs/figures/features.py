"""The tables of docs/features.md: which function takes what, and what runs it where. `python docs/figures/features.py`
prints them.

They are read off the code: the list of operators, what sources csrc has of each, and what backends say for a GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import output

from cnnkernels import backends
from cnnkernels.dtypes import ELEMENTS
from cnnkernels.operators import OPERATORS, Operator

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/features.md"
sys.path.append(str(ROOT / "csrc"))
import toolkit  # noqa: E402

TYPES = ("fp64", "fp32", "tf32", "fp16", "bf16", "int8", "uint8")
GPUS = {"7.5": "T4", "8.0": "A100", "8.6": "RTX 3090, A10", "8.9": "RTX 4090, L40", "9.0": "H100, H200",
        "10.0": "B200", "12.0": "RTX 5090"}  # fmt: skip


def has(word: str, mark: str) -> bool:
    """Whether a source of an operator is named by the mark, or speaks of it."""
    sources = [path for path in (ROOT / "csrc" / word).rglob("*") if path.suffix in (".h", ".cuh", ".cu", ".cpp")]
    return any(mark in str(path.relative_to(ROOT)) or mark in path.read_text() for path in sources)


def takes(operator: Operator, name: str) -> str:
    if ELEMENTS[name].dtype not in operator.dtypes:
        return "-"
    return "yes" if name != "tf32" or has(operator.word, "tf32") else "-"


def functions() -> str:
    columns = ("functions", "spatial axes", *TYPES, "gradients", "CUDA", "on Hopper", "Triton")
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for operator in OPERATORS.values():
        cells = [
            ", ".join(map(str, operator.ranks)) or "-",
            *(takes(operator, name) for name in TYPES),
            "-" if operator.int8 else "of any order",
            "yes" if "cuda" in operator.backends else "-",
            "TMA, wgmma" if has(operator.word, "wgmma") else "the same",
            "yes" if "triton" in operator.backends else "-",
        ]
        names = ", ".join(f"`{function}`" for function in operator.functions)
        lines.append(f"| {names} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def code(capability: int, source: str) -> str:
    """What a build with the default architectures has for a GPU: machine code of its own major version, else PTX."""
    codes = [word for flag in toolkit.gencode(Path(source), toolkit.architectures(toolkit.DEFAULT_ARCHS))
             for word in flag.partition("code=[")[2].rstrip("]").split(",")]  # fmt: skip
    numbers = {name: int(name.partition("_")[2].rstrip("a")) for name in codes}
    exact = [name for name in codes if name.startswith("sm_") and numbers[name] // 10 == capability // 10]
    serving = [name for name in exact if numbers[name] <= capability and not name.endswith("a")]
    serving += [name for name in exact if numbers[name] == capability and name.endswith("a")]
    ptx = [name for name in codes if name.startswith("compute_") and numbers[name] <= capability]
    return max(serving, key=numbers.__getitem__, default="") or f"{max(ptx, key=numbers.__getitem__)}, by the driver"


def gpus() -> str:
    lines = ["| compute capability | for example | CUDA | Hopper's own | Triton |", "|" + " --- |" * 5]
    for capability, names in GPUS.items():
        major, minor = map(int, capability.split("."))
        if (major, minor) < backends.OLDEST_CAPABILITY:
            cells = ["refused", "-", "refused"]
        else:
            number = 10 * major + minor
            own = code(number, "csrc/conv/sm90/bfloat16.cu")
            cells = [code(number, "csrc/conv/implicit_gemm/bfloat16.cu"), own if own == "sm_90a" else "-",
                     "compiled at the first call"]  # fmt: skip
        lines.append(f"| {capability} | {names} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tables() -> dict[str, str]:
    return {"functions": functions(), "GPUs": gpus()}


def made() -> str:
    page = PAGE.read_text()
    for name, text in tables().items():
        page = output.filled(page, f"<!-- {name}: docs/figures/features.py -->\n", f"<!-- end of {name} -->", text)
    return page


if __name__ == "__main__":
    output.run(__doc__, PAGE, lambda: "\n".join(tables().values()), made)
