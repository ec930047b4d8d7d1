"""The PTX of csrc/ptx becomes the machine instructions it is meant to be: needs nvcc, but no GPU."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from helpers.cuda_toolkit import cuobjdump, nvcc

ROOT = Path(__file__).resolve().parent.parent.parent


pytestmark = [
    pytest.mark.skipif(not nvcc(), reason="needs nvcc, which compiled the primitives for sm_80 and sm_90a"),
    pytest.mark.skipif(cuobjdump() is None, reason="needs cuobjdump, of the CUDA toolkit or of triton's wheel"),
]

HOPPER = "conv/sm90/bfloat16.cu"  # of csrc; all others are of tests/csrc
HOPPER_INT8 = "int8/sm90_product.cu"  # of csrc, too

# Instructions that must be in the machine code of a file, by architecture.
EXPECTED = {
    ("conformance_register.cu", "80"): [
        "HMMA.16816.F32", "HMMA.16816.F32.BF16", "HMMA.1688.F32.TF32", "IMMA.16832.S8.S8", "DMMA.884",
        "LDSM.16.M88", "LDSM.16.M88.2", "LDSM.16.M88.4", "LDSM.16.MT88", "LDSM.16.MT88.2", "LDSM.16.MT88.4",
    ],
    ("conformance_register.cu", "90a"): [
        "HMMA.16816.F32", "HMMA.16816.F32.BF16", "HMMA.1688.F32.TF32", "IMMA.16832.S8.S8", "LDSM.16.M88.4",
        "STSM.16.M88", "STSM.16.M88.2", "STSM.16.M88.4", "STSM.16.MT88", "STSM.16.MT88.2", "STSM.16.MT88.4",
    ],
    ("conformance_async.cu", "80"): ["LDGSTS.E", "LDGSTS.E.64", "LDGSTS.E.BYPASS.128", "ARRIVES.LDGSTSBAR.64"],
    ("conformance_async.cu", "90a"): [
        "LDGSTS.E.BYPASS.128", "ARRIVES.LDGSTSBAR.64.ARVCNT", "SYNCS.EXCH.64", "SYNCS.ARRIVE.TRANS64.A1T0",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT", "ELECT", "USETMAXREG.DEALLOC.CTAPOOL", "USETMAXREG.TRY_ALLOC.CTAPOOL",
        "BAR.ARV",
    ],
    ("conformance_tma.cu", "90a"): [
        *[f"UTMALDG.{rank}D" for rank in range(1, 6)],
        *[f"UTMALDG.{rank}D.IM2COL" for rank in range(3, 6)],
        *[f"UTMASTG.{rank}D" for rank in range(1, 6)],
        "UTMACMDFLUSH", "UTMACCTL.PF",
    ],
    ("conformance_wgmma.cu", "90a"): [
        *[f"HGMMA.64x{n}x16.F32.BF16" for n in range(8, 257, 8)],
        *[f"HGMMA.64x{n}x16.F32" for n in (8, 24, 64, 256)],
        *[f"HGMMA.64x{n}x8.F32.TF32" for n in (8, 24, 64, 256)],
        *[f"IGMMA.64x{n}x32.{sign}8.S8" for n in (8, 24, 64, 256) for sign in "SU"],
        "WARPGROUP.ARRIVE", "WARPGROUP.DEPBAR.LE",
    ],
    ("conformance_cluster.cu", "90a"): [
        "UTMALDG.2D.MULTICAST", "UTMALDG.4D.IM2COL.MULTICAST", "UCGABAR_ARV", "UCGABAR_WAIT",
        "SYNCS.ARRIVE.TRANS64.RED.A1T0",
    ],
    ("ring_convolution.cu", "90a"): [
        "UTMALDG.4D.IM2COL", "UTMALDG.3D", "HGMMA.64x64x16.F32.BF16", "STSM.16.M88.4", "UTMASTG.2D",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT",
    ],
    (HOPPER, "90a"): [
        "UTMALDG.4D.IM2COL", "UTMALDG.4D", "UTMALDG.3D", "UTMALDG.2D", "UTMASTG.3D", "UTMASTG.5D", "STSM.16.M88.4",
        "UTMALDG.4D.MULTICAST", "UTMALDG.4D.IM2COL.MULTICAST", "UTMALDG.2D.MULTICAST", "UCGABAR_ARV", "UCGABAR_WAIT",
        *[f"HGMMA.64x{n}x16.F32.BF16" for n in (64, 128, 256)], "USETMAXREG.DEALLOC.CTAPOOL",
        "USETMAXREG.TRY_ALLOC.CTAPOOL", "SYNCS.PHASECHK.TRANS64.TRYWAIT", "STG.E.128",
    ],
    (HOPPER_INT8, "90a"): [
        *[f"IGMMA.64x{n}x32.{sign}8.S8" for n in (64, 128, 256) for sign in "SU"], "UTMALDG.2D", "UTMALDG.4D",
        "UTMALDG.4D.IM2COL", "UTMALDG.4D.MULTICAST", "USETMAXREG.DEALLOC.CTAPOOL", "USETMAXREG.TRY_ALLOC.CTAPOOL",
        "STG.E.128.STRONG.SM",
    ],
}  # fmt: skip


BUILT = ROOT / "build" / "native" / "cuda"


@cache
def compiled(source: str, arch: str) -> tuple[str, str]:
    """What ptxas said of a file in the build, for all architectures, and its machine code for one."""
    made = BUILT / ("csrc" if source in (HOPPER, HOPPER_INT8) else "tests/csrc") / f"{source}.o"
    dump = [cuobjdump(), "--dump-sass", "--gpu-architecture", f"sm_{arch}", made]
    sass = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    return made.with_name(made.name + ".log").read_text(), sass


@pytest.mark.parametrize(("source", "arch"), EXPECTED, ids=lambda part: part.removesuffix(".cu"))
def test_instructions(source: str, arch: str) -> None:
    log, sass = compiled(source, arch)
    assert not re.findall(r"\(C75\d\d\).*", log), "ptxas gave something up"
    assert set(re.findall(r"(\d+) bytes spill", log)) == {"0"}
    found = set(re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z][\w.]*)", sass, re.MULTILINE))
    missing = set(EXPECTED[source, arch]) - found
    assert not missing, f"not in the machine code: {sorted(missing)}"


def test_a_body_that_was_left_out_traps() -> None:
    """Code for older GPUs of what only Hopper runs: nothing that returns with its result unwritten."""
    sass = compiled(HOPPER_INT8, "80")[1]
    kernels = re.findall(r"Function : \S+\n(.*?)(?=Function : |\Z)", sass, re.DOTALL)
    assert len(kernels) == 9
    for code in kernels:
        assert "BPT.TRAP" in code and not re.search(r"\bEXIT\b", code)


def test_majors_reach_the_instruction() -> None:
    sass = compiled("conformance_wgmma.cu", "90a")[1]
    products = re.findall(r"HGMMA\.64x64x16\.F32\.BF16 ([^;]*)", sass)
    majors = {("tnspA" in product, "tnspB" in product) for product in products}
    assert majors == {(False, False), (True, False), (False, True), (True, True)}


def test_hopper_multiplies_in_one_loop() -> None:
    """A stage is four steps of wgmma, twice where a consumer has 128 rows: the compiler made no second copy of it."""
    sass = compiled(HOPPER, "90a")[1]
    kernels = re.findall(r"Function : (\S*convolution\S*)(.*?)(?=Function : |\Z)", sass, re.DOTALL)
    # Ten tiles of each direction; of forward and backward_input four also with two shorter spans.
    assert len(kernels) == 10 * 3 + 4 * 2 * 2
    for name, code in kernels:
        tile = re.search(r"DirectionE\dELi(\d)E", name)
        assert tile is not None
        steps = re.findall(r"HGMMA\.64x(\d+)x16", code)
        assert len(steps) == (8 if tile[1] in "1379" else 4), name
        assert len(set(steps)) == 1
        assert code.count("WARPGROUP.ARRIVE") == 1, name
        # A cluster's blocks copy for each other: all of the filter in the forward, of the windows in backward_weight.
        assert ("MULTICAST" in code) == (tile[1] in "89"), name
