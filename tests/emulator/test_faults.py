"""What is wrong in a kernel ends its run, and the message says what, where in the text and by whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from cnnkernels import _emulator
from helpers.emulated.launches import launch
from helpers.instructions.ptx import HEADER, kernel, run

THREAD = "mov.u32 %r0, %tid.x;\n"


def fault(body: str, size: int = 32, directives: str = "", **options: object) -> str:
    out = torch.zeros(1024, dtype=torch.int32)
    options = {"memory": [(out.data_ptr(), 4096)], **options}
    ptx = kernel(THREAD + body, parameters=["out"], directives=directives)
    with pytest.raises(_emulator.EmulatorFault) as raised:
        run(ptx, [out], block=(size, 1, 1), **options)
    return str(raised.value)


def expect(message: str, *parts: str) -> None:
    assert [part for part in parts if part not in message] == [], message


def test_a_fault_says_where() -> None:
    """Kernel, line of the text, line of the source, instruction, block, warp, thread."""
    body = """
      mov.u32 %r1, %tid.y; mad.lo.u32 %r0, %r1, 8, %r0; setp.eq.u32 %p1, %r0, 37;
      mov.u32 %r1, %ctaid.x; setp.eq.and.u32 %p1, %r1, 1, %p1;
      .loc 1 77 3
    """
    text = kernel(THREAD + body + "@%p1 st.global.u32 [8], 5;\n", parameters=["out"]) + '.file 1 "source.cu"\n'
    line = next(i for i, each in enumerate(text.splitlines(), 1) if "st.global" in each)
    with pytest.raises(_emulator.EmulatorFault) as raised:
        launch(text, "test", [0], block=(8, 8, 1), grid=(3, 1, 1))
    expect(
        str(raised.value),
        "global address 0x8 (4 bytes) is outside",
        f"in test\n  at test.ptx:{line} (source.cu:77): st.global.u32",
        "block (1,0,0), warp 1, thread (5,4,0)",
    )


def test_global_bounds() -> None:
    for offset in (4096, -4):
        expect(fault(f"st.global.b32 [%out+{offset}], 1;"), "global address", "outside of what the launch may touch")
    expect(fault("ld.global.b32 %r1, [%out+4094];"), "misaligned")
    expect(fault("ld.global.v2.b32 {%r1, %r2}, [%out+4092];"), "misaligned for an access of 8 bytes")
    expect(fault("ld.global.b64 %d1, [%out+4096];"), "(8 bytes) is outside")
    expect(fault("red.global.add.u32 [%out+4096], 1;"), "outside")
    expect(fault("mov.u64 %d1, 0; ld.b32 %r1, [%d1];"), "global address 0 (4 bytes) is outside")
    expect(fault("mov.u64 %d1, 0; ld.b32 %r1, [%d1];", memory=[]), "global address 0 (4 bytes) is outside")


def test_shared_bounds() -> None:
    declared = ".shared .align 4 .b8 tile[64]; mov.u32 %r2, tile;"
    expect(fault(declared + "st.shared.b32 [%r2+64], 1;"), "shared address 0x440 (4 bytes) is outside")
    expect(fault(declared + "st.shared.b32 [%r2-4], 1;"), "shared address 0x3fc (4 bytes) is outside")
    expect(fault(declared + "st.shared.b32 [%r2+2], 1;"), "misaligned")
    expect(fault(declared + "mapa.shared::cluster.u32 %r3, %r2, 1;"), "block 1 of the cluster, which has 1")
    remote = "mapa.shared::cluster.u32 %r3, %r2, %r4; st.shared.b32 [%r3], 1;"
    rank = "mov.u32 %r4, %cluster_ctarank; xor.b32 %r4, %r4, 1;"
    expect(fault(declared + rank + remote, grid=(2, 1, 1), cluster=(2, 1, 1)), "is another block's")


def test_shared_memory_of_a_block_that_ended() -> None:
    body = """
      .shared .align 4 .b8 tile[64]; mov.u32 %r2, tile; mov.u32 %r4, %cluster_ctarank;
      setp.eq.u32 %p1, %r4, 1; @%p1 exit;
      mov.u32 %r5, 0;
    LOOP: add.u32 %r5, %r5, 1; setp.lt.u32 %p2, %r5, 2000; @%p2 bra LOOP;
      mapa.shared::cluster.u32 %r3, %r2, 1; st.shared::cluster.b32 [%r3], 1;
    """
    expect(fault(body, grid=(2, 1, 1), cluster=(2, 1, 1)), "block 1 of the cluster, which has ended")


def test_other_spaces() -> None:
    declared = ".local .align 4 .b8 mine[16]; mov.u64 %d1, mine;"
    expect(fault(declared + "ld.local.b32 %r1, [%d1+16];"), "local address 0x10 (4 bytes) is outside")
    expect(fault("cvta.param.u64 %d1, out_parameter; st.b32 [%d1], 1;"), "a write to the kernel's parameters")
    expect(fault("ld.param.b64 %d1, [out_parameter+8];"), "outside of the 8 bytes of parameters")


def test_uninitialised() -> None:
    declared = ".shared .align 4 .b8 tile[64]; mov.u32 %r2, tile;"
    expect(fault(declared + "ld.shared.b32 %r1, [%r2+8];"), "shared memory at 0x408 (4 bytes) is read, which nothing")
    expect(fault(declared + "atom.shared.add.u32 %r1, [%r2], 1;"), "is read, which nothing has written")
    expect(fault("add.u32 %r1, %r7, 1;"), "reads %r7, which nothing has written")
    expect(fault("setp.lt.u32 %p1, %r0, 4;\n@%p5 bra END;\nEND:"), "reads %p5, which nothing has written")


def test_divergent_barriers() -> None:
    half = "setp.lt.u32 %p1, %r0, 16; @%p1 bra OTHER; bar.sync 0; bra END; OTHER: bar.sync 0; END:"
    message = fault(half)
    expect(message, "lanes of a warp wait in different places", "lanes 0xffff at", "lanes 0xffff0000 at", "bar.sync")
    expect(fault("setp.lt.u32 %p1, %r0, 16; @%p1 bar.sync 0;"), "only the lanes 0xffff of the warp execute it")
    expect(fault("bar.warp.sync 1;"), "a lane that is not in the member mask 0x1")
    mixed = "setp.lt.u32 %p1, %r0, 32; @%p1 bra OTHER; bar.sync 1, 64; bra END; OTHER: bar.sync 1, 96; END:"
    expect(fault(mixed, size=64), "barrier 1 is for")
    expect(fault("bar.sync 1, 48;"), "48 threads at barrier 1")
    expect(fault("bar.sync %r0;"), "lanes of a warp name different barriers")
    expect(fault("bar.sync 16;"), "barrier 16 of 16")


def test_deadlock() -> None:
    """With a place for every warp."""
    body = "setp.lt.u32 %p1, %r0, 32; @%p1 bra OTHER; bar.sync 1, 96; bra END; OTHER: bar.sync 2, 64; END:"
    message = fault(body, size=64)
    expect(
        message, "deadlock", "block (0,0,0), warp 0: at test.ptx:", "block (0,0,0), warp 1: at test.ptx:", "bar.sync"
    )
    missing = """
      .shared .align 8 .b8 barrier[8]; mov.u32 %r2, barrier;
      setp.eq.u32 %p1, %r0, 0; @%p1 mbarrier.init.shared.b64 [%r2], 2; bar.sync 0;
      @%p1 mbarrier.arrive.shared.b64 _, [%r2];
    WAIT: mbarrier.try_wait.parity.shared.b64 %p2, [%r2], 0; @!%p2 bra WAIT;
    """
    expect(fault(missing), "deadlock", "warp 0: at test.ptx:")


def test_exchange_with_a_lane_that_does_not_take_part() -> None:
    expect(fault("setp.lt.u32 %p1, %r0, 8; @%p1 shfl.sync.idx.b32 %r1, %r0, 9, 31, 255;"), "the value of lane 9")


def test_assertions_and_traps() -> None:
    declared = (
        ".global .align 1 .b8 message[3] = {111, 104};\n.global .align 1 .b8 file[5] = {97, 46, 99, 117};\n"
        ".extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);\n"
    )
    body = """
      { .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;
        mov.u64 %d1, message; cvta.global.u64 %d1, %d1; st.param.b64 [a], %d1;
        mov.u64 %d2, file; cvta.global.u64 %d2, %d2; st.param.b64 [b], %d2;
        st.param.b32 [c], 12; st.param.b64 [d], 0; st.param.b64 [e], 1;
        call.uni __assertfail, (a, b, c, d, e); }
    """
    with pytest.raises(_emulator.EmulatorFault, match=r"assertion failed: oh \(a.cu:12\)"):
        launch(kernel(body, outside=declared), "test", [])
    expect(fault("trap;"), "trap")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("frobnicate.u32 %r1, %r2;", ["line 11: frobnicate.u32: is not known"]),
        ("tcgen05.wait::ld.sync.aligned;", ["tcgen05", "is Blackwell's"]),
        ("add.rn.f32x2 %d1, %d2, %d3;", ["is Blackwell's"]),
        ("mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 %r1, %r1, %r1, %r1, 0;", ["sparse"]),
        ("mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 %r1, %r1, %r1, %r1;", ["smaller than a byte"]),
        ("add.u32 %r1, %r2;", ["add.u32: another number of operands"]),
        ("add.u32 %r1, %r2, %d3;", ["a source register of another size"]),
        ("add.u32 %d1, %r2, %r3;", ["a destination register of another size"]),
        ("add.u32 %r1, %r2, %q3;", ["there is no register %q3"]),
        ("add.f32 %r1, %r2, %p3;", ["an operand of another kind"]),
        ("ld.global.b32 %r1, %d2;", ["an address in brackets is needed"]),
        ("bra NOWHERE;", ["no label NOWHERE"]),
        ("HERE: HERE: bra HERE;", ["the label HERE is there twice"]),
        ("add.u32 %r1, %r2, 12x;", ["'12x' is no number"]),
        ("add.u32 %r1, %r2", ["instead of"]),
        ("setp.almost.u32 %p1, %r2, %r3;", ["this comparison is not known"]),
        ("cvt.rn.f16x2.s32 %r1, %r2;", ["this type or form is not known"]),
    ],
)
def test_what_is_not_known(text: str, parts: Sequence[str]) -> None:
    """At parsing, with the line; what other GPUs have is refused by name."""
    with pytest.raises(_emulator.EmulatorFault) as raised:
        _emulator.parse(kernel("\n" + text), "mine.ptx")
    expect(str(raised.value), "mine.ptx: line", *parts)


def test_what_is_no_module() -> None:
    for text in ("int main() {}", HEADER + ".visible .entry broken() {", HEADER + "/* no end"):
        with pytest.raises(_emulator.EmulatorFault, match="line"):
            _emulator.parse(text, "mine.ptx")


def test_launches_are_checked() -> None:
    out = torch.zeros(4)
    ptx = kernel("", parameters=["out"], directives=".maxntid 64, 1, 1")
    cases = [
        ({"block": (96, 1, 1)}, "96 threads a block, the kernel allows 64"),
        ({"grid": (3, 1, 1), "cluster": (2, 1, 1)}, r"a grid of \(3,1,1\) in clusters of \(2,1,1\)"),
        ({"grid": (0, 1, 1)}, r"a grid of \(0,1,1\)"),
        ({"shared": 232449}, "232449 bytes of shared memory a block, there are 232448"),
    ]
    for options, message in cases:
        with pytest.raises(_emulator.EmulatorFault, match=message):
            run(ptx, [out], **options)
    program = _emulator.parse(ptx, "mine.ptx")
    with pytest.raises(_emulator.EmulatorFault, match="no kernel nothing"):
        _emulator.run(program, "nothing", grid=(1, 1, 1), block=(1, 1, 1), parameters=b"")
    with pytest.raises(_emulator.EmulatorFault, match="4 bytes of parameters, the kernel reads 8"):
        _emulator.run(program, "test", grid=(1, 1, 1), block=(1, 1, 1), parameters=b"1234")


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_of_several_faults(threads: int) -> None:
    """Whatever the OS threads do, that of the first block: it comes after the next one's and before the last one's."""
    body = """
      mov.u32 %r1, %ctaid.x; mov.u32 %r2, 0; mov.u32 %r3, 1000000;
      setp.eq.u32 %p1, %r1, 1; @%p1 mov.u32 %r3, 1;
      setp.gt.u32 %p1, %r1, 1; @%p1 mov.u32 %r3, 3000000;
    LOOP: add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, %r3; @%p2 bra LOOP;
      trap;
    """
    assert "block (0,0,0)" in fault(body, grid=(64, 1, 1), threads=threads)
