"""Builds the two native modules from one set of sources, with ninja.

cnnkernels._interpreter   csrc/**/*.cu compiled by the host compiler against csrc/interpreter: built always
cnnkernels._cuda          the same sources compiled by nvcc: built wherever nvcc is found, no GPU needed

Environment: CXX, NVCC, CNNKERNELS_CUDA_ARCHS ("80;90a;90+PTX"), CNNKERNELS_BUILD_CUDA (0 leaves _cuda out),
CNNKERNELS_BUILD_TESTS (1 adds the test kernels of tests/csrc as _interpreter_tests and _cuda_tests),
CNNKERNELS_SANITIZE (thread or address: _interpreter into build/<sanitizer>), CNNKERNELS_DEBUG (1: for gdb), MAX_JOBS.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import ninja
import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SANITIZE = os.environ.get("CNNKERNELS_SANITIZE", "")
CUDA_HOME = os.environ.get("CUDA_HOME", "/usr/local/cuda")
TESTS = os.environ.get("CNNKERNELS_BUILD_TESTS") == "1"
ARCHS = os.environ.get("CNNKERNELS_CUDA_ARCHS", "80;90a;90+PTX").split(";")
NEWER = ("csrc/max_pool2d/forward.cu",)  # look at __CUDA_ARCH__


def find_nvcc() -> str | None:
    if os.environ.get("CNNKERNELS_BUILD_CUDA") == "0" or SANITIZE:
        return None
    return os.environ.get("NVCC") or shutil.which("nvcc") or shutil.which(f"{CUDA_HOME}/bin/nvcc")


def host_flags() -> list[str]:
    level = ["-Og", "-g"] if os.environ.get("CNNKERNELS_DEBUG") == "1" else ["-O2", "-g1"]
    flags = ["-std=c++20", *level, "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
    if sys.platform == "linux":
        flags += ["-fno-gnu-unique"]  # both modules define the same inline statics; they must not be merged
        cpu = Path("/proc/cpuinfo").read_text()
        flags += ["-march=x86-64-v3"] * all(f" {feature}" in cpu for feature in ("avx2", "fma", "f16c", "bmi2"))
    return flags


def gencode(source: Path) -> list[str]:
    """What to compile a source for: every architecture by itself where it asks for one, else all out of one PTX."""
    real, virtual = [a for a in ARCHS if "+" not in a], [a.removesuffix("+PTX") for a in ARCHS if "+" in a]
    plain = list(dict.fromkeys(a.rstrip("af") for a in real))
    oldest = min(plain + virtual, key=int)
    if "tests" in source.parts or str(source) in NEWER:
        passes = [(a, f"sm_{a}") for a in real] + [(a, f"compute_{a}") for a in virtual]
    else:
        special = [a for a in real if a not in plain] if source.name.startswith("hopper") else []
        covered = {a.rstrip("af") for a in special}
        codes = [f"sm_{a}" for a in plain if a not in covered] + [f"compute_{oldest}"] * bool(virtual)
        passes = [(a, f"sm_{a}") for a in special] + [(oldest, ",".join(codes))] * bool(codes)
    return [f"-gencode=arch=compute_{arch},code=[{code}]" for arch, code in passes]


def built_for(cuda: bool) -> str:
    """What `cnnkernels info` says a module was compiled for."""
    flags = gencode(Path("hopper")) if cuda else [flag for flag in host_flags() if "-march" in flag]
    return ", ".join(flag.rpartition("=")[2].strip("[]").replace(",", ", ") for flag in flags) or os.uname().machine


def ninja_file(build: Path, out: Path, nvcc: str | None) -> str:
    """One rule a compiler, one edge a source, one link a module. Operators' bindings are compiled once for both."""
    cxx = os.environ.get("CXX", "c++")
    includes = shlex.join([f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}", "-Icsrc"])
    interpreter = ["-DCNN_INTERPRETER=1", "-Wno-unknown-pragmas", "-fstack-clash-protection"]
    if SANITIZE:
        interpreter += [f"-DCNN_{SANITIZE[0].upper()}SAN=1", "-fno-omit-frame-pointer"]
    elif "g++" in cxx or cxx == "c++":
        interpreter.append("-ftrivial-auto-var-init=pattern")  # an unset accumulator is seen
    depends = ["  depfile = $out.d", "  deps = gcc"]
    lines = [
        f"builddir = {build}",  # where ninja keeps its log
        f"host = {shlex.join(host_flags())} {includes}",
        f"interpreter = {shlex.join(interpreter)}",
        f"sanitize = {f'-fsanitize={SANITIZE}' if SANITIZE else ''}",  # kernels, not the machine that runs them
        "device = -std=c++20 -O3 -lineinfo -Xptxas -v -Xfatbin=-compress-all -Xcompiler -fPIC,-fvisibility=hidden",
        "rule host",
        f"  command = {cxx} $host $flags -MD -MF $out.d -x c++ -c $in -o $out",
        *depends,
        "  description = host $in",
        "rule nvcc",
        # what ptxas said (registers, spills, serialised wgmma) stays beside the object: benchmarks/audit.py reads it
        f"  command = {nvcc} $device $flags -MD -MF $out.d -c $in -o $out > $out.log 2>&1 || (cat $out.log; exit 1)",
        *depends,
        "  description = nvcc $in",
        "rule link",
        f"  command = {cxx} -shared $in -o $out -static-libgcc -pthread $sanitize $libs",
        "  description = link $out",
    ]

    def module(name: str, sources: list[Path], cuda: bool) -> None:
        objects = []
        named = [f"-DCNN_MODULE={name}", f'-DCNN_BUILT_FOR="{built_for(cuda)}"']
        for path in (source.relative_to(ROOT) for source in sources):
            device = cuda and path.suffix == ".cu"
            face, shared = path.parent.name == "csrc" and path.suffix == ".cpp", path.name == operators.name
            tag = name if face else "shared" if shared else "cuda" if cuda else "interpreter"
            objects.append(target := str(build / tag / f"{path}.o"))
            if target in seen:
                continue
            seen.add(target)
            lines.append(f"build {target}: {'nvcc' if device else 'host'} {path}")
            flags = shlex.join(["-Icsrc", *gencode(path)] if device else named)
            if tag in ("shared", name):
                flags += " -O1"  # they only pass numbers on, and take a quarter less
            if not cuda and tag != "shared":
                flags += " $interpreter" + ("" if "interpreter" in path.parts else " $sanitize")
            lines.append(f"  flags = {flags}")
        lines.append(f"build {out / name}{sysconfig.get_config_var('EXT_SUFFIX')}: link {' '.join(objects)}")
        if cuda:
            libs = Path(shutil.which(nvcc.split()[-1])).resolve().parent.parent / "lib64"
            lines.append(f"  libs = -L{libs} -L{CUDA_HOME}/lib64 -lcudart_static -ldl -lrt")

    seen: set[str] = set()
    csrc = sorted((ROOT / "csrc").rglob("*.cu")) + sorted((ROOT / "csrc").rglob("*.cpp"))
    # The operators' bindings are one source: most of what each would take to compile is pybind11.
    parts = [p for p in csrc if p.name == "bindings.cpp" and p.parent != ROOT / "csrc"]
    text = "".join(f'#include "{p.relative_to(ROOT / "csrc")}"\n' for p in parts)
    operators = ROOT / build / "operators.cpp"
    if not operators.exists() or operators.read_text() != text:
        operators.write_text(text)
    csrc = [operators, *(p for p in csrc if p not in parts)]
    tests = sorted((ROOT / "tests/csrc").glob("*.cu")) + sorted((ROOT / "tests/csrc").glob("*.cpp"))
    for cuda in [False, True] if nvcc else [False]:
        base = "_cuda" if cuda else "_interpreter"
        keep = [p for p in csrc if not (cuda and "interpreter" in p.parts)]
        module(base, keep, cuda)
        if TESTS and tests:
            shared = [p for p in keep if p.suffix == ".cpp" and p.name != "bindings.cpp" and p != operators]
            module(f"{base}_tests", tests + shared, cuda)
    return "\n".join(lines) + "\n"


class NinjaBuild(build_ext):
    def run(self) -> None:
        build = Path("build") / (SANITIZE or "native")
        out = build if SANITIZE else Path("cnnkernels") if self.inplace else Path(self.build_lib) / "cnnkernels"
        (ROOT / build).mkdir(parents=True, exist_ok=True)
        if (nvcc := find_nvcc()) is None and not SANITIZE:
            print("nvcc not found (or switched off): building cnnkernels._interpreter only")
        (file := ROOT / build / "build.ninja").write_text(ninja_file(build, out, nvcc))
        jobs = ["-j", os.environ.get("MAX_JOBS", str(os.cpu_count()))]
        subprocess.run([os.path.join(ninja.BIN_DIR, "ninja"), "-f", str(file), *jobs], cwd=ROOT, check=True)

    def get_outputs(self) -> list[str]:
        return []


setup(
    packages=[*find_packages(include=["cnnkernels", "cnnkernels.*"]), "cnnkernels.triton_kernels"],
    package_dir={"cnnkernels": "cnnkernels", "cnnkernels.triton_kernels": "triton_kernels"},
    package_data={"cnnkernels": ["py.typed"], "cnnkernels.triton_kernels": ["*.json"]},
    ext_modules=[Extension("cnnkernels._interpreter", [])],
    cmdclass={"build_ext": NinjaBuild},
)
