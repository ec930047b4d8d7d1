"""Which sources are compiled as one.

Most of what a small source takes to compile are its headers, over again for each. So the small ones of a room are
included by one that setup.py writes, which takes half the time. Alone are those that take long, so that cores have
something to share, and those that define a name that another of their room defines too.
"""

from __future__ import annotations

from pathlib import Path

ALL_BINDINGS = Path("csrc") / "all_bindings.cpp"  # of all operators
BINDINGS = ("all_bindings.cpp", "bindings.cpp", "bind_models.cpp", "python.cpp")  # most of what they take is pybind11
ALONE = (
    # five seconds of nvcc and more
    "csrc/conv/implicit_gemm/*.cu",
    "csrc/conv/sm90/*float16.cu",
    "csrc/conv/sm90/tf32.cu",
    "csrc/depthwise_conv/*.cu",
    "csrc/depthwise_separable_conv/fused_*float16.cu",
    "csrc/pool/backward.cu",
    "csrc/pool/forward.cu",  # for other architectures, too (csrc/toolkit.py)
    # without kernels, so that tests link it with a runtime of theirs
    "csrc/common/this_gpu.cu",
    # without dynamic shared memory, for whose alignment ptxas would pad theirs
    "csrc/depthwise_separable_conv/intermediate.cu",
    # the same names in others
    "csrc/emulator/arithmetic/float.cpp",
    "csrc/emulator/arithmetic/integer.cpp",
    "csrc/emulator/asynchronous/cp_async.cpp",
    "csrc/emulator/asynchronous/mbarrier_instructions.cpp",
    "csrc/emulator/asynchronous/tensor_copy_instructions.cpp",
    "csrc/ptx/interpreter/tma.cpp",
    "csrc/ptx/interpreter/wgmma.cpp",
)


def room(source: Path) -> Path:
    """Where the sources lie that may be compiled with this one."""
    whole_operator = source.parts[1] not in ("emulator", "ptx") and "sm90" not in source.parts
    return Path(*source.parts[:2]) if whole_operator else source.parent


def compiled_as(source: Path) -> Path:
    """The source that includes this one; this one itself where it is alone."""
    if source.name == "bindings.cpp":
        return ALL_BINDINGS
    if any(source.match(pattern) for pattern in ALONE):
        return source
    if source.name in BINDINGS:
        return (source.parent if "runtime" in source.parts else Path(*source.parts[:2])) / "all_bindings.cpp"
    name = "all_sm90" if "sm90" in source.stem else "all"
    return room(source) / f"{name}{source.suffix}"


def group(sources: list[Path]) -> dict[Path, list[Path]]:
    """What is compiled, and what each includes: itself alone, or several that are compiled as one."""
    groups: dict[Path, list[Path]] = {}
    for source in sources:
        groups.setdefault(compiled_as(source), []).append(source)
    return {parts[0] if len(parts) == 1 else made: parts for made, parts in groups.items()}
