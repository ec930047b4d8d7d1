"""The profiler's counts of small kernels, each to the last one: instructions, wavefronts, sectors, products."""

from __future__ import annotations

import math

import pytest

from cnnkernels.emulator.profile import Profile
from helpers.instructions.profile import aligned, profile, row

LANES, BANKS, BANK, SECTOR = 32, 32, 4, 32
VECTORS = {1: "u8", 2: "u16", 4: "u32", 8: "v2.u32", 16: "v4.u32"}
REGISTERS = {1: "%r1", 2: "%r1", 4: "%r1", 8: "{%r1, %r2}", 16: "{%r1, %r2, %r3, %r4}"}


# --- instructions


@pytest.mark.parametrize("turns", [1, 7])
def test_a_loop_counts_its_turns(turns: int) -> None:
    """Of 64 threads, so two warps; half of the lanes add."""
    found = profile(
        f"""
        mov.u32 %r1, 0; and.b32 %r2, %r90, 1; setp.eq.u32 %p2, %r2, 0;
        LOOP: @%p2 mul.lo.u32 %r3, %r90, 3;
        add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, {turns}; @%p1 bra LOOP;
        """,
        threads=64,
    )
    assert (row(found, "mul")["warps"], row(found, "mul")["threads"]) == (2 * turns, 32 * turns)
    assert (row(found, "add")["warps"], row(found, "add")["threads"]) == (2 * turns, 64 * turns)
    assert (row(found, "bra")["warps"], row(found, "bra")["threads"]) == (2 * turns, 64 * (turns - 1))
    assert found.kinds() == {
        "move": 4, "integer": 2 + 2 * 2 * turns, "compare": 2 + 2 * turns, "branch": 2 * turns + 2
    }  # fmt: skip
    assert found.sum("issue_slots") == found.sum("warps") - 4  # moves take none


def test_lanes_that_come_apart_count_twice() -> None:
    found = profile(
        """
        setp.lt.u32 %p1, %r90, 8; @%p1 bra FEW;
        mul.lo.u32 %r1, %r90, 3; bra.uni END;
        FEW: xor.b32 %r1, %r90, 3;
        END: add.u32 %r2, %r1, 1;
        """
    )
    assert [(row(found, name)["warps"], row(found, name)["threads"]) for name in ("mul", "xor", "add")] == [
        (1, 24), (1, 8), (1, 32)
    ]  # fmt: skip


def test_the_way_back_to_a_wait_does_not_count() -> None:
    """However long the first warp waits for the second's arrival, which comes after 1,000 turns of a loop."""
    found = profile(
        """
        setp.eq.u32 %p1, %r90, 0; setp.ge.u32 %p2, %r90, 32; setp.eq.u32 %p5, %r90, 32;
        @%p1 mbarrier.init.shared::cta.b64 [memory], 1; bar.sync 0;
        @%p2 bra WORK;
        WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p3, [memory], 0; xor.b32 %r5, %r90, 1; @!%p3 bra WAIT;
        bra.uni END;
        WORK: mov.u32 %r1, 0;
        LOOP: add.u32 %r1, %r1, 1; setp.lt.u32 %p4, %r1, 1000; @%p4 bra LOOP;
        @%p5 mbarrier.arrive.shared::cta.b64 _, [memory];
        END: ret;
        """,
        threads=64,
    )
    assert row(found, "mbarrier.try_wait")["warps"] == row(found, "xor")["warps"] == 1
    assert row(found, "add")["warps"] == 1000
    assert found.waits() == {
        "mbarrier.init.shared::cta": 2, "bar.sync": 2, "mbarrier.try_wait.parity": 1, "mbarrier.arrive.shared::cta": 1
    }  # fmt: skip


def test_a_wait_that_says_no_and_is_not_come_back_to() -> None:
    """What follows it was executed, though the wait counts as none."""
    work = "".join(f"add.u32 %r{i}, %r90, {i}; " for i in range(20, 40))
    found = profile(
        f"""
        setp.eq.u32 %p1, %r90, 0; @%p1 mbarrier.init.shared::cta.b64 [memory], 1; bar.sync 0;
        mbarrier.test_wait.parity.shared::cta.b64 %p3, [memory], 0;
        {work}
        """
    )
    assert sum(row["warps"] for row in found.rows if row["opcode"].startswith("add")) == 20
    assert not [row for row in found.rows if row["opcode"].startswith("mbarrier.test_wait")]


@pytest.mark.parametrize("rest", [3, 20])
def test_what_is_done_between_two_waits_counts(rest: int) -> None:
    """After a wait that says no: work that is longer than a way back, three times, or that ends soon."""
    work = "".join(f"xor.b32 %r{i}, %r90, {i}; " for i in range(20, 20 + rest))
    turns = 3 if rest > 8 else 1
    found = profile(
        f"""
        setp.eq.u32 %p1, %r90, 0; @%p1 mbarrier.init.shared::cta.b64 [memory], 1; bar.sync 0; mov.u32 %r1, 0;
        LOOP: mbarrier.test_wait.parity.shared::cta.b64 %p3, [memory], 0;
        {work} add.u32 %r1, %r1, 1; setp.lt.u32 %p4, %r1, {turns}; @%p4 bra LOOP;
        """
    )
    assert sum(row["warps"] for row in found.rows if row["opcode"].startswith("xor")) == turns * rest


# --- shared memory


def at_stride(stride: int, bytes_each: int, store: bool = False) -> Profile:
    """Every thread's own place, `stride` bytes from its neighbour's, written first."""
    access = f"st.shared.{VECTORS[bytes_each]} [%r12], {REGISTERS[bytes_each]};"
    if not store:
        access = f"ld.shared.{VECTORS[bytes_each]} {REGISTERS[bytes_each]}, [%r12];"
    return profile(
        f"""
        mov.u32 %r1, 1; mov.u32 %r2, 2; mov.u32 %r3, 3; mov.u32 %r4, 4; mov.u32 %r11, memory; mov.u32 %r13, 0;
        FILL: add.u32 %r14, %r11, %r13; st.shared.b64 [%r14], 0; add.u32 %r13, %r13, 8;
        setp.lt.u32 %p1, %r13, 8192; @%p1 bra FILL; bar.sync 0;
        mad.lo.u32 %r12, %r90, {stride}, %r11;
        {access}
        """
    )


def turns_of(stride: int, bytes_each: int) -> int:
    """By the definition: each part of the lanes, each bank, its distinct words."""
    part = LANES * BANK // max(bytes_each, BANK)
    turns = 0
    for first in range(0, LANES, part):
        words = {
            (lane * stride + byte) // BANK for lane in range(first, first + part) for byte in range(0, bytes_each, 1)
        }
        turns += max(sum(word % BANKS == bank for word in words) for bank in range(BANKS))
    return turns


@pytest.mark.parametrize(
    ("stride", "bytes_each", "wavefronts"),
    [
        (4, 4, 1), (8, 4, 2), (12, 4, 1), (16, 4, 4), (128, 4, 32), (132, 4, 1), (0, 4, 1), (64, 4, 16),
        (2, 2, 1), (1, 1, 1), (64, 2, 16),
        (8, 8, 2), (16, 8, 4), (128, 8, 32), (0, 8, 2), (136, 8, 2),
        (16, 16, 4), (32, 16, 8), (128, 16, 32), (0, 16, 4), (144, 16, 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("store", [False, True])
def test_wavefronts_of_shared_memory(stride: int, bytes_each: int, wavefronts: int, store: bool) -> None:
    assert turns_of(stride, bytes_each) == wavefronts
    name = f"st.shared.{VECTORS[bytes_each]}" if store else "ld.shared"
    found = row(at_stride(stride, bytes_each, store), name)
    assert found["shared_requests"] == 1
    assert (found["least_wavefronts"], found["wavefronts"]) == (max(bytes_each // BANK, 1), wavefronts)


@pytest.mark.parametrize(("active", "bytes_each", "least"), [(8, 16, 1), (9, 16, 2), (16, 8, 1), (17, 8, 2), (1, 4, 1)])
def test_parts_without_a_lane_take_no_wavefront(active: int, bytes_each: int, least: int) -> None:
    found = profile(
        f"""
        mov.u32 %r1, 1; mov.u32 %r2, 2; mov.u32 %r3, 3; mov.u32 %r4, 4; mov.u32 %r11, memory;
        setp.lt.u32 %p1, %r90, {active}; mad.lo.u32 %r12, %r90, {bytes_each}, %r11;
        @%p1 st.shared.{VECTORS[bytes_each]} [%r12], {REGISTERS[bytes_each]};
        """
    )
    store = row(found, "st.shared")
    assert (store["least_wavefronts"], store["wavefronts"], store["threads"]) == (least, least, active)


@pytest.mark.parametrize(("stride", "wavefronts"), [(4, 1), (0, 32), (8, 2), (128, 32)])
def test_atomics_on_one_word_take_turns(stride: int, wavefronts: int) -> None:
    found = profile(
        f"""
        mov.u32 %r11, memory; mov.u32 %r13, 0;
        FILL: add.u32 %r14, %r11, %r13; st.shared.b64 [%r14], 0; add.u32 %r13, %r13, 8;
        setp.lt.u32 %p1, %r13, 8192; @%p1 bra FILL; bar.sync 0;
        mad.lo.u32 %r12, %r90, {stride}, %r11; red.shared.add.u32 [%r12], 1;
        """
    )
    assert (row(found, "red")["least_wavefronts"], row(found, "red")["wavefronts"]) == (1, wavefronts)


@pytest.mark.parametrize(("pitch", "turns"), [(16, 1), (32, 2), (64, 4), (128, 8), (144, 1), (272, 1)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_of_matrices(pitch: int, turns: int, count: int) -> None:
    registers = "{" + ", ".join(f"%r{i}" for i in range(1, count + 1)) + "}"
    found = profile(
        f"""
        mov.u32 %r1, 1; mov.u32 %r2, 2; mov.u32 %r3, 3; mov.u32 %r4, 4; mov.u32 %r11, memory;
        mad.lo.u32 %r12, %r90, {pitch}, %r11;
        stmatrix.sync.aligned.m8n8.x{count}.shared.b16 [%r12], {registers};
        bar.sync 0;
        ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {registers}, [%r12];
        """
    )
    for name in ("stmatrix", "ldmatrix"):
        assert (row(found, name)["least_wavefronts"], row(found, name)["wavefronts"]) == (count, count * turns)


# --- global memory


@pytest.mark.parametrize(
    ("stride", "bytes_each", "offset", "sectors", "wanted"),
    [
        (4, 4, 0, 4, 128), (4, 4, 4, 5, 128), (8, 4, 0, 8, 128), (32, 4, 0, 32, 128), (0, 4, 0, 1, 4),
        (2, 2, 0, 2, 64), (16, 16, 0, 16, 512), (16, 16, 16, 17, 512), (64, 16, 0, 32, 512), (8, 8, 0, 8, 256),
    ],
)  # fmt: skip
@pytest.mark.parametrize("store", [False, True])
def test_sectors_of_global_memory(
    stride: int, bytes_each: int, offset: int, sectors: int, wanted: int, store: bool
) -> None:
    x = aligned(1024)
    access = f"st.global.{VECTORS[bytes_each]} [%d1], {REGISTERS[bytes_each]};"
    if not store:
        access = f"ld.global.{VECTORS[bytes_each]} {REGISTERS[bytes_each]}, [%d1];"
    found = profile(
        f"mov.u32 %r1, 1; mov.u32 %r2, 2; mov.u32 %r3, 3; mov.u32 %r4, 4;"
        f"mad.wide.u32 %d1, %r90, {stride}, %out; add.s64 %d1, %d1, {offset}; {access}",
        x,
    )
    counts = row(found, "st.global" if store else "ld.global")
    assert (counts["global_requests"], counts["sectors"], counts["wanted_bytes"]) == (1, sectors, wanted)
    assert counts["l2_sectors"] == sectors
    (touched,) = found.touched
    assert (touched.read, touched.written) == ((0, SECTOR * sectors) if store else (SECTOR * sectors, 0))


@pytest.mark.parametrize(("how", "of_l2"), [("ld.global.u32", 4), ("ld.global.cg.u32", 8)])
def test_what_l1_has_is_not_read_again(how: str, of_l2: int) -> None:
    """Two warps read the same 128 bytes."""
    found = profile(
        f"and.b32 %r91, %r90, 31; mad.wide.u32 %d1, %r91, 4, %out; {how} %r1, [%d1];", aligned(32), threads=64
    )
    counts = row(found, "ld.global")
    assert (counts["global_requests"], counts["sectors"], counts["l2_sectors"]) == (2, 8, of_l2)


def test_blocks_share_no_l1_but_bytes_that_are_unique() -> None:
    x = aligned(32)
    found = profile("mad.wide.u32 %d1, %r90, 4, %out; ld.global.u32 %r1, [%d1];", x, grid=(5, 1, 1))
    assert row(found, "ld.global")["l2_sectors"] == 20
    assert [(t.read, t.written) for t in found.touched] == [(128, 0)]


def test_atomics_read_and_write() -> None:
    found = profile("mad.wide.u32 %d1, %r90, 8, %out; red.global.add.u32 [%d1], 1;", aligned(64))
    assert (row(found, "red")["sectors"], row(found, "red")["l2_sectors"]) == (8, 8)
    assert [(t.read, t.written) for t in found.touched] == [(256, 256)]


@pytest.mark.parametrize(("kind", "size", "of_l2"), [("cg", 16, 16), ("ca", 16, 16), ("ca", 4, 4)])
def test_asynchronous_copies_of_threads(kind: str, size: int, of_l2: int) -> None:
    """Without those that only fill with zeros."""
    found = profile(
        f"""
        mov.u32 %r11, memory; mad.lo.u32 %r12, %r90, {size}, %r11; mad.wide.u32 %d1, %r90, {size}, %out;
        cp.async.{kind}.shared.global [%r12], [%d1], {size};
        mov.u32 %r13, 0; add.u32 %r12, %r12, 1024; cp.async.{kind}.shared.global [%r12], [%d1], {size}, %r13;
        cp.async.wait_all;
        """,
        aligned(128),
    )
    first, second = [row for row in found.rows if row["opcode"].startswith(f"cp.async.{kind}")]
    assert (first["sectors"], first["l2_sectors"], first["wanted_bytes"]) == (of_l2, of_l2, 32 * size)
    assert (second["global_requests"], second["sectors"]) == (0, 0)
    assert first["wavefronts"] == first["least_wavefronts"] == second["wavefronts"] == size // 4


# --- samples


@pytest.mark.parametrize(("blocks", "ran"), [(1, [0]), (2, [0, 99]), (4, [0, 33, 66, 99]), (0, range(100))])
def test_which_blocks_run(blocks: int, ran: list[int]) -> None:
    """The first, the last and some at equal distances; and what is scaled."""
    out = aligned(100 * 32)
    found = profile(
        "mov.u32 %r91, %ctaid.x; mad.lo.u32 %r91, %r91, 32, %r90; mad.wide.u32 %d1, %r91, 4, %out;"
        "st.global.u32 [%d1], 7;",
        out,
        grid=(100, 1, 1),
        blocks=blocks,
    )
    assert (out.view(100, 32) == 7).all(1).nonzero().flatten().tolist() == list(ran)
    assert (found.clusters, found.sampled, found.scale) == (100, len(ran), 100 / len(ran))
    assert row(found, "st.global")["sectors"] == 4 * len(ran)
    assert found.of_launch("sectors") == 400
    (touched,) = found.touched
    assert touched.written == 128 * len(ran) and found.unique(touched) == (0, 12800)


def test_unique_bytes_are_no_more_than_there_are() -> None:
    """Every block reads the same."""
    found = profile(
        "mad.wide.u32 %d1, %r90, 4, %out; ld.global.u32 %r1, [%d1];", aligned(32), grid=(50, 1, 1), blocks=2
    )
    assert found.unique(found.touched[0]) == (128, 0)


def test_a_sample_has_whole_clusters() -> None:
    found = profile("add.u32 %r1, %r90, 1;", grid=(12, 1, 1), cluster=(4, 1, 1), blocks=5)
    assert (found.clusters, found.sampled, row(found, "add")["warps"]) == (3, 2, 8)


# --- lines


def test_lines_of_a_source() -> None:
    found = profile(
        """
        .loc 1 10 3
        add.u32 %r1, %r90, 1; add.u32 %r2, %r1, 1;
        .loc 1 12 3
        mul.lo.u32 %r3, %r2, 5;
        """,
        outside='.file 1 "kernel.cu"\n',
    )
    counts = {line.number: counts["warps"] for line, counts in found.lines().items() if line.file == "kernel.cu"}
    assert counts[10] == 2 and counts[12] == 2  # the multiplication, and the end


# --- tensor cores


@pytest.mark.parametrize(
    ("shape", "kinds", "registers"),
    [
        ((16, 8, 16), "f32.f16.f16.f32", (4, 4, 2)), ((16, 8, 8), "f32.tf32.tf32.f32", (4, 4, 2)),
        ((16, 8, 32), "s32.s8.s8.s32", (4, 4, 2)),
    ],
)  # fmt: skip
def test_multiply_adds_of_mma(shape: tuple[int, int, int], kinds: str, registers: tuple[int, int, int]) -> None:
    names = [["%r{" + str(i) + "}" for i in range(count)] for count in registers]
    first = 0
    for group in names:
        for i in range(len(group)):
            group[i] = f"%r{first}"
            first += 1
    d, a, b = ("{" + ", ".join(group) + "}" for group in names)
    clear = " ".join(f"mov.b32 %r{i}, 0;" for i in range(first))
    m, n, k = shape
    found = profile(f"{clear} mma.sync.aligned.m{m}n{n}k{k}.row.col.{kinds} {d}, {a}, {b}, {d};", threads=96)
    assert row(found, "mma")["multiply_adds"] == 3 * math.prod(shape)
    assert list(found.products().values()) == [3 * math.prod(shape)]


@pytest.mark.parametrize("columns", [8, 64, 256])
@pytest.mark.parametrize("from_registers", [False, True])
def test_multiply_adds_and_operands_of_wgmma(columns: int, from_registers: bool) -> None:
    """64 rows of A and all of B are read, 32 bytes deep; A in registers is not."""
    d = [f"%s{i}" for i in range(columns // 2)]
    a, majors = ("{%r1, %r2, %r3, %r4}", ", 0") if from_registers else ("%d1", ", 0, 0")
    clear = " ".join(f"mov.b32 {register}, 0;" for register in (*d, "%r1", "%r2", "%r3", "%r4"))
    found = profile(
        f"""
        .reg .b32 {", ".join(d)}; {clear}
        mov.u32 %r11, memory; mad.lo.u32 %r12, %r90, 16, %r11; mov.u32 %r13, 0;
        FILL: st.shared.v4.u32 [%r12], {{0, 0, 0, 0}}; add.u32 %r12, %r12, 2048; add.u32 %r13, %r13, 1;
        setp.lt.u32 %p1, %r13, 8; @%p1 bra FILL;
        fence.proxy.async.shared::cta; bar.sync 0;
        shr.u32 %r14, %r11, 4; cvt.u64.u32 %d1, %r14; or.b64 %d1, %d1, {0x4000004000010000 & ~(3 << 62)};
        mov.b64 %d2, %d1; setp.ne.u32 %p2, 1, 0;
        wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.f16.f16 {{{", ".join(d)}}}, {a}, %d2, %p2, 1, 1{majors};
        wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
        """,
        threads=128,
    )  # fmt: skip
    product = row(found, "wgmma.mma")
    assert (product["warps"], product["multiply_adds"]) == (4, 64 * columns * 16)
    rows = columns if from_registers else 64 + columns
    assert product["streamed_wavefronts"] == rows * 32 // 128
    assert found.waits()["wgmma.wait_group.sync"] == 4
