"""Branches, calls, barriers, votes and exchanges between lanes; in every order of warps."""

from __future__ import annotations

import pytest
import torch

from helpers.instructions.ptx import kernel, run

ORDERS = [{}, {"random": True, "seed": 1}, {"random": True, "seed": 2, "starve": True}]
THREAD = "mov.u32 %r0, %tid.x;\n mad.wide.u32 %d0, %r0, 4, %out;\n"
STORE = "st.global.b32 [%d0], %r1;\n"
LANES = torch.arange(32, dtype=torch.int32)


def results(body: str, *, threads: int = 32, blocks: int = 1, outside: str = "", **options: object) -> torch.Tensor:
    """What each thread leaves in %r1."""
    out = torch.full((threads * blocks,), -7, dtype=torch.int32)
    ptx = kernel(THREAD + body + STORE, parameters=["out"], outside=outside)
    run(ptx, [out], block=(threads, 1, 1), grid=(blocks, 1, 1), **options)
    return out


@pytest.mark.parametrize("order", ORDERS)
def test_lanes_loop_as_often_as_each_wants(order: dict[str, int]) -> None:
    body = """
      mov.u32 %r1, 0; mov.u32 %r2, 0;
    LOOP:
      setp.ge.u32 %p1, %r2, %r0; @%p1 bra DONE;
      add.u32 %r2, %r2, 1; add.u32 %r1, %r1, %r2; bra LOOP;
    DONE:
    """
    assert torch.equal(results(body, threads=70, **order), torch.arange(70).int() * (torch.arange(70).int() + 1) // 2)


def test_lanes_meet_again() -> None:
    """After a branch that divides them, a shuffle needs all."""
    body = """
      and.b32 %r2, %r0, 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra EVEN;
      mul.lo.u32 %r3, %r0, 10; bra.uni MEET;
    EVEN:
      mul.lo.u32 %r3, %r0, 100;
    MEET:
      shfl.sync.bfly.b32 %r1, %r3, 1, 31, -1;
    """
    other = LANES ^ 1
    assert torch.equal(results(body), torch.where(other % 2 == 0, other * 100, other * 10))


def test_indexed_branch() -> None:
    body = """
      and.b32 %r2, %r0, 3;
    table: .branchtargets A, B, C, B;
      brx.idx %r2, table;
    A: mov.u32 %r1, 1; bra DONE;
    B: mov.u32 %r1, 2; bra DONE;
    C: mov.u32 %r1, 3;
    DONE:
    """
    assert torch.equal(results(body), torch.tensor([1, 2, 3, 2] * 8, dtype=torch.int32))


FUNCTIONS = """
.func (.param .b32 result) twice(.param .b32 value)
{
  .reg .b32 %x;
  ld.param.b32 %x, [value];
  add.u32 %x, %x, %x;
  st.param.b32 [result], %x;
  ret;
}
.func (.param .b32 result) twice_if_odd(.param .b32 value)
{
  .reg .b32 %x, %y; .reg .pred %odd;
  ld.param.b32 %x, [value];
  and.b32 %y, %x, 1;
  setp.ne.u32 %odd, %y, 0;
  @%odd bra CALL;
  st.param.b32 [result], %x;
  ret;
CALL:
  { .param .b32 in; .param .b32 out; st.param.b32 [in], %x; call.uni (out), twice, (in); ld.param.b32 %y, [out]; }
  st.param.b32 [result], %y;
  ret;
}
"""


def test_calls() -> None:
    """Functions that call functions, by lanes that have come apart."""
    body = """
      { .param .b32 in; .param .b32 out; st.param.b32 [in], %r0;
        call (out), twice_if_odd, (in); ld.param.b32 %r1, [out]; }
    """
    assert torch.equal(results(body, outside=FUNCTIONS), torch.where(LANES % 2 == 1, LANES * 2, LANES))


@pytest.mark.parametrize("order", ORDERS)
def test_barrier(order: dict[str, int]) -> None:
    """Each thread takes what the one of the next warp has written."""
    body = """
      .shared .align 4 .b8 rows[512];
      mov.u32 %r2, rows; mad.lo.u32 %r3, %r0, 4, %r2; mul.lo.u32 %r4, %r0, 3;
      st.shared.b32 [%r3], %r4;
      bar.sync 0;
      add.u32 %r5, %r0, 32; and.b32 %r5, %r5, 127; mad.lo.u32 %r3, %r5, 4, %r2;
      ld.shared.b32 %r1, [%r3];
    """
    want = (torch.arange(128) + 32) % 128 * 3
    assert torch.equal(results(body, threads=128, **order), want.int())


@pytest.mark.parametrize("order", ORDERS)
def test_named_barriers(order: dict[str, int]) -> None:
    """One warp arrives and goes on, another waits for it: neither waits for the two that do not come."""
    body = """
      .shared .align 4 .b8 value[4];
      mov.u32 %r1, 0;
      shr.u32 %r2, %r0, 5; setp.gt.u32 %p1, %r2, 1; @%p1 bra DONE;
      setp.eq.u32 %p2, %r2, 1; @%p2 bra TAKE;
      setp.eq.u32 %p3, %r0, 0; @%p3 st.shared.b32 [value], 42;
      bar.arrive 3, 64; bra DONE;
    TAKE:
      bar.sync 3, 64;
      ld.shared.b32 %r1, [value];
    DONE:
    """
    want = torch.zeros(128, dtype=torch.int32)
    want[32:64] = 42
    assert torch.equal(results(body, threads=128, **order), want)


def test_votes_of_a_block() -> None:
    counted = "setp.lt.u32 %p1, %r0, 45; bar.red.popc.u32 %r1, 0, %p1;"
    assert results(counted, threads=64).tolist() == [45] * 64
    for threads, every, some in ((32, 1, 1), (64, 0, 1)):
        body = "setp.lt.u32 %p1, %r0, 32; bar.red.%s.pred %%p2, 0, %%p1; selp.u32 %%r1, 1, 0, %%p2;"
        assert results(body.replace("%s", "and").replace("%%", "%"), threads=threads).tolist() == [every] * threads
        assert results(body.replace("%s", "or").replace("%%", "%"), threads=threads).tolist() == [some] * threads


@pytest.mark.parametrize("order", ORDERS)
def test_cluster_barrier(order: dict[str, int]) -> None:
    """Each block reads what the other wrote into its own shared memory."""
    body = """
      .shared .align 4 .b8 value[4];
      mov.u32 %r2, %cluster_ctarank; mov.u32 %r3, value; add.u32 %r4, %r2, 100;
      setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.b32 [%r3], %r4;
      barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
      xor.b32 %r5, %r2, 1; mapa.shared::cluster.u32 %r6, %r3, %r5;
      ld.shared::cluster.b32 %r1, [%r6];
      barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
      mov.u32 %r7, %ctaid.x; mad.lo.u32 %r7, %r7, 64, %r0; mad.wide.u32 %d0, %r7, 4, %out;
    """
    found = results(body, threads=64, blocks=4, cluster=(2, 1, 1), **order)
    assert torch.equal(found, torch.tensor([101, 100, 101, 100], dtype=torch.int32).repeat_interleave(64))


def shuffled(kind: str, amount: int, clamp: int) -> torch.Tensor:
    body = f"add.u32 %r2, %r0, 1000; shfl.sync.{kind}.b32 %r1|%p1, %r2, {amount}, {clamp}, -1; @!%p1 neg.s32 %r1, %r1;"
    return results(body)


def test_shuffles() -> None:
    """A lane whose source is outside of its segment keeps its own value, and its predicate is false: minus, here."""
    lanes, own = LANES + 1000, -(LANES + 1000)
    assert torch.equal(shuffled("up", 3, 0), torch.where(LANES >= 3, lanes - 3, own))
    assert torch.equal(shuffled("down", 3, 31), torch.where(LANES <= 28, lanes + 3, own))
    assert torch.equal(shuffled("bfly", 5, 31), (LANES ^ 5) + 1000)
    assert torch.equal(shuffled("idx", 7, 31), torch.full((32,), 1007, dtype=torch.int32))
    segments = 0x1C00 | 31 & 3  # of four lanes: the segment's mask is above the clamp
    assert torch.equal(shuffled("idx", 1, 0x1C1F), (LANES & ~3) + 1001)
    assert torch.equal(shuffled("down", 1, segments), torch.where(LANES % 4 < 3, lanes + 1, own))


def test_votes_of_a_warp() -> None:
    few = "setp.lt.u32 %p1, %r0, 5;"
    assert results(few + "vote.sync.ballot.b32 %r1, %p1, -1;").tolist() == [31] * 32
    assert results(few + "vote.sync.ballot.b32 %r1, !%p1, -1;").tolist() == [~31] * 32
    for word, want in (("all", 0), ("any", 1), ("uni", 0)):
        text = f"{few} vote.sync.{word}.pred %p2, %p1, -1; selp.u32 %r1, 1, 0, %p2;"
        assert results(text).tolist() == [want] * 32
    assert results(few + "mov.u32 %r1, 0; @%p1 activemask.b32 %r1;").tolist() == [31] * 5 + [0] * 27


def test_matches() -> None:
    body = "shr.u32 %r2, %r0, 3; match.any.sync.b32 %r1, %r2, -1;"
    assert torch.equal(results(body), (255 << LANES // 8 * 8).int())
    body = "shr.u32 %r2, %r0, %s; match.all.sync.b32 %r1|%p1, %r2, -1; @%p1 mov.u32 %r1, 5;"
    assert results(body.replace("%s", "5")).tolist() == [5] * 32
    assert results(body.replace("%s", "4")).tolist() == [0] * 32


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("add.s32", sum(range(-5, 27))),
        ("min.s32", -5),
        ("max.s32", 26),
        ("max.u32", -1),
        ("min.u32", 0),
        ("or.b32", -1),
    ],
)
def test_reductions(word: str, want: int) -> None:
    assert results(f"sub.u32 %r2, %r0, 5; redux.sync.{word} %r1, %r2, -1;").tolist() == [want] * 32
    assert results("add.u32 %r2, %r0, 64; redux.sync.and.b32 %r1, %r2, -1;").tolist() == [64] * 32
    assert results("redux.sync.xor.b32 %r1, %r0, -1;").tolist() == [0] * 32


def test_elect() -> None:
    body = "mov.u32 %r1, 0; elect.sync _|%p1, -1; @%p1 mov.u32 %r1, 9;"
    assert results(body, threads=64).tolist() == ([9] + [0] * 31) * 2


def test_a_lock_between_lanes() -> None:
    """Lanes that wait for another lane of their own warp leave it its turn."""
    body = """
      .shared .align 4 .b8 lock[8];
      mov.u32 %r2, lock; mov.u32 %r1, 0;
      setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.b32 [%r2], 0; @%p1 st.shared.b32 [%r2+4], 0;
      bar.warp.sync -1;
    TRY:
      atom.shared.cas.b32 %r3, [%r2], 0, 1; setp.ne.u32 %p2, %r3, 0; @%p2 bra TRY;
      ld.shared.b32 %r1, [%r2+4]; add.u32 %r4, %r1, 1; st.shared.b32 [%r2+4], %r4;
      atom.shared.exch.b32 %r5, [%r2], 0;
    """
    assert sorted(results(body).tolist()) == list(range(32))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("threads", [1, 3])
def test_atomics_of_all_blocks(order: dict[str, int], threads: int) -> None:
    """On global memory, by OS threads at the same time."""
    out = torch.zeros(4, dtype=torch.int32)
    body = """
      mov.u32 %r0, %tid.x; red.global.add.u32 [%out], 1; atom.global.inc.u32 %r1, [%out+4], 9;
      red.global.max.s32 [%out+8], %r0; atom.global.add.f32 %r2, [%out+12], 0f3F800000;
    """
    ptx = kernel(body, parameters=["out"])
    run(ptx, [out], block=(96, 1, 1), grid=(50, 1, 1), threads=threads, **order)
    assert out[:3].tolist() == [4800, 0, 95] and out[3:].view(torch.float32).item() == 4800


def test_special_registers() -> None:
    names = [
        "%tid.x",
        "%tid.y",
        "%tid.z",
        "%ntid.y",
        "%ctaid.y",
        "%nctaid.x",
        "%laneid",
        "%warpid",
        "%cluster_ctarank",
        "%cluster_nctarank",
        "%lanemask_lt",
        "%lanemask_ge",
    ]
    out = torch.zeros(4, 24, 12, dtype=torch.int32)
    body = """
      mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mad.lo.u32 %r0, %r1, 4, %r0;
      mov.u32 %r1, %tid.z; mad.lo.u32 %r0, %r1, 12, %r0;
      mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ctaid.y; mad.lo.u32 %r2, %r3, 2, %r2; mad.lo.u32 %r0, %r2, 24, %r0;
      mad.wide.u32 %d0, %r0, 48, %out;
    """
    body += "\n".join(f"mov.u32 %r5, {name}; st.global.b32 [%d0+{4 * i}], %r5;" for i, name in enumerate(names))
    run(kernel(body, parameters=["out"]), [out], block=(4, 3, 2), grid=(2, 2, 1), cluster=(2, 1, 1))
    for block in range(4):
        for thread in range(24):
            mask = (1 << thread) - 1
            want = [thread % 4, thread // 4 % 3, thread // 12, 3, block // 2, 2, thread, 0, block % 2, 2, mask, ~mask]
            assert out[block, thread].tolist() == want


def test_counts() -> None:
    out = torch.zeros(40, dtype=torch.int32)
    body = THREAD + "mov.u32 %r1, 1; setp.lt.u32 %p1, %r0, 8;\n @%p1 mov.u32 %r1, 2;\n" + STORE
    counts = run(kernel(body, parameters=["out"]), [out], block=(40, 1, 1))
    # the parameter's load, five of the body, the store, the return; one of them by 8 threads
    assert (counts.warp_instructions, counts.thread_instructions) == (2 * 8, 40 * 7 + 8)


@pytest.mark.parametrize(
    ("order", "first"), [({}, [0, 1, 2, 3]), ({"reversed": True}, [3, 2, 1, 0]), ({"random": True, "seed": 1}, None)]
)
def test_orders(order: dict[str, bool], first: list[int] | None) -> None:
    """Which block came first, and which warp: each takes the next number."""
    ticket = """
      mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 31; setp.ne.u32 %p1, %r2, 0; @%p1 ret;
      atom.global.add.u32 %r3, [%out + 32], 1; shr.u32 %r4, %r1, 5; mov.u32 %r5, %ctaid.x; add.u32 %r4, %r4, %r5;
      mad.wide.u32 %d1, %r4, 4, %out; st.global.u32 [%d1], %r3;"""
    warps, blocks = torch.zeros(9, dtype=torch.int32), torch.zeros(9, dtype=torch.int32)
    run(kernel(ticket, parameters=["out"]), [warps], block=(128, 1, 1), **order)
    run(kernel(ticket, parameters=["out"]), [blocks], grid=(4, 1, 1), **order)
    warps, blocks = warps[:4].tolist(), blocks[:4].tolist()
    if first is not None:
        assert warps == first and blocks == first
        return
    assert sorted(warps) == sorted(blocks) == [0, 1, 2, 3]
    assert blocks != [0, 1, 2, 3]
