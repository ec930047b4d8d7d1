"""Builds the native modules with ninja, all but one from one set of sources.

cnnkernels._interpreter   csrc/**/*.cu compiled by the host compiler against csrc/interpreter: built always
cnnkernels._cuda          the same sources compiled by nvcc: built wherever it is found (csrc/toolkit.py), no GPU needed
cnnkernels._emulator      csrc/emulator, which runs PTX: built always, but for sanitizers
cnnkernels._emulated      the objects of _cuda with csrc/emulator instead of CUDA's runtime; their PTX lies beside it

CNNKERNELS_BUILD_TESTS adds the test kernels of tests/csrc as _interpreter_tests, _cuda_tests and _emulated_tests, and
those of tests/csrc/cutlass as _emulated_cutlass_tests, where the package nvidia-cutlass is installed.
docs/environment.md has all variables that a build reads.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import ninja
import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))
import build_checks  # noqa: E402
import grouping  # noqa: E402
import ptx_archive  # noqa: E402
import toolkit  # noqa: E402

build_checks.on_linux()
SANITIZE = build_checks.sanitizer()
# A NaN that becomes an integer is one thing on a GPU and anything on a CPU.
CASTS = "-fsanitize=float-cast-overflow -fno-sanitize-recover=float-cast-overflow"
SANITIZERS = {"": "", "thread": "-fsanitize=thread", "address": f"-fsanitize=address {CASTS}"}
# The emulator reads a register as whatever type an instruction has, and its arrays of lanes are filled at once.
PATTERN = "-ftrivial-auto-var-init=pattern"
EMULATOR = ["-O2", "-fno-strict-aliasing"]
# The interpreter's kernels are compiled by -O1: a third less of g++'s time than -O2 takes, for a run a twentieth
# longer (convolution on wgmma, depthwise). Not so the implicit GEMM's, which most tests run.
OFTEN_RUN = "implicit_gemm"
# So that a wheel runs beside any libstdc++, where the compiler brings one to link; without what of it nobody calls.
STATIC = "-static-libstdc++ -Wl,--exclude-libs,ALL,--gc-sections"
# The rooms of csrc that a module does without.
LEFT_OUT = {
    "_interpreter": {"emulator"},
    "_cuda": {"interpreter", "emulator"},
    "_emulated": {"interpreter"},
    "_emulator": {"runtime"},
}
TESTS = build_checks.flag("CNNKERNELS_BUILD_TESTS")
DEBUG = build_checks.flag("CNNKERNELS_DEBUG")
ARCHS = toolkit.architectures(os.environ.get("CNNKERNELS_CUDA_ARCHS") or toolkit.DEFAULT_ARCHS)


def host_flags(cxx: str) -> list[str]:
    level = ["-Og", "-g"] if DEBUG else ["-O2", "-g1"]
    flags = ["-std=c++20", *level, "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra"]
    flags.append("-Wno-unknown-pragmas")
    # An unset accumulator is seen; g++ has it since 12.
    if not SANITIZE and ("g++" in cxx or cxx == "c++") and not build_checks.complaint(cxx, [PATTERN]):
        flags += [PATTERN]
    # g++ looks for garbage of its own less often: a tenth to a fifth of its time, for half a GB of memory.
    collects = ["--param=ggc-min-expand=200", "--param=ggc-min-heapsize=1000000"]
    flags += collects * (("g++" in cxx or cxx == "c++") and not build_checks.complaint(cxx, collects))
    flags.append("-fno-gnu-unique")  # both modules define the same inline statics; they must not be merged
    cpu = Path("/proc/cpuinfo").read_text()
    flags += ["-march=x86-64-v3"] * all(f" {feature}" in cpu for feature in ("avx2", "fma", "f16c", "bmi2"))
    return [*flags, "-Icsrc"]


def python_headers() -> list[str]:
    return [f"-I{path}" for path in (sysconfig.get_path("include"), pybind11.get_include())]


def built_for(cuda: bool) -> str:
    """What `cnnkernels info` says a module was compiled for."""
    flags = toolkit.gencode(Path("sm90"), ARCHS) if cuda else [flag for flag in host_flags("") if "-march" in flag]
    return ", ".join(flag.rpartition("=")[2].strip("[]").replace(",", ", ") for flag in flags) or os.uname().machine


def built_for_lines() -> str:
    return f'#define CNN_BUILT_FOR_CUDA "{built_for(True)}"\n#define CNN_BUILT_FOR_INTERPRETER "{built_for(False)}"\n'


def sources(pattern: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in ROOT.glob(pattern))


def write(path: Path, text: str) -> None:
    """Not where it says so already, or what is made of it would be made again."""
    path = ROOT / path
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def ninja_file(build: Path, out: Path, cxx: str, cuda_toolkit: toolkit.Toolkit | None) -> str:
    """One edge a source, one link a module; csrc/rules.ninja has the rules."""
    interpreter = ["-DCNN_INTERPRETER=1", "-fstack-clash-protection"]
    emulator_flags = EMULATOR + ["-ftrivial-auto-var-init=uninitialized"] * (PATTERN in host_flags(cxx))
    if SANITIZE:
        interpreter += [f"-DCNN_{SANITIZE[0].upper()}SAN=1", "-fno-omit-frame-pointer"]
    lines = [
        f"builddir = {build}",  # where ninja keeps its log
        f"cxx = {cxx}",
        f"nvcc = {cuda_toolkit and cuda_toolkit.nvcc}",
        f"cuda_headers = {cuda_toolkit and shlex.quote(f'-I{cuda_toolkit.home}/include')}",
        f"python = {shlex.quote(sys.executable)}",
        f"host = {shlex.join(host_flags(cxx))}",
        f"python_headers = {shlex.join(python_headers())}",
        f"interpreter = {shlex.join(interpreter)}",
        f"emulator = {shlex.join(emulator_flags)}",
        f"sanitize = {SANITIZERS[SANITIZE]}",  # kernels, not the machine that runs them
        f"runtime = {STATIC if not SANITIZE and build_checks.has_static_libstdcxx(cxx) else ''}",
        "include csrc/rules.ninja",
    ]

    def module(name: str, paths: list[Path], cuda: bool) -> None:
        own, objects = "cuda" if cuda else "interpreter", []
        for path in paths:
            source = path if path in grouped.get(path, [path]) else build / path
            rule, tag, flags, assembler = "host", "shared", "-O1", ""  # no kernels: once for all, less optimized
            if path.suffix == ".cu" and cuda:
                gencode = toolkit.gencode(path, ARCHS)
                rule, tag, flags = "nvcc", own, shlex.join(["-Icsrc", *toolkit.headers(path), *gencode])
                if "cutlass" in path.parts:
                    flags += "\n  lineinfo ="  # one of its kernels would take minutes and more memory than there is
                assembler = f" | {build / tag / path}.o.s"  # which takes nvcc's PTX into the object
                kept = build / tag / f"{path}.o.kept"
                write(build / tag / f"{path}.o.s", ptx_archive.sections(path, gencode, kept))
            elif path.suffix == ".cu":
                tag, flags = own, "$interpreter $sanitize" + " -O1" * (not DEBUG and OFTEN_RUN not in path.parts)
            elif "interpreter" in path.parts:
                tag, flags = own, "$interpreter" + " -O1" * (path.name in grouping.BINDINGS)
            elif "runtime" in path.parts:
                tag, flags = "emulator", "-O1 $cuda_headers"
            elif "emulator" in path.parts:
                tag, flags = "emulator", "$emulator" + " -O1" * (path.name in grouping.BINDINGS)
            if path.name in grouping.BINDINGS:  # which alone know Python: all other objects serve any version of it
                tag, flags = f"{tag}/{sys.implementation.cache_tag}", f"{flags} $python_headers"
            objects.append(target := str(build / tag / f"{path}.o"))
            if target not in seen:
                seen.add(target)
                lines.append(f"build {target}: {rule} {source}{assembler}\n  flags = {flags}")
        lines.append(f"build {out / name}{sysconfig.get_config_var('EXT_SUFFIX')}: link {' '.join(objects)}")
        if name.startswith("_emulated"):
            lines.append("  libs = -Wl,-z,now")  # a function of CUDA that csrc/emulator lacks is missed at import
            compiled = " ".join(path for path in objects if path.endswith(".cu.o"))
            lines.append(f"build {out / name}.zip: ptx_archive {compiled} | csrc/ptx_archive.py")
        elif cuda:
            lines.append(f"  libs = {shlex.join(cuda_toolkit.libraries)} -lcudart_static -ldl -lrt")

    seen: set[str] = set()
    grouped = grouping.group(sources("csrc/**/*.cu") + sources("csrc/**/*.cpp"))
    for path, parts in grouped.items():
        if path not in parts:
            head = built_for_lines() if path == grouping.ALL_BINDINGS else ""
            write(build / path, head + "".join(f'#include "{part.relative_to("csrc")}"\n' for part in parts))
            for old in [p for part in parts for p in (ROOT / build).glob(f"*/{part}.o*")]:
                old.unlink()  # of a build that had it alone
    tests = sources("tests/csrc/*.cu") + sources("tests/csrc/*.cpp")
    for base in ["_interpreter", "_cuda", "_emulated"] if cuda_toolkit else ["_interpreter"]:
        keep = [p for p in grouped if not LEFT_OUT[base] & set(p.parts)]
        module(base, keep, base != "_interpreter")
        if TESTS and tests:
            shared = [p for p in keep if p.parent.name in ("common", "interpreter", "ptx") or "emulator" in p.parts]
            module(f"{base}_tests", tests + shared, base != "_interpreter")
    if TESTS and cuda_toolkit and toolkit.CUTLASS:
        shared = [p for p in keep if p.parent.name == "common" or "emulator" in p.parts]  # _emulated's, the last
        tests = [Path("tests/csrc/bindings.cpp"), *sources("tests/csrc/cutlass/*.cu")]
        module("_emulated_cutlass_tests", tests + shared, True)
    if not SANITIZE:
        emulator = [p for p in grouped if "emulator" in p.parts and not LEFT_OUT["_emulator"] & set(p.parts)]
        module("_emulator", emulator, False)
    return "\n".join(lines) + "\n"


class NinjaBuild(build_ext):
    def run(self) -> None:
        build = Path("build") / (SANITIZE or "native")
        out = build if SANITIZE else Path("cnnkernels") if self.inplace else Path(self.build_lib) / "cnnkernels"
        cxx = build_checks.find_cxx()
        (ROOT / build).mkdir(parents=True, exist_ok=True)
        found = None if SANITIZE else toolkit.find(build_checks.flag("CNNKERNELS_BUILD_CUDA"))
        (file := ROOT / build / "build.ninja").write_text(ninja_file(build, out, cxx, found))
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count())
        kinds = f"_interpreter and _emulator with {cxx}"
        kinds += f", _cuda and _emulated with {found.nvcc}" if found else " only: no nvcc, or switched off"
        print(f"building cnnkernels.{kinds}, {jobs} at a time: takes minutes the first time", flush=True)
        done = subprocess.run([os.path.join(ninja.BIN_DIR, "ninja"), "-f", str(file), "-j", jobs], cwd=ROOT)
        if done.returncode:
            build_checks.refuse(f"ninja ended with status {done.returncode}; what failed stands above")

    def get_outputs(self) -> list[str]:
        return []


setup(
    packages=[
        *find_packages(include=["cnnkernels", "cnnkernels.*"]),
        *(f"cnnkernels.{name}" for name in find_packages(include=["triton_kernels", "triton_kernels.*"])),
    ],
    package_dir={"cnnkernels": "cnnkernels", "cnnkernels.triton_kernels": "triton_kernels"},
    package_data={
        "cnnkernels": ["py.typed", "records/tuned/*.json", "learn/*.*", "learn/*/*.js"],
        "cnnkernels.triton_kernels": ["*/*.json"],
    },
    ext_modules=[Extension("cnnkernels._interpreter", [])],
    cmdclass={"build_ext": NinjaBuild},
)
