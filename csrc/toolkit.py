"""Which CUDA toolkit compiles the kernels, and for which GPUs: what setup.py asks before it writes its ninja file."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

DEFAULT_ARCHS = "80;90+PTX"
OLDEST_ARCH = 80  # compute capability 8.0: cp.async, bf16 and tf32
OLDEST_CUDA = (12, 5)  # cudaGetDriverEntryPointByVersion
NEWER = ("csrc/pool/forward.cu",)  # look at __CUDA_ARCH__
CUTLASS = importlib.util.find_spec("cutlass_library")  # the package nvidia-cutlass, for tests/csrc/cutlass
SEPARATORS = re.compile(r"[;,\s]+")


class Toolkit(NamedTuple):
    nvcc: str  # a command of the shell; a launcher may stand before it
    cuda: tuple[int, int]
    home: Path

    @property
    def libraries(self) -> list[str]:
        return [f"-L{self.home / name}" for name in ("lib64", "lib")]


def of_torch() -> int | None:
    """The major of the CUDA that PyTorch was built with; None without one, or in a build that does not see PyTorch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    version = runpy.run_path(str(Path(spec.origin).with_name("version.py"))).get("cuda")
    return int(version.partition(".")[0]) if version else None


def ask(nvcc: str) -> Toolkit | None:
    """What an nvcc is of; None where it does not run."""
    own = next((word for word in shlex.split(nvcc) if "nvcc" in Path(word).name), nvcc)
    try:
        said = [
            subprocess.run([own, *arguments], capture_output=True, text=True, check=True)
            for arguments in (["--version"], ["--dryrun", "none.cu"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    release = re.search(r"release (\d+)\.(\d+)", said[0].stdout)
    top = re.search(r"^#\$ TOP=(.*)$", said[1].stderr, re.MULTILINE)
    if release is None or top is None:
        return None
    return Toolkit(nvcc, (int(release[1]), int(release[2])), Path(top[1]).resolve())


def named() -> list[str]:
    """The nvcc there may be, those that the environment names first."""
    if given := os.environ.get("NVCC"):
        return [given]
    homes = [Path(home) for home in [os.environ.get("CUDA_HOME")] if home]
    usual = [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)]
    on_path = [found for found in [shutil.which("nvcc")] if found]
    return [
        shlex.quote(str(nvcc))
        for nvcc in [*(h / "bin/nvcc" for h in homes), *on_path, *(h / "bin/nvcc" for h in usual)]
    ]


def choose(found: Iterable[Toolkit], torch: int | None) -> Toolkit | None:
    """The first of PyTorch's major, else the first; None where there are none.

    Raises:
        SystemExit: all are too old.
    """
    found = list(found)
    able = [toolkit for toolkit in found if toolkit.cuda >= OLDEST_CUDA]
    if found and not able:
        cuda = ".".join(map(str, found[0].cuda))
        raise SystemExit(
            f"{found[0].nvcc} is of CUDA {cuda}, and the kernels need 12.5 or later: name a newer nvcc (NVCC=...), or "
            "build without (CNNKERNELS_BUILD_CUDA=0)"
        )
    return next((toolkit for toolkit in able if toolkit.cuda[0] == torch), able[0] if able else None)


def find(wanted: bool | None = None) -> Toolkit | None:
    """The toolkit to build with, said in a line; None where there is none or none is wanted.

    Raises:
        SystemExit: one is wanted, or named by NVCC, and there is none.
    """
    if wanted is False:
        return None
    torch = of_torch()
    toolkit = choose((toolkit for toolkit in map(ask, named()) if toolkit), torch)
    if toolkit is None:
        if given := os.environ.get("NVCC"):
            raise SystemExit(f"NVCC={given} does not run, or is no nvcc; CNNKERNELS_BUILD_CUDA=0 builds without it")
        if wanted:
            raise SystemExit("CNNKERNELS_BUILD_CUDA asks for nvcc, and none was found: name it by NVCC")
        return None
    other = f"; PyTorch is of CUDA {torch}" if torch not in (None, toolkit.cuda[0]) else ""
    print(f"compiling for GPUs with CUDA {'.'.join(map(str, toolkit.cuda))} in {toolkit.home}{other}")
    return toolkit


def architectures(text: str) -> dict[int, bool]:
    """What CNNKERNELS_CUDA_ARCHS says, as PyTorch's TORCH_CUDA_ARCH_LIST would: architectures, each with whether PTX is
    kept for what is newer. 90 and 90a are one, as the sources for Hopper need 90a's instructions.

    Raises:
        SystemExit: for what is none.
    """
    found: dict[int, bool] = {}
    for word in SEPARATORS.split(text.strip(" ;,")):
        match = re.fullmatch(r"(\d+)(?:\.(\d))?[af]?(\+PTX)?", word)
        number = 0 if match is None else int(match[1] + (match[2] or ""))
        if match is None or number < 20:
            raise SystemExit(
                f"CNNKERNELS_CUDA_ARCHS: {word!r} is no architecture; compute capabilities are asked for, "
                f"as in {DEFAULT_ARCHS!r} or '8.0;9.0+PTX'"
            )
        if number < OLDEST_ARCH:
            raise SystemExit(f"CNNKERNELS_CUDA_ARCHS: {word!r} is below 8.0, which the kernels need")
        found[number] = found.get(number, False) or match[3] is not None
    return found


def headers(source: Path) -> list[str]:
    """What a source of CUTLASS's kernels is compiled with beside all others."""
    if "cutlass" not in source.parts or CUTLASS is None or CUTLASS.origin is None:
        return []
    package = Path(CUTLASS.origin).parent / "source"
    folders = [package / "include", package / "tools/util/include"]
    return ["--expt-relaxed-constexpr", *(f"-isystem={folder}" for folder in folders)]


def gencode(source: Path, archs: dict[int, bool]) -> list[str]:
    """What to compile a source for: sm_90a where it asks for that, and all else out of the oldest PTX."""
    if "cutlass" in source.parts:
        return ["-gencode=arch=compute_90a,code=[sm_90a]"]
    oldest, ptx = min(archs), any(archs.values())
    if str(source) in NEWER:
        keeps = [arch for arch in archs if archs[arch] or (ptx and arch == oldest)]
        passes = {str(arch): [f"sm_{arch}"] + [f"compute_{arch}"] * (arch in keeps) for arch in archs}
    else:
        hopper = 90 in archs and ("sm90" in str(source) or "tests" in source.parts)
        passes = {"90a": ["sm_90a"]} if hopper else {}
        real = [f"sm_{arch}" for arch in archs if not (hopper and arch == 90)]
        passes[str(oldest)] = real + [f"compute_{oldest}"] * ptx
    return [f"-gencode=arch=compute_{arch},code=[{','.join(codes)}]" for arch, codes in passes.items() if codes]
